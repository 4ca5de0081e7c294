//! Program of a task: steps, checkpoints that it resumes from, and a ledger of both.

use crate::ledger::{CheckpointId, Fact, Ledger, checkpoint_id, read};
use crate::payload::payload;
use crate::specs::ON_PURPOSE;
use anyhow::Context;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

/// Exit code of an attempt that learned of its end: not 0, since it has not done its work.
const OVER: i32 = 7;

/// Be a task.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The `outlast` program
    #[arg(long)]
    outlast: PathBuf,
    /// Folder of the ledgers
    #[arg(long)]
    ledger: PathBuf,
    #[arg(long)]
    steps: u32,
    /// The mean time of a step, in milliseconds
    #[arg(long)]
    step_ms: u32,
    /// A checkpoint after so many steps; 0: none
    #[arg(long)]
    every: u32,
    /// Size of a checkpoint in bytes
    #[arg(long)]
    size: usize,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    kind: String,
}

struct Task {
    args: Args,
    id: String,
    ledger: Ledger,
    delivered: BTreeSet<CheckpointId>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<i32> {
    let variable = |name| std::env::var(name).with_context(|| format!("{name} is not set"));
    let (id, worker) = (variable("OUTLAST_TASK_ID")?, variable("OUTLAST_WORKER_ID")?);
    let attempt = variable("OUTLAST_ATTEMPT")?.parse()?;
    let ledger = Ledger::open(&args.ledger, &id, attempt)?;
    let mut task = Task { args, id, ledger, delivered: BTreeSet::new() };
    task.ledger.note(&Fact::Start(worker))?;
    let code = task.work()?;
    task.ledger.note(&Fact::End(code))?;
    // Its output may lie on a full disk; a partial write is completed.
    let line = format!("done {} {}\n", task.id, task.args.steps);
    let mut rest = if code == 0 { line.as_bytes() } else { b"" };
    while !rest.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), rest) {
            Ok(n) => rest = &rest[n..],
            Err(_) => sleep(Duration::from_millis(200)),
        }
    }
    Ok(code)
}

