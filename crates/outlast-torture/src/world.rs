//! The processes, their links and disks: starts them, hurts them, starts them again.

use crate::disk::Disk;
use crate::plan::{Fault, Planned};
use crate::procs::{self, Process, signal};
use outlast_chaos::{Faults, Proxy};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Before a process that ended by itself is started again.
const AGAIN: Duration = Duration::from_secs(1);
const HEARTBEATS: [&str; 4] = ["--heartbeat-interval", "1s", "--heartbeat-timeout", "5s"];

/// A worker, or where one should be.
struct Node {
    name: String,
    /// Number of previous workers in this place.
    life: u32,
    state: PathBuf,
    process: Option<Process>,
    proxy: Proxy,
    /// Number of the link's newest fault, so that the end of an older one does not end it.
    link: u64,
    disk: Option<Disk>,
    /// MiB of a disk of its own; 0: none.
    small_disk: u32,
}

/// Action that is due later.
enum Due {
    Coordinator,
    Worker(usize),
    GoOnCoordinator(u32),
    GoOnWorker(usize, u32),
    GoOnKeeper(usize, u32),
    Heal(usize, u64),
    ClearDisk(usize),
}

/// See the module.
pub(crate) struct World {
    pub dir: PathBuf,
    pub at: String,
    outlast: PathBuf,
    start: Instant,
    log: File,
    coordinator: Option<Process>,
    nodes: Vec<Node>,
    due: BTreeMap<(Instant, u64), Due>,
    next: u64,
    /// Faults by kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// Faults whose victim was not there.
    pub skipped: u64,
    /// Names of workers whose disks are gone.
    pub destroyed: BTreeSet<String>,
    /// Processes that ended without being asked to, how, and how often.
    pub ended: BTreeMap<String, u64>,
}

impl World {
    /// Starts a coordinator and workers; the disk of the first is a small one if that may be.
    pub async fn start(
        dir: &Path,
        outlast: &Path,
        workers: usize,
        disk: u32,
    ) -> anyhow::Result<World> {
        // A free port, which a restarted coordinator needs again.
        let at = outlast_chaos::free_address()?.to_string();
        let log = File::options().create(true).append(true).open(dir.join("faults.log"))?;
        let mut nodes = Vec::new();
        for n in 0..workers {
            let proxy = Proxy::bind("127.0.0.1:0", &at).await?;
            let (name, state, small_disk) =
                (String::new(), PathBuf::new(), if n == 0 { disk } else { 0 });
            let (process, disk) = (None, None);
            nodes.push(Node { name, life: 0, state, process, proxy, link: 0, disk, small_disk });
        }
        let mut world = World {
            dir: dir.to_owned(),
            at,
            outlast: outlast.to_owned(),
            start: Instant::now(),
            log,
            coordinator: None,
            nodes,
            due: BTreeMap::new(),
            next: 0,
            counts: BTreeMap::new(),
            skipped: 0,
            destroyed: BTreeSet::new(),
            ended: BTreeMap::new(),
        };
        world.start_coordinator()?;
        for n in 0..workers {
            world.found(n)?;
            world.start_worker(n)?;
        }
        Ok(world)
    }

