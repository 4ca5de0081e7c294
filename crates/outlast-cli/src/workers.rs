//! `outlast workers`.

use crate::{Context, SHORT, args, each, output, show};
use outlast::api::{Worker, WorkerAction};
use serde_json::json;

#[derive(clap::Subcommand)]
pub(crate) enum WorkersCommand {
    /// List workers (what `outlast workers` does)
    List,
    /// Everything about one: its link, how it does, and what it went through
    Show {
        /// Its name
        name: String,
        /// How far back to look
        #[arg(long, default_value = "1h", value_parser = args::seconds, value_name = "TIME")]
        last: f64,
    },
    /// Give it no new work, and take back what it has not started
    Drain {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Give it new work again
    Undrain {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Begin the statistics of its link anew
    ResetStats {
        /// Its name
        name: String,
    },
    /// Ask a worker of the v1 dialect for its results and states
    Sync {
        /// Its name
        name: String,
    },
    /// Bind it to no API key any more: it is then bound to the next one that it comes with
    Unbind {
        /// Its name
        name: String,
    },
    /// Remove a worker that is gone for good; its tasks go to others at once
    Forget {
        /// Its name
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
            let note = format!("{name}: asked, at once or as soon as it is back");
            context.done(&json!({ "worker": name, "asked": "reset_connection_stats" }), &note)?;
        }
        WorkersCommand::Sync { name } => {
            client.act(&name, &WorkerAction::SyncState).await?;
            let note = format!("{name}: asked, with its next heartbeat");
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
            eprintln!("{name}: is given no new work; {n} tasks run there until they end");
        } else {
            eprintln!("{name}: is given work again");
        }
        Ok(())
    };
    each(names, drain).await
}

/// What blobs take there: `3.1 GB of 20.0 GB`, and what had no room.
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

/// The word, and the sentence where it says more.
fn why(w: &Worker) -> String {
    if w.gone_at.is_none() && !w.unfit.is_empty() {
        return w.unfit.clone();
    }
    if let Some(copied) = &w.copied {
        let place = if copied.host.is_empty() { "" } else { " on " };
        return format!("a copy of its folder was refused{place}{}", copied.host);
    }
    match (w.gone_cause.as_str(), w.gone_reason.as_str()) {
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
