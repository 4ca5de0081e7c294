//! Threads for attempts: each runs one attempt from start to end, blocked while the task runs.
//!
//! A blocked thread costs a few KiB and saves the hand-over to a central reaper, which for the
//! shortest tasks would be a fair part of their cost.

use super::job::Job;
use super::lock::lock;
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Time for which a thread waits for its next attempt before it ends.
const IDLE: Duration = Duration::from_secs(10);
const STACK: usize = 256 << 10;

thread_local! {
    /// The pool (by address) that this thread serves, until a job is queued from within its job:
    /// that one it takes next itself, and no other thread is woken.
    static TAKES_NEXT: Cell<usize> = const { Cell::new(0) };
}

/// The pool: as many threads as attempts run; the caller limits those.
#[derive(Default)]
pub(super) struct Pool {
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// Runs a job at once, on an idle thread or a new one.
    ///
    /// # Errors
    /// If there is no idle thread and the system refuses a new one: why, and a job to abandon.
    pub fn run(self: &Arc<Self>, job: Job) -> Result<(), (io::Error, Job)> {
        let mut queue = lock(&self.queue);
        queue.jobs.push_back(job);
        if TAKES_NEXT.get() == self.address() {
            TAKES_NEXT.set(0);
            return Ok(());
        }
        let idle_thread = queue.jobs.len() <= queue.idle;
        drop(queue);
        if idle_thread {
            self.work.notify_one();
            return Ok(());
        }
        let pool = Arc::clone(self);
        let builder = thread::Builder::new().name("outlast-exec".to_owned()).stack_size(STACK);
        match builder.spawn(move || pool.serve()) {
            Ok(_) => Ok(()),
            // A thread that became idle meanwhile may have taken it.
            Err(error) => lock(&self.queue).jobs.pop_back().map_or(Ok(()), |job| Err((error, job))),
        }
    }

    /// Lets the threads end once the jobs that were given are done.
    pub fn close(&self) {
        lock(&self.queue).closed = true;
        self.work.notify_all();
    }

    fn serve(&self) {
        while let Some(job) = self.next() {
            TAKES_NEXT.set(self.address());
            job.run();
            TAKES_NEXT.set(0);
        }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn next(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        let mut tired = false;
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed || tired {
                return None;
            }
            queue.idle += 1;
            let (woken, wait) =
                self.work.wait_timeout(queue, IDLE).unwrap_or_else(|e| e.into_inner());
            queue = woken;
            queue.idle -= 1;
            tired = wait.timed_out();
        }
    }
}