    /// Returns the worker whose disk can be filled.
    pub fn small_disk(&self) -> Option<usize> {
        self.nodes.iter().position(|n| n.disk.is_some())
    }
    pub fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|n| n.name.clone()).collect()
    }

    fn say(&mut self, text: &str) {
        let at = self.start.elapsed().as_secs_f64();
        let _ = writeln!(self.log, "{at:8.3} {} {text}", crate::ledger::wall());
    }

    /// A new worker in place `n`, with an empty folder.
    fn found(&mut self, n: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[n];
        node.life += 1;
        node.name = format!("w{}-{}", n + 1, node.life);
        node.state = self.dir.join(&node.name);
        std::fs::create_dir_all(&node.state)?;
        if node.small_disk > 0 {
            match Disk::mount(&node.state, node.small_disk) {
                Ok(disk) => node.disk = Some(disk),
                Err(error) => {
                    node.small_disk = 0;
                    eprintln!("no disk will be full: a small one cannot be mounted ({error})");
                }
            }
        }
        Ok(())
    }

    fn start_coordinator(&mut self) -> anyhow::Result<()> {
        let data = self.dir.join("coordinator").display().to_string();
        let mut args = vec!["coordinator", "--listen", &self.at, "--data-dir", &data];
        args.extend(HEARTBEATS);
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        let log = self.dir.join("coordinator.log");
        self.coordinator = Some(Process::spawn(&self.outlast, &args, &log)?);
        Ok(())
    }

    fn start_worker(&mut self, n: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[n];
        let (via, state) = (format!("http://{}", node.proxy.local_addr()), node.state.display());
        let state = state.to_string();
        let mut args = vec!["worker", "--name", &node.name, "--coordinator", &via];
        args.extend(["--state-dir", &state, "--slots", "4"]);
        args.extend(["--initial-reconnect-delay", "200ms", "--max-reconnect-delay", "2s"]);
        args.extend(HEARTBEATS);
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        let log = self.dir.join(format!("{}.log", node.name));
        node.process = Some(Process::spawn(&self.outlast, &args, &log)?);
        Ok(())
    }

    fn later(&mut self, after: Duration, due: Due) {
        self.next += 1;
        self.due.insert((Instant::now() + after, self.next), due);
    }

    /// Does a fault, if its victim is there.
    pub fn hurt(&mut self, planned: &Planned) -> anyhow::Result<()> {
        let fault = &planned.fault;
        let whom = fault.worker().map_or("coordinator".into(), |n| self.nodes[n].name.clone());
        let done = self.try_to(planned)?;
        let lasts = planned.lasts.as_secs_f64();
        if done {
            *self.counts.entry(fault.word()).or_default() += 1;
            self.say(&format!("{whom}: {fault}, for {lasts:.1} s"));
        } else {
            self.skipped += 1;
            self.say(&format!("{whom}: {fault}: skipped, it is down"));
        }
        Ok(())
    }

    fn try_to(&mut self, planned: &Planned) -> anyhow::Result<bool> {
        let lasts = planned.lasts;
        let node = |n: usize| &self.nodes[n];
        let due = match &planned.fault {
            Fault::KillCoordinator => match self.coordinator.take() {
                Some(_killed) => Due::Coordinator,
                None => return Ok(false),
            },
            Fault::StopCoordinator => match &mut self.coordinator {
                Some(p) if !p.stopped => {
                    p.stop(true);
                    Due::GoOnCoordinator(p.id())
                }
                _ => return Ok(false),
            },
            Fault::KillWorker(n) => match self.nodes[*n].process.take() {
                Some(_killed) => Due::Worker(*n),
                None => return Ok(false),
            },
            Fault::StopWorker(n) => match &mut self.nodes[*n].process {
                Some(p) if !p.stopped => {
                    p.stop(true);
                    Due::GoOnWorker(*n, p.id())
                }
                _ => return Ok(false),
            },
            Fault::KillKeeper(n) => match procs::keeper(&node(*n).state) {
                Some(pid) => {
                    signal(pid, Signal::KILL);
                    return Ok(true);
                }
                None => return Ok(false),
            },
            Fault::StopKeeper(n) => match procs::keeper(&node(*n).state) {
                Some(pid) => {
                    signal(pid, Signal::STOP);
                    Due::GoOnKeeper(*n, pid)
                }
                None => return Ok(false),
            },
            Fault::PowerLoss(n) => match self.nodes[*n].process.take() {
                Some(killed) => {
                    drop(killed);
                    procs::kill_all_of(&self.nodes[*n].state);
                    Due::Worker(*n)
                }
                None => return Ok(false),
            },
            Fault::Destroy(n) => {
                if self.nodes[*n].process.is_none() {
                    return Ok(false);
                }
                self.destroy(*n)?;
                Due::Worker(*n)
            }
            Fault::Link(n, faults) => {
                let node = &mut self.nodes[*n];
                node.link += 1;
                node.proxy.handle().set(faults.clone());
                Due::Heal(*n, node.link)
            }
            Fault::DiskFull(n) => match &node(*n).disk {
                Some(disk) => {
                    disk.fill();
                    Due::ClearDisk(*n)
                }
                None => return Ok(false),
            },
        };
        self.later(lasts, due);
        Ok(true)
    }

    fn destroy(&mut self, n: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[n];
        node.process = None;
        procs::kill_all_of(&node.state);
        node.disk = None;
        std::fs::remove_dir_all(&node.state)?;
        self.destroyed.insert(node.name.clone());
        self.found(n)
    }

    /// Does what is due, and starts again what ended by itself.
    pub fn tick(&mut self) -> anyhow::Result<()> {
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= Instant::now()
        {
            let due = entry.remove();
            self.undo(due)?;
        }
        if let Some(status) = self.coordinator.as_mut().and_then(Process::ended) {
            self.coordinator = None;
            self.on_end("coordinator".into(), status, Due::Coordinator);
        }
        for n in 0..self.nodes.len() {
            if let Some(status) = self.nodes[n].process.as_mut().and_then(Process::ended) {
                self.nodes[n].process = None;
                self.on_end(self.nodes[n].name.clone(), status, Due::Worker(n));
            }
        }
        Ok(())
    }

    fn on_end(&mut self, who: String, status: std::process::ExitStatus, due: Due) {
        let log = self.dir.join(format!("{who}.log"));
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let text = format!("{who} ended, {status}: {}", log.lines().last().unwrap_or_default());
        self.say(&text);
        *self.ended.entry(text).or_default() += 1;
        self.later(AGAIN, due);
    }

    fn undo(&mut self, due: Due) -> anyhow::Result<()> {
        match due {
            Due::Coordinator if self.coordinator.is_none() => self.start_coordinator()?,
            Due::Worker(n) if self.nodes[n].process.is_none() => self.start_worker(n)?,
            Due::Coordinator | Due::Worker(_) => {}
            Due::GoOnCoordinator(pid) => go_on(&mut self.coordinator, pid),
            Due::GoOnWorker(n, pid) => go_on(&mut self.nodes[n].process, pid),
            // Only if it is still that one.
            Due::GoOnKeeper(n, pid) if procs::keeper(&self.nodes[n].state) == Some(pid) => {
                signal(pid, Signal::CONT);
            }
            Due::GoOnKeeper(..) => {}
            Due::Heal(n, link) if self.nodes[n].link == link => self.nodes[n].proxy.handle().heal(),
            Due::Heal(..) => {}
            Due::ClearDisk(n) => {
                if let Some(disk) = &self.nodes[n].disk {
                    disk.clear();
                }
            }
        }
        Ok(())
    }

    /// No more faults: everything goes on, now.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        self.say("healed");
        for due in std::mem::take(&mut self.due).into_values() {
            self.undo(due)?;
        }
        for node in &self.nodes {
            node.proxy.handle().set(Faults::none());
        }
        Ok(())
    }

    /// Describes the state of all processes in a few words.
    pub fn describe(&self) -> String {
        let of = |p: &Option<Process>| match p {
            None => "down",
            Some(p) if p.stopped => "stopped",
            Some(_) => "up",
        };
        let mut all = vec![format!("coordinator {}", of(&self.coordinator))];
        for node in &self.nodes {
            let faults = node.proxy.handle().faults();
            let link = if faults.is_none() { String::new() } else { format!(" ({faults})") };
            all.push(format!("{} {}{link}", node.name, of(&node.process)));
        }
        all.join(", ")
    }
}

fn go_on(process: &mut Option<Process>, pid: u32) {
    if let Some(p) = process.as_mut().filter(|p| p.id() == pid) {
        p.stop(false);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.coordinator = None;
        for node in &mut self.nodes {
            node.process = None;
            procs::kill_all_of(&node.state);
            if let Some(disk) = node.disk.take() {
                disk.copy_to(&self.dir.join(format!("{}.disk", node.name)));
            }
        }
    }
}