/// Unlike `eprintln!` it does not end the process where the disk is full.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Task {
    fn work(&mut self) -> anyhow::Result<i32> {
        let first = match self.restore()? {
            Some(step) => step + 1,
            None => return Ok(OVER),
        };
        let mut rng = SmallRng::seed_from_u64(self.args.seed);
        let last = self.args.steps;
        // Each of the first two runs that get here fails, in whichever attempts.
        let failures = read(&self.args.ledger, &self.id)?;
        let failures = failures.iter().filter(|l| l.fact == Fact::End(ON_PURPOSE)).count();
        let fails = match self.args.kind.as_str() {
            "fails" => Some(last),
            "flaky" if failures < 2 => Some((last / 3 * (failures as u32 + 1)).max(first)),
            _ => None,
        };
        for step in first..=last {
            let spread = rng.random_range(0.5..1.5);
            sleep(Duration::from_secs_f64(f64::from(self.args.step_ms) / 1000.0 * spread));
            self.ledger.note(&Fact::Step(step))?;
            if self.args.every > 0 && step % self.args.every == 0 && self.checkpoint(step)? {
                return Ok(OVER);
            }
            if step % 8 == 0 && self.progress(step)? {
                return Ok(OVER);
            }
            if fails == Some(step) {
                return Ok(ON_PURPOSE);
            }
        }
        Ok(0)
    }

    /// The command's exit code and its output, as JSON.
    fn outlast(&self, args: &[&str]) -> anyhow::Result<(i32, Value, String)> {
        let mut command = Command::new(&self.args.outlast);
        let done = command.args(["--json", "task"]).args(args).output()?;
        let json = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
        // Ended by a signal: so will this process be.
        let code = done.status.code().unwrap_or(OVER);
        Ok((code, json, String::from_utf8_lossy(&done.stderr).into_owned()))
    }

    fn wrong(&mut self, what: String) -> anyhow::Result<()> {
        complain(&what);
        Ok(self.ledger.note(&Fact::Wrong(what))?)
    }

    /// Returns the step to resume after; None if this attempt has ended.
    fn restore(&mut self) -> anyhow::Result<Option<u32>> {
        let path = std::env::current_dir()?.join("restored");
        let to = path.display().to_string();
        loop {
            let (code, json, text) = self.outlast(&["restore", &to, "--patience", "300s"])?;
            match code {
                0 => return self.restored(&path, &json).map(Some),
                3 => {
                    self.ledger.note(&Fact::Fresh)?;
                    return Ok(Some(0));
                }
                6 | OVER => return Ok(None),
                5 => {
                    self.ledger.note(&Fact::Refused(5))?;
                    sleep(Duration::from_secs(1));
                }
                _ => {
                    self.wrong(format!("restore ended with {code}: {text}"))?;
                    sleep(Duration::from_secs(1));
                }
            }
        }
    }

    fn restored(&mut self, path: &Path, json: &Value) -> anyhow::Result<u32> {
        let id = json["id"].as_str().and_then(checkpoint_id);
        let step = json["user"]["step"].as_u64().and_then(|n| u32::try_from(n).ok());
        let (Some(id), Some(step)) = (id, step) else {
            self.wrong(format!("restore answered {json}"))?;
            return Ok(0);
        };
        if std::fs::read(path)? != payload(&self.id, step, self.args.size) {
            self.wrong(format!("checkpoint {id:?} of step {step} is not what was kept"))?;
        }
        std::fs::remove_file(path)?;
        self.ledger.note(&Fact::Restored(id, step))?;
        Ok(step)
    }

    /// Returns whether this attempt has ended.
    fn checkpoint(&mut self, step: u32) -> anyhow::Result<bool> {
        let path = std::env::current_dir()?.join("checkpoint");
        let bytes = payload(&self.id, step, self.args.size);
        if let Err(error) = std::fs::File::create(&path).and_then(|mut f| f.write_all(&bytes)) {
            // The worker's disk is full: the work goes on without.
            complain(&format!("no checkpoint: {error}"));
            self.ledger.note(&Fact::Refused(0))?;
            return Ok(false);
        }
        let (at, meta) = (path.display().to_string(), format!("{{\"step\":{step}}}"));
        let (code, json, text) =
            self.outlast(&["checkpoint", &at, "--meta", &meta, "--patience", "60s"])?;
        match (code, json["id"].as_str().and_then(checkpoint_id)) {
            (0, Some(id)) => self.ledger.note(&Fact::Made(id, step))?,
            (6 | OVER, _) => return Ok(true),
            (5, _) => {
                complain(&text);
                self.ledger.note(&Fact::Refused(5))?;
            }
            _ => self.wrong(format!("checkpoint ended with {code}: {text}{json}"))?,
        }
        self.look()
    }

    /// Notes which checkpoints the coordinator has, as the worker says.
    fn look(&mut self) -> anyhow::Result<bool> {
        let (code, json, _) = self.outlast(&["checkpoints", "--no-wait"])?;
        for one in json.as_array().into_iter().flatten() {
            let id = one["id"].as_str().and_then(checkpoint_id);
            if let Some(id) = id.filter(|_| one["delivered"] == true)
                && self.delivered.insert(id)
            {
                self.ledger.note(&Fact::Delivered(id))?;
            }
        }
        Ok(code == 6)
    }

    fn progress(&mut self, step: u32) -> anyhow::Result<bool> {
        let share = format!("{}", f64::from(step) / f64::from(self.args.steps));
        let data = format!("{{\"step\":{step}}}");
        let (code, _, text) =
            self.outlast(&["progress", &share, "--data", &data, "--patience", "20s"])?;
        match code {
            0 | 5 => Ok(false),
            6 | OVER => Ok(true),
            _ => self.wrong(format!("progress ended with {code}: {text}")).map(|()| false),
        }
    }
}
