//! Record that a task writes outside of its worker's folder: the truth that the coordinator's history
//! is compared with. One file per task, one line per fact, each synced before the task continues.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Id of a checkpoint: the attempt that made it and its number there, which is also its age.
pub(crate) type CheckpointId = (u64, u64);

/// A fact. What it means is at the place that writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The attempt's process runs, on this worker.
    Start(String),
    /// The attempt resumes after this step, from this checkpoint.
    Restored(CheckpointId, u32),
    /// The attempt found no checkpoint.
    Fresh,
    /// A step was done.
    Step(u32),
    /// The worker acknowledged a checkpoint of this step.
    Made(CheckpointId, u32),
    /// The worker said that the coordinator has this one.
    Delivered(CheckpointId),
    /// A checkpoint or restore was refused for good: the exit code.
    Refused(i32),
    /// A violation that the task itself observed.
    Wrong(String),
    /// The process ends with this code.
    End(i32),
}

/// A line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub attempt: u64,
    /// Unix milliseconds.
    pub at: i64,
    pub pid: u32,
    pub fact: Fact,
}

/// Unix time in milliseconds.
pub(crate) fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn path(folder: &Path, task: &str) -> PathBuf {
    folder.join(format!("{task}.log"))
}

/// `2-14`
pub(crate) fn checkpoint_id(text: &str) -> Option<CheckpointId> {
    let (epoch, number) = text.split_once('-')?;
    Some((epoch.parse().ok()?, number.parse().ok()?))
}

/// Writer for one attempt.
pub(crate) struct Ledger {
    file: File,
    attempt: u64,
}

impl Ledger {
    pub fn open(folder: &Path, task: &str, attempt: u64) -> io::Result<Ledger> {
        let file = File::options().create(true).append(true).open(path(folder, task))?;
        Ok(Ledger { file, attempt })
    }

    /// Durable when it returns. One write, so that attempts that run at once do not mix.
    pub fn note(&mut self, fact: &Fact) -> io::Result<()> {
        let (attempt, pid) = (self.attempt, std::process::id());
        let text = match fact {
            Fact::Start(worker) => format!("start {worker}"),
            Fact::Restored((e, n), step) => format!("restored {e}-{n} {step}"),
            Fact::Fresh => "fresh".into(),
            Fact::Step(step) => format!("step {step}"),
            Fact::Made((e, n), step) => format!("made {e}-{n} {step}"),
            Fact::Delivered((e, n)) => format!("delivered {e}-{n}"),
            Fact::Refused(code) => format!("refused {code}"),
            Fact::Wrong(what) => format!("wrong {}", what.replace('\n', " ")),
            Fact::End(code) => format!("end {code}"),
        };
        self.file.write_all(format!("{attempt} {} {pid} {text}\n", wall()).as_bytes())?;
        self.file.sync_data()
    }
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.splitn(5, ' ');
    let (attempt, at) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (pid, kind, rest) = (words.next()?.parse().ok()?, words.next()?, words.next());
    let pair = || {
        let (id, step) = rest?.split_once(' ')?;
        Some((checkpoint_id(id)?, step.parse().ok()?))
    };
    let fact = match kind {
        "start" => Fact::Start(rest?.to_owned()),
        "restored" => pair().map(|(id, step)| Fact::Restored(id, step))?,
        "fresh" => Fact::Fresh,
        "step" => Fact::Step(rest?.parse().ok()?),
        "made" => pair().map(|(id, step)| Fact::Made(id, step))?,
        "delivered" => Fact::Delivered(checkpoint_id(rest?)?),
        "refused" => Fact::Refused(rest?.parse().ok()?),
        "wrong" => Fact::Wrong(rest?.to_owned()),
        "end" => Fact::End(rest?.parse().ok()?),
        _ => return None,
    };
    Some(Line { attempt, at, pid, fact })
}

/// Reads the record of a task. A last line that was cut off by a kill is ignored.
pub(crate) fn read(folder: &Path, task: &str) -> io::Result<Vec<Line>> {
    let text = match std::fs::read_to_string(path(folder, task)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    Ok(text.lines().filter_map(parse).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_can_be_read() {
        let folder = std::env::temp_dir().join(format!("outlast-ledger-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let facts = [
            Fact::Start("w-1".into()),
            Fact::Restored((2, 14), 70),
            Fact::Fresh,
            Fact::Step(71),
            Fact::Made((3, 1), 75),
            Fact::Delivered((3, 1)),
            Fact::Refused(5),
            Fact::Wrong("two words".into()),
            Fact::End(3),
        ];
        let mut ledger = Ledger::open(&folder, "t", 3).unwrap();
        for fact in &facts {
            ledger.note(fact).unwrap();
        }
        let read: Vec<Fact> = read(&folder, "t").unwrap().into_iter().map(|l| l.fact).collect();
        assert_eq!(read, facts);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
