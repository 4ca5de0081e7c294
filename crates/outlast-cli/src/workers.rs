//! `outlast workers`.

use crate::context::{Context, SHORT, each};
use crate::{args, output, show};
use outlast::api::{Worker, WorkerAction};
use serde_json::json;

#[derive(clap::Subcommand)]
pub(crate) enum WorkersCommand {
    /// List workers (the default)
    List,
    /// Show a worker: its link, its statistics, and its history
    Show {
        /// Worker name
        name: String,
        /// Period of the history to show
        #[arg(long, default_value = "1h", value_parser = args::seconds, value_name = "TIME")]
        last: f64,
    },
    /// Stop assigning tasks to workers, and take back tasks that they have not started
    Drain {
        /// Worker names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Assign tasks to workers again
    Undrain {
        /// Worker names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Reset the statistics of a worker's link
    ResetStats {
        /// Worker name
        name: String,
    },
    /// Request results and states from a worker of the v1 dialect
    Sync {
        /// Worker name
        name: String,
    },
    /// Unbind a worker from its API key; it is bound to the key that it next connects with
    Unbind {
        /// Worker name
        name: String,
    },
    /// Remove a worker that will not return; its tasks are reassigned at once
    Forget {
        /// Worker name
        name: String,
    },
}

pub(crate) async fn run(context: &Context, what: Option<WorkersCommand>) -> anyhow::Result<u8> {
    let client = context.client(SHORT)?;
    match what.unwrap_or(WorkersCommand::List) {
        WorkersCommand::List => {
            let list = client.workers().await?;
            if context.json() {
                output::json(&list)?;
            } else if list.workers.is_empty() {
                eprintln!("no workers yet; start one with `outlast worker`");
            } else {
                let rows: Vec<_> = list.workers.iter().map(row).collect();
                let head = [
                    "NAME", "STATE", "SLOTS", "RUNNING", "HELD", "UNACKED", "RTT", "DISK", "SINCE",
                    "WHY",
                ];
                output::table(&head, &rows)?;
            }
        }
        WorkersCommand::Show { name, last } => {
            if context.json() {
                output::json(&show::document(&client, &name, last).await?)?;
            } else {
                show::show(&client, &name, last).await?;
            }
        }
        WorkersCommand::Drain { names } => return drain(context, &client, &names, true).await,
        WorkersCommand::Undrain { names } => return drain(context, &client, &names, false).await,
        WorkersCommand::ResetStats { name } => {
            client.act(&name, &WorkerAction::ResetConnectionStats).await?;
            let note = format!("{name}: requested, at once or as soon as it is back");
            context.done(&json!({ "worker": name, "asked": "reset_connection_stats" }), &note)?;
        }
        WorkersCommand::Sync { name } => {
            client.act(&name, &WorkerAction::SyncState).await?;
            let note = format!("{name}: requested, with its next heartbeat");
            context.done(&json!({ "worker": name, "asked": "sync_state" }), &note)?;
        }
        WorkersCommand::Unbind { name } => {
            client.unbind(&name).await?;
            let note = format!("{name}: bound to no key until it connects again");
            context.done(&json!({ "worker": name, "unbound": true }), &note)?;
        }
        WorkersCommand::Forget { name } => {
            client.forget(&name).await?;
            let note = format!("forgot {name}");
            context.done(&json!({ "worker": name, "forgotten": true }), &note)?;
        }
    }
    Ok(0)
}

async fn drain(
    context: &Context,
    client: &outlast::Client,
    names: &[String],
    on: bool,
) -> anyhow::Result<u8> {
    let drain = async |name: &str| {
        let worker = client.drain(name, on).await?;
        if context.json() {
            output::json(&worker)?;
        } else if on {
            let n = worker.running;
            eprintln!("{name}: gets no new tasks; {n} tasks run there until they end");
        } else {
            eprintln!("{name}: gets new tasks again");
        }
        Ok(())
    };
    each(names, drain).await
}

/// Disk space of blobs: `3.1 GB of 20.0 GB`, and refused blobs.
fn disk(w: &Worker) -> String {
    let Some(disk) = &w.disk else { return "-".into() };
    let mut text = output::bytes(disk.used);
    if disk.budget > 0 {
        text += &format!(" of {}", output::bytes(disk.budget));
    }
    if disk.refused > 0 {
        text += &format!(", {} refused", disk.refused);
    }
    text
}

/// A cause, with its explanation if that says more.
fn why(w: &Worker) -> String {
    if w.gone_at.is_none() && !w.unfit.is_empty() {
        return w.unfit.clone();
    }
    if let Some(copied) = &w.copied {
        let place = if copied.host.is_empty() { "" } else { " on " };
        return format!("a copy of its folder was refused{place}{}", copied.host);
    }
    match (w.gone_cause.word(), w.gone_reason.as_str()) {
        _ if w.gone_at.is_none() && w.drained => "drained".into(),
        _ if w.gone_at.is_none() => w.quarantine.clone(),
        ("", reason) => reason.into(),
        (cause, reason) => format!("{cause}: {reason}"),
    }
}

fn row(w: &Worker) -> Vec<String> {
    let since = w.gone_at.as_deref().or(w.seen_at.as_deref());
    vec![
        w.name.clone(),
        w.state.clone(),
        w.slots.to_string(),
        w.running.to_string(),
        w.held.to_string(),
        w.unacked.to_string(),
        format!("{}ms", w.rtt_ms),
        disk(w),
        output::time(since),
        output::short(&why(w), 60),
    ]
}
