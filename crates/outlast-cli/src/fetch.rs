//! Data of tasks at the coordinator: checkpoints, states and artifacts.

use crate::context::{Context, SHORT};
use crate::exit::Usage;
use crate::output;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use outlast::api::{Checkpoint, TaskStateView};
use outlast::{Client, DataHead, Error};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Consecutive interruptions without a byte in between after which a download fails.
const BREAKS: u32 = 10;
/// Time for which a download waits for a coordinator that is away.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(clap::Subcommand)]
pub(crate) enum FetchCommand {
    /// List the artifacts of a task
    Artifacts {
        /// Task id
        id: String,
    },
    /// Download a checkpoint or an artifact
    #[command(after_help = "A checkpoint of a folder becomes a folder, which must not exist; \
with --raw, a tar file.
An interrupted download resumes; PATH is complete or absent.

Examples:
  outlast task fetch t1 -o model.pt
  outlast task fetch t1 --checkpoint 2-14 -o ckpt/
  outlast task fetch t1 --artifact report.html -o report.html
  outlast task fetch t1 -o - | tar t")]
    Fetch {
        /// Task id
        id: String,
        /// Checkpoint to download, instead of the newest
        #[arg(long, value_name = "WHICH", default_value = "latest", conflicts_with = "artifact")]
        checkpoint: String,
        /// Artifact to download, instead of a checkpoint
        #[arg(long, value_name = "NAME")]
        artifact: Option<String>,
        /// Destination; - is standard output
        #[arg(long, short, value_name = "PATH")]
        output: PathBuf,
        /// Do not unpack a folder
        #[arg(long)]
        raw: bool,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
    },
}

/// Request to the coordinator with a command that also works inside tasks.
pub(crate) enum Outside {
    Checkpoints(String),
    State(String),
}

/// `outlast task checkpoints ID` and `outlast task state ID`.
pub(crate) async fn look(context: &Context, what: Outside) -> anyhow::Result<u8> {
    let client = context.client(SHORT)?;
    match what {
        Outside::Checkpoints(id) => {
            let list = client.checkpoints(&id).await?;
            if context.json() {
                output::json(&list)?;
            } else if list.checkpoints.is_empty() {
                eprintln!("no checkpoints");
            } else {
                let rows: Vec<_> = list.checkpoints.iter().map(row).collect();
                output::table(&["ID", "KEPT", "SIZE", "MADE", "WORKER", "NAME"], &rows)?;
            }
        }
        Outside::State(id) => {
            let state = client.task_state(&id).await?;
            if context.json() {
                output::json(&state)?;
            } else {
                for line in state_lines(&state) {
                    output::line(&line)?;
                }
            }
        }
    }
    Ok(0)
}

fn row(c: &Checkpoint) -> Vec<String> {
    let name = c.meta.get("name").and_then(|n| n.as_str()).unwrap_or_default();
    let user = c.meta.get("user").map(ToString::to_string).unwrap_or_default();
    let kept = match (c.kept, c.dropped) {
        (true, _) => "yes",
        (false, true) => "dropped",
        (false, false) => "no",
    };
    vec![
        c.id.clone(),
        kept.into(),
        output::bytes(c.size),
        output::time(Some(&c.created_at)),
        c.worker.clone().unwrap_or_else(|| "-".into()),
        output::short(format!("{name} {user}").trim(), 60),
    ]
}

/// See [`lines`].
pub(crate) fn state_lines(state: &TaskStateView) -> Vec<String> {
    lines(state.progress, state.state.as_object().into_iter().flatten())
}

/// A state as `KEY=VALUE` lines, its progress first.
pub(crate) fn lines<'a>(
    progress: Option<f64>,
    state: impl IntoIterator<Item = (&'a String, &'a Value)>,
) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(progress) = progress {
        lines.push(format!("progress {:.1}%", progress * 100.0));
    }
    for (key, value) in state {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        lines.push(format!("{key}={text}"));
    }
    lines
}

