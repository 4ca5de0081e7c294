//! The processes that a worker's functions run in: one per slot, started when there is need, used
//! again, and ended with the worker.

use crate::child::{Came, Child, TICK, ending};
use crate::requests;
use crate::watch::{KILL, Watch, Why};
use outlast_worker::exec::Memory;
use outlast_worker::shell::{FailedBy, Failure, TaskContext};
use pyo3::prelude::*;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Interval at which kills for lack of memory are checked.
const LOOK_AT_MEMORY: Duration = Duration::from_secs(5);
/// Time that closing waits for killed processes.
const CLOSING: Duration = Duration::from_secs(10);

type Spawned = io::Result<Child>;

pub struct Pool {
    slots: usize,
    state: Mutex<State>,
    changed: Condvar,
    /// To the thread that starts processes: they end with it, so it is always the same.
    orders: Mutex<Option<Sender<Order>>>,
    hurry: AtomicU8,
    memory: Memory,
    looked: Mutex<Instant>,
    /// `define(name)` gives what a process must know of a function, as JSON text.
    define: Py<PyAny>,
    definitions: Mutex<HashMap<String, Definition>>,
}

#[derive(Default)]
struct State {
    idle: Vec<Child>,
    /// Number of all processes: idle, at work, about to start.
    total: usize,
    pids: Vec<u32>,
    spare_ordered: bool,
    closed: bool,
}

enum Order {
    Now(std::sync::mpsc::SyncSender<Spawned>),
    Spare,
}

#[derive(Default)]
struct Definition {
    version: u64,
    text: Option<Arc<str>>,
}

