//! `outlast task checkpoint|restore|progress|…`: requests of a task's script to its worker.
//!
//! A script may run these every second: they read no configuration and connect only to the
//! worker's socket.

use crate::exit::Usage;
use crate::fetch::{self, Outside};
use crate::{args, output};
use outlast_worker::local::client::{ClientError, PATIENCE};
use outlast_worker::local::{
    CheckpointView, Client, Control, DAMAGED, MAX_WAIT, Progress as Said, StateView,
};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  error
  2  wrong usage, or not inside a task
  4  OUTLAST_TASK_TOKEN does not belong to this attempt
  5  the worker is away or has no room
  6  this attempt has ended or is superseded

The command waits for a worker that is away, 10 minutes by default: tasks outlive their worker.";

const RESTORE_HELP: &str = "\
A checkpoint of a file replaces the file. One of a folder needs an empty or missing folder.
The result is complete or absent.

Exit codes:
  0  restored
  1  error
  2  wrong usage, or not inside a task
  3  there is no checkpoint yet
  4  OUTLAST_TASK_TOKEN does not belong to this attempt
  5  the worker, or a coordinator that has the data, is away; or the disk is full
  6  this attempt has ended or is superseded, or the folder is not empty
  7  no checkpoint has this id, or it was removed
  8  its data is damaged on this machine, and the coordinator has no other copy

Examples:
  outlast task restore ckpt || start_fresh

  # Start afresh only if there is no checkpoint, not after an error:
  code=0; outlast task restore ckpt || code=$?
  case $code in 0) ;; 3) start_fresh ;; *) exit 1 ;; esac";

/// Time to wait for a worker that is away.
#[derive(clap::Args)]
pub(crate) struct Patience {
    /// Longest wait for a worker that is away [default: 10m]
    #[arg(long, value_parser = args::seconds, value_name = "TIME")]
    patience: Option<f64>,
    /// Do not wait for a worker that is away
    #[arg(long, conflicts_with = "patience")]
    no_wait: bool,
}