pub(crate) async fn run(context: &Context, what: FetchCommand) -> anyhow::Result<u8> {
    match what {
        FetchCommand::Artifacts { id } => {
            let list = context.client(SHORT)?.artifacts(&id).await?;
            if context.json() {
                output::json(&list)?;
            } else if list.artifacts.is_empty() {
                eprintln!("no artifacts");
            } else {
                let row = |c: &Checkpoint| {
                    let name = c.artifact.clone().unwrap_or_default();
                    let attempt = c.attempt.to_string();
                    vec![name, attempt, output::bytes(c.size), output::time(Some(&c.created_at))]
                };
                let rows: Vec<_> = list.artifacts.iter().map(row).collect();
                output::table(&["NAME", "TRY", "SIZE", "MADE"], &rows)?;
            }
            Ok(0)
        }
        FetchCommand::Fetch { id, checkpoint, artifact, output, raw, force } => {
            let client = context.client(PATIENCE)?;
            let from = match artifact {
                Some(name) => What::Artifact(name),
                None => What::Checkpoint(checkpoint),
            };
            let head = if output == Path::new("-") {
                download(&client, &id, &from, &mut output::Raw).await?
            } else {
                to_path(&client, &id, &from, &output, raw, force).await?
            };
            if context.json() && output != Path::new("-") {
                let (size, meta) = (head.size, &head.meta);
                output::json(&serde_json::json!({ "id": head.id, "size": size, "meta": meta }))?;
            } else {
                eprintln!("{} of {}", head.id, output::bytes(head.size));
            }
            Ok(0)
        }
    }
}

enum What {
    Checkpoint(String),
    Artifact(String),
}

async fn to_path(
    client: &Client,
    id: &str,
    what: &What,
    path: &Path,
    raw: bool,
    force: bool,
) -> anyhow::Result<DataHead> {
    let taken = fs::symlink_metadata(path);
    if taken.is_ok_and(|meta| meta.is_dir() || !force) {
        let text = format!("{} exists already; --force replaces a file", path.display());
        return Err(Usage(text).into());
    }
    let path = std::path::absolute(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Usage(format!("{} is not a file path", path.display())).into());
    };
    let hidden = |suffix: &str| {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".outlast-{}-{suffix}", std::process::id()));
        Temp(parent.join(hidden))
    };
    let part = hidden("part");
    let mut file = File::create_new(&part.0)
        .map_err(|e| Usage(format!("{} cannot be created: {e}", path.display())))?;
    let head = download(client, id, what, &mut file).await?;
    file.sync_all()?;
    let folder = head.meta.get("kind").and_then(|k| k.as_str()) == Some("folder");
    // An artifact of a folder stays a tar file, which its name may indicate.
    if folder && !raw && matches!(what, What::Checkpoint(_)) {
        let folder = hidden("folder");
        outlast_worker::local::unpack(io::BufReader::new(File::open(&part.0)?), &folder.0)?;
        fs::rename(&folder.0, &path)?;
    } else {
        fs::rename(&part.0, &path)?;
    }
    Ok(head)
}

/// A temporary file or folder, removed on drop.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0).or_else(|_| fs::remove_dir_all(&self.0));
    }
}

/// Downloads all of the data, across interruptions of the connection.
async fn download(
    client: &Client,
    id: &str,
    what: &What,
    to: &mut dyn Write,
) -> anyhow::Result<DataHead> {
    let (mut offset, mut breaks) = (0, 0);
    let mut first: Option<DataHead> = None;
    let bar = ProgressBar::hidden();
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  (left {eta})",
    )?);
    loop {
        // The same checkpoint as at first, even if there is a newer one meanwhile.
        let (head, stream) = match (what, &first) {
            (What::Artifact(name), _) => {
                let (head, stream) = client.artifact_data(id, name, offset).await?;
                (head, stream.boxed_local())
            }
            (What::Checkpoint(which), first) => {
                let which = first.as_ref().map_or(which, |head| &head.id);
                let (head, stream) = client.checkpoint_data(id, which, offset).await?;
                (head, stream.boxed_local())
            }
        };
        if first.as_ref().is_some_and(|f| (&f.id, f.size) != (&head.id, head.size)) {
            anyhow::bail!("the data changed during the download; download it again");
        }
        bar.set_length(head.size);
        if first.is_none() && head.size > 1 << 20 && io::stderr().is_terminal() {
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        let mut stream = stream;
        let broke: Option<Error> = loop {
            match stream.next().await {
                Some(Ok(part)) => {
                    to.write_all(&part)?;
                    offset += part.len() as u64;
                    breaks = 0;
                    bar.set_position(offset);
                }
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        if offset == head.size {
            to.flush()?;
            bar.finish_and_clear();
            return Ok(head);
        }
        breaks += 1;
        if breaks > BREAKS || offset > head.size {
            let why = broke.map_or_else(|| "it ended early".into(), |e| e.to_string());
            anyhow::bail!(
                "the download was interrupted after {offset} of {} bytes: {why}",
                head.size
            );
        }
        first.get_or_insert(head);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
