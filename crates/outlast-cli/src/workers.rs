//! `outlast workers`.

use crate::{Context, SHORT, output};
use outlast::api::Worker;

#[derive(clap::Subcommand)]
pub(crate) enum WorkersCommand {
    /// List workers (what `outlast workers` does)
    List,
    /// Everything about one
    Show {
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
                let head =
                    ["NAME", "STATE", "SLOTS", "RUNNING", "HELD", "UNACKED", "RTT", "SINCE", "WHY"];
                output::table(&head, &rows)?;
            }
        }
        WorkersCommand::Show { name } => {
            let worker = client.worker(&name).await?;
            if context.json() {
                output::json(&worker)?;
            } else {
                output::line(&serde_json::to_string_pretty(&worker)?)?;
            }
        }
        WorkersCommand::Forget { name } => {
            client.forget(&name).await?;
            eprintln!("forgot {name}");
        }
    }
    Ok(0)
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
        output::time(since),
        if w.gone_at.is_some() { output::short(&w.gone_reason, 50) } else { String::new() },
    ]
}