#[derive(clap::Subcommand)]
pub(crate) enum InTask {
    /// In a task: save a file or folder as a checkpoint; prints its id
    #[command(after_help = format!("The checkpoint is durable on the worker's disk when the command returns. \
    Do not write to PATH meanwhile.

Examples:
  outlast task checkpoint model.pt --meta '{{\"epoch\": 3}}'
  outlast task checkpoint out/ --name \"after step 9\"

{EXIT_CODES}"))]
    Checkpoint {
        /// File or folder
        path: PathBuf,
        /// Metadata of the checkpoint: a JSON object
        #[arg(long, value_name = "JSON")]
        meta: Option<String>,
        /// Display name [default: the file's]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// In a task: restore the newest checkpoint (of any attempt); exit code 3 if there is none
    #[command(after_help = RESTORE_HELP)]
    Restore {
        /// File or folder
        path: PathBuf,
        /// Checkpoint to restore, instead of the newest
        #[arg(long)]
        id: Option<String>,
        /// Replace a folder that is not empty
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// List the checkpoints of a task; without an id, those of the calling task
    #[command(after_help = format!("Examples:
  outlast task checkpoints t1             # of any task, from the coordinator
  outlast task checkpoints                # in a task: its own, including those being uploaded

{EXIT_CODES}"))]
    Checkpoints {
        /// Task id [default: the calling task]
        id: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// In a task: report progress
    #[command(after_help = format!("Examples:
  outlast task progress 0.85
  outlast task progress 85% --message 'epoch 17 of 20' --data '{{\"loss\": 0.031}}'

{EXIT_CODES}"))]
    Progress {
        /// Progress: 0 to 1, or 0% to 100%
        #[arg(value_parser = share, value_name = "VALUE")]
        value: f64,
        /// JSON object to merge into the state
        #[arg(long, value_name = "JSON")]
        data: Option<String>,
        /// Message to show with the progress
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// Print the state of a task; in a task, print or change its own
    #[command(after_help = format!("Examples:
  outlast task state t1                   # of any task, from the coordinator
  outlast task state                      # in a task: its own
  outlast task state loss=0.03 note=hello # merge; values are JSON, or else text
  outlast task state note=null            # delete

{EXIT_CODES}"))]
    State {
        /// Task id; or values to merge into the calling task's state (null deletes a key)
        #[arg(value_name = "ID|KEY=VALUE")]
        what: Vec<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// In a task: save a file (a folder as a tar file) as an artifact of its result
    #[command(after_help = EXIT_CODES)]
    Artifact {
        /// File or folder
        file: PathBuf,
        /// Name of the artifact [default: the file's]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// In a task: print the requests to it (cancel, pause, checkpoint) as JSON
    #[command(after_help = format!("Example:
  seen='{{}}'
  while new=$(outlast task control --wait 1h --seen \"$seen\"); do
    seen=$new                             # {{\"cancel\":false,\"pause\":false,\"checkpoint_request\":1}}
    outlast task checkpoint out/
  done

With --wait, exit code 3 means that there was no new request in that time.

{EXIT_CODES}"))]
    Control {
        /// Wait up to this time for a new request
        #[arg(long, value_parser = args::seconds, value_name = "TIME")]
        wait: Option<f64>,
        /// Requests that were seen before: the previous output of this command
        #[arg(long, value_name = "JSON", default_value = "{}", requires = "wait")]
        seen: String,
        #[command(flatten)]
        patience: Patience,
    },
}

impl InTask {
    /// Returns the request to the coordinator, if the command names a task.
    pub(crate) fn outside(&self) -> Option<Outside> {
        match self {
            InTask::Checkpoints { id: Some(id), .. } => Some(Outside::Checkpoints(id.clone())),
            InTask::State { what, .. } => match &what[..] {
                // Ids have no `=`.
                [id] if !id.contains('=') => Some(Outside::State(id.clone())),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Runs one of the commands and prints its error.
pub(crate) async fn run(json: bool, what: InTask) -> anyhow::Result<u8> {
    match act(json, what).await {
        Err(error) => match error.downcast::<ClientError>() {
            Ok(error) => {
                eprintln!("outlast: {error}");
                Ok(code_of(&error))
            }
            Err(other) => Err(other),
        },
        done => done,
    }
}

fn code_of(error: &ClientError) -> u8 {
    match error {
        ClientError::NotInTask(_) | ClientError::Environment(..) | ClientError::Invalid(_) => 2,
        ClientError::Away { .. } => 5,
        ClientError::Problem(problem) => match (problem.status, problem.word()) {
            (400 | 413, _) => 2,
            (401 | 403, _) => 4,
            // Not 3: an unknown attempt must not be mistaken for "no checkpoint yet".
            (409, _) | (404, "no-such-attempt") => 6,
            // Not 3 either: there may be other checkpoints.
            (404, "no-such-checkpoint") => 7,
            (_, DAMAGED) => 8,
            (408 | 503 | 507, _) => 5,
            _ => 1,
        },
        ClientError::Strange(_) | ClientError::Output(_) => 1,
    }
}

fn client(patience: &Patience) -> Result<Client, ClientError> {
    let time = match (patience.no_wait, patience.patience) {
        (true, _) => Duration::ZERO,
        (_, Some(seconds)) => Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        _ => PATIENCE,
    };
    let client = Client::from_env()?.patience(time);
    Ok(client.on_outage(|why| eprintln!("outlast: waiting for the worker: {why}")))
}

async fn act(json: bool, what: InTask) -> anyhow::Result<u8> {
    match what {
        InTask::Checkpoint { path, meta, name, patience } => {
            let (path, meta) = (std::path::absolute(path)?, object("--meta", meta)?);
            let made = client(&patience)?.checkpoint(&path, name.as_deref(), meta).await?;
            notes(&made.notes);
            match json {
                true => output::json(&made)?,
                false => output::line(&made.view.id)?,
            }
        }
        InTask::Restore { path, id, force, patience } => {
            return restore(json, client(&patience)?, &path, id.as_deref(), force).await;
        }
        InTask::Checkpoints { id: _, patience } => {
            print_checkpoints(json, client(&patience)?.checkpoints().await?)?;
        }
        InTask::Progress { value, data, message, patience } => {
            let said = Said { progress: value, data: object("--data", data)?, message };
            let state = client(&patience)?.progress(&said).await?;
            if json {
                output::json(&state)?;
            }
        }
        InTask::State { what, patience } => {
            let changes = what.iter().map(|text| args::pair(text)).collect::<Result<_, _>>();
            let changes: Vec<_> = changes.map_err(Usage)?;
            let client = client(&patience)?;
            let change = !changes.is_empty();
            let state = match change {
                true => client.update_state(&values(changes)).await?,
                false => client.state().await?,
            };
            match (json, change) {
                (true, _) => output::json(&state)?,
                (false, false) => show(&state)?,
                (false, true) => {}
            }
        }
        InTask::Artifact { file, name, patience } => {
            let file = std::path::absolute(file)?;
            let made = client(&patience)?.artifact(&file, name.as_deref()).await?;
            notes(&made.notes);
            match json {
                true => output::json(&made)?,
                false => output::line(&made.view.name)?,
            }
        }
        InTask::Control { wait, seen, patience } => {
            let seen: Control = serde_json::from_str(&seen)
                .map_err(|e| Usage(format!("--seen is not what this command prints: {e}")))?;
            let found = control(&client(&patience)?, wait, seen).await?;
            let Some(found) = found else { return Ok(3) };
            output::json(&found)?;
        }
    }
    Ok(0)
}

/// Puts a checkpoint back.
async fn restore(
    json: bool,
    client: Client,
    path: &Path,
    id: Option<&str>,
    force: bool,
) -> anyhow::Result<u8> {
    let path = std::path::absolute(path)?;
    spare_own_folder(&path)?;
    let Some(restored) = client.restore(&path, id, force).await? else {
        eprintln!("outlast: this task has no checkpoint yet");
        return Ok(3);
    };
    match json {
        true => output::json(&restored)?,
        false => eprintln!(
            "outlast: {} is checkpoint {} of attempt {}",
            path.display(),
            restored.view.id,
            restored.view.attempt
        ),
    }
    Ok(0)
}

/// Prints the checkpoints of the task.
fn print_checkpoints(json: bool, all: Vec<CheckpointView>) -> std::io::Result<()> {
    if json {
        output::json(&all)?;
    } else if all.is_empty() {
        eprintln!("no checkpoints");
    } else {
        let rows: Vec<_> = all
            .into_iter()
            .map(|c| {
                let delivered = if c.delivered { "yes" } else { "not yet" };
                let size = output::bytes(c.bytes);
                vec![c.id, c.attempt.to_string(), size, delivered.into(), c.meta.name]
            })
            .collect();
        output::table(&["ID", "TRY", "SIZE", "DELIVERED", "NAME"], &rows)?;
    }
    Ok(())
}

/// Returns the current requests; with `wait`, those that differ from `seen`, or None after that time.
async fn control(
    client: &Client,
    wait: Option<f64>,
    seen: Control,
) -> Result<Option<Control>, ClientError> {
    let Some(wait) = wait else { return Ok(Some(client.control(seen, Duration::ZERO).await?)) };
    let (wait, started) =
        (Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX), Instant::now());
    loop {
        let left = wait.saturating_sub(started.elapsed());
        let found = client.control(seen, left.min(Duration::from_secs(MAX_WAIT))).await?;
        if found != seen {
            return Ok(Some(found));
        }
        if left.is_zero() {
            return Ok(None);
        }
    }
}

/// Parses `0.85` or `85%`.
fn share(text: &str) -> Result<f64, String> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(n) if (0.0..=whole).contains(&n) => Ok(n / whole),
        _ => Err(format!("{text:?} is not within 0 to 1 or 0% to 100%")),
    }
}

fn object(flag: &str, text: Option<String>) -> Result<Map<String, Value>, Usage> {
    let Some(text) = text else { return Ok(Map::new()) };
    serde_json::from_str(&text)
        .map_err(|e| Usage(format!("{flag} is not a JSON object such as {{\"epoch\": 3}}: {e}")))
}

/// Parses values as JSON, or else as text.
fn values(pairs: Vec<(String, String)>) -> Map<String, Value> {
    let value = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    pairs.into_iter().map(|(key, text)| (key, value(text))).collect()
}

/// Refuses to restore over the current folder: the script would stay in the replaced one.
fn spare_own_folder(path: &Path) -> Result<(), Usage> {
    let here = std::env::current_dir().and_then(std::fs::canonicalize);
    match (here, std::fs::canonicalize(path)) {
        (Ok(here), Ok(path)) if here.starts_with(&path) => Err(Usage(format!(
            "{} is this script's working directory; restore into a folder below it",
            path.display()
        ))),
        _ => Ok(()),
    }
}

fn notes(notes: &[String]) {
    for note in notes {
        eprintln!("outlast: {note}");
    }
}

fn show(state: &StateView) -> std::io::Result<()> {
    fetch::lines(state.progress, &state.state).iter().try_for_each(|line| output::line(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_values() {
        assert_eq!((share("0.85"), share("85%"), share("1")), (Ok(0.85), Ok(0.85), Ok(1.0)));
        assert!(share("2").is_err() && share("101%").is_err() && share("NaN").is_err());
        let pairs = [("a", "1"), ("b", "x y"), ("c", "null"), ("d", "{\"e\":[]}")];
        let pairs = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        let expected = serde_json::json!({"a": 1, "b": "x y", "c": null, "d": {"e": []}});
        assert_eq!(Value::Object(values(pairs)), expected);
        assert!(object("--meta", Some("[]".into())).is_err());
    }
}