#[derive(Serialize)]
struct Job<'a> {
    id: &'a str,
    attempt: u64,
    function: &'a str,
    version: u64,
    args: &'a Value,
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Creates a pool of up to `slots` processes, each started by this command and sent `boot` first.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn start(
        command: Vec<String>,
        boot: String,
        slots: usize,
        define: Py<PyAny>,
    ) -> io::Result<Arc<Pool>> {
        let (orders, asked) = channel();
        let pool = Arc::new(Pool {
            slots,
            state: Mutex::default(),
            changed: Condvar::new(),
            orders: Mutex::new(Some(orders)),
            hurry: AtomicU8::new(0),
            memory: Memory::new(),
            looked: Mutex::new(Instant::now()),
            define,
            definitions: Mutex::default(),
        });
        let of = Arc::downgrade(&pool);
        let spawner = move || {
            for order in asked {
                let spawned = Child::spawn(&command, &boot);
                let Some(pool) = of.upgrade() else { return };
                match order {
                    Order::Now(back) => {
                        if let Ok(child) = &spawned {
                            lock(&pool.state).pids.push(child.pid());
                        }
                        let _ = back.send(spawned);
                    }
                    Order::Spare => pool.keep_spare(spawned),
                }
            }
            // Every process has ended before the last order's sender went.
        };
        std::thread::Builder::new().name("outlast-spawn".into()).spawn(spawner)?;
        pool.order_spare();
        Ok(pool)
    }

    fn order(&self, order: Order) -> io::Result<()> {
        let gone = || io::Error::other("the worker ends");
        let orders = lock(&self.orders).clone().ok_or_else(gone)?;
        orders.send(order).map_err(|_| gone())
    }

    /// Has a process started ahead of the task that will need it.
    fn order_spare(&self) {
        let mut state = lock(&self.state);
        let enough = !state.idle.is_empty() || state.total >= self.slots;
        if state.closed || state.spare_ordered || enough {
            return;
        }
        state.total += 1;
        state.spare_ordered = true;
        drop(state);
        if self.order(Order::Spare).is_err() {
            self.keep_spare(Err(io::ErrorKind::Other.into()));
        }
    }

    fn keep_spare(&self, spawned: Spawned) {
        let mut state = lock(&self.state);
        state.spare_ordered = false;
        match spawned {
            Ok(child) if !state.closed => {
                state.pids.push(child.pid());
                state.idle.push(child);
            }
            Ok(child) => {
                state.total -= 1;
                drop(state);
                drop(child);
            }
            // Whoever needs one tries again, and says why it failed.
            Err(_) => state.total -= 1,
        }
        self.changed.notify_all();
    }

    /// Takes an idle process, or starts one.
    fn take(&self) -> Spawned {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return Err(io::Error::other("the worker ends"));
            }
            if let Some(mut child) = state.idle.pop() {
                if child.is_ready() {
                    return Ok(child);
                }
                drop(state);
                self.discard(child);
                state = lock(&self.state);
                continue;
            }
            if state.total < self.slots {
                state.total += 1;
                break;
            }
            // The task whose place this is tells its end before it gives its process back.
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let (back, spawned) = sync_channel(1);
        let spawned = self.order(Order::Now(back)).and_then(|()| {
            spawned.recv().unwrap_or_else(|_| Err(io::Error::other("the worker ends")))
        });
        if spawned.is_err() {
            lock(&self.state).total -= 1;
            self.changed.notify_all();
        }
        spawned
    }

    fn give_back(&self, child: Child) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            return self.discard(child);
        }
        state.idle.push(child);
        drop(state);
        self.changed.notify_all();
    }

    fn discard(&self, child: Child) {
        let pid = child.pid();
        drop(child);
        let mut state = lock(&self.state);
        state.total -= 1;
        state.pids.retain(|p| *p != pid);
        drop(state);
        self.changed.notify_all();
    }

    /// The processes that there are.
    pub fn pids(&self) -> Vec<u32> {
        lock(&self.state).pids.clone()
    }

    /// Tasks are interrupted, or their processes killed, without waiting for what they look at.
    pub fn hurry(&self, level: u8) {
        self.hurry.fetch_max(level, Ordering::Relaxed);
    }

    /// Ends all processes. Tasks that still run lose theirs.
    pub fn close(&self) {
        self.hurry(KILL);
        let mut state = lock(&self.state);
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        self.changed.notify_all();
        for child in &idle {
            child.dismiss();
        }
        for child in idle {
            self.discard(child);
        }
        let until = Instant::now() + CLOSING;
        let mut state = lock(&self.state);
        while state.total > 0 && Instant::now() < until {
            let waited = self.changed.wait_timeout(state, TICK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        // With its thread go those that could not be ended.
        *lock(&self.orders) = None;
    }

    /// The function's body was replaced: processes learn the new one with their next task.
    pub fn redefined(&self, name: &str) {
        let mut definitions = lock(&self.definitions);
        let found = definitions.entry(name.to_owned()).or_default();
        found.version += 1;
        found.text = None;
    }

    fn version(&self, name: &str) -> u64 {
        lock(&self.definitions).get(name).map_or(0, |d| d.version)
    }

    /// Returns the description of a function for a process; the worker's Python creates it once.
    fn definition(&self, name: &str) -> Result<Arc<str>, String> {
        let version = self.version(name);
        if let Some(text) = lock(&self.definitions).get(name).and_then(|d| d.text.clone()) {
            return Ok(text);
        }
        let said = Python::try_attach(|py| {
            let said = self.define.bind(py).call1((name,)).and_then(|s| s.extract::<String>());
            said.map_err(|e| e.value(py).to_string())
        });
        let text: Arc<str> = said.unwrap_or_else(|| Err("the interpreter ends".into()))?.into();
        let mut definitions = lock(&self.definitions);
        let found = definitions.entry(name.to_owned()).or_default();
        if found.version == version {
            found.text = Some(text.clone());
        }
        Ok(text)
    }

    /// Runs a task in one of the processes.
    pub fn run(&self, context: &TaskContext) -> Result<Value, Failure> {
        let start = |e: io::Error| format!("a process for the task cannot be started: {e}");
        let mut child = self.take().map_err(start)?;
        self.order_spare();
        let (result, reusable) = self.run_in(&mut child, context);
        match reusable {
            true => self.give_back(child),
            false => self.discard(child),
        }
        result
    }

    fn run_in(&self, child: &mut Child, context: &TaskContext) -> (Result<Value, Failure>, bool) {
        let job = Job {
            id: &context.task_id,
            attempt: context.epoch,
            function: &context.function,
            version: self.version(&context.function),
            args: &context.args,
            traceparent: context.traceparent.as_deref(),
            tracestate: context.tracestate.as_deref(),
        };
        let job = serde_json::to_vec(&job).unwrap_or_default();
        if child.send(b'T', &job).is_err() {
            return (Err(self.died(child, None, context)), false);
        }
        let mut watch = Watch::new(context);
        loop {
            let came = match child.receive() {
                Ok(came) => came,
                Err(e) => {
                    return (Err(format!("the task's process speaks nonsense: {e}").into()), false);
                }
            };
            watch.look(context, child, self.hurry.load(Ordering::Relaxed));
            match came {
                Came::Nothing => self.look_at_memory(),
                Came::End => return (Err(self.died(child, watch.why, context)), false),
                Came::Frame((b'D', json)) => {
                    let value = serde_json::from_slice(&json);
                    let value = value.map_err(|e| format!("the result is no JSON: {e}").into());
                    return (value, !watch.interrupted);
                }
                Came::Frame((b'F', json)) => {
                    let failure = failure(&json, watch.why, context);
                    return (Err(failure), !watch.interrupted);
                }
                // It could not even begin.
                Came::Frame((b'E', json)) => return (Err(failure(&json, None, context)), false),
                Came::Frame((kind, request)) => {
                    let answer = match kind {
                        b'N' => requests::definition(
                            self.definition(&String::from_utf8_lossy(&request)),
                        ),
                        _ => requests::answer(context, &request),
                    };
                    if child.send(b'A', answer.to_string().as_bytes()).is_err() {
                        return (Err(self.died(child, watch.why, context)), false);
                    }
                }
            }
        }
    }

    fn look_at_memory(&self) {
        let mut looked = lock(&self.looked);
        if looked.elapsed() >= LOOK_AT_MEMORY {
            *looked = Instant::now();
            self.memory.look();
        }
    }

    /// Ends a process that is gone or has to end; returns the task's failure.
    fn died(&self, child: &mut Child, why: Option<Why>, context: &TaskContext) -> Failure {
        let pid = child.pid();
        let status = child.end();
        let grace = context.kill_grace.as_secs_f64();
        match (why, status) {
            (Some(Why::Timeout), _) => timed_out(context),
            (Some(Why::Stop), _) => format!(
                "the task did not end within {grace} s of being told to stop, nor when \
                 TaskStopped was raised in it; its process was killed"
            )
            .into(),
            (None, Err(e)) => format!("the task's process was lost: {e}").into(),
            (None, Ok(status)) => {
                let (mut message, signal) = ending(status);
                let mut by = signal.map_or(FailedBy::Itself, FailedBy::Signal);
                if signal == Some(9) {
                    let killed = i32::try_from(pid).ok().and_then(|pid| self.memory.killed(pid));
                    if let Some(evidence) = killed {
                        message = format!("the task's process ran out of memory: {evidence}");
                        by = FailedBy::OutOfMemory;
                    }
                }
                Failure { message, details: Value::Null, by }
            }
        }
    }
}

pub(crate) fn timed_out(context: &TaskContext) -> Failure {
    let limit = context.timeout.unwrap_or_default().as_secs_f64();
    let message = format!("the task ran longer than its time limit of {limit} s");
    Failure { message, details: Value::Null, by: FailedBy::Timeout }
}

fn failure(json: &[u8], why: Option<Why>, context: &TaskContext) -> Failure {
    let said: Value = serde_json::from_slice(json).unwrap_or_default();
    let stopped = said["stopped"].as_bool().unwrap_or(false);
    if stopped && why == Some(Why::Timeout) {
        return timed_out(context);
    }
    let message = said["message"].as_str().unwrap_or("the task failed").to_owned();
    Failure { message, details: said["details"].clone(), by: FailedBy::Itself }
}
