//! `outlast tasks` and `outlast task`.

use crate::context::{Context, SHORT, each};
use crate::{args, fetch, logs, output, process};
use outlast::TaskQuery;
use outlast::api::{Cause, Task, TaskResult, TaskState};
use std::time::Duration;

/// List tasks.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    /// Only tasks in these states: pending, assigned (running, or waiting at a worker), running, succeeded, failed, cancelled
    #[arg(long = "state", value_delimiter = ',', value_name = "STATE")]
    states: Vec<String>,
    /// Only paused tasks
    #[arg(long)]
    paused: bool,
    /// Only tasks with this label
    #[arg(long = "label", value_parser = args::pair, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Only tasks of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only tasks that this worker has, or had last
    #[arg(long)]
    worker: Option<String>,
    /// Only tasks whose id has this prefix
    #[arg(long)]
    prefix: Option<String>,
    /// Longest list
    #[arg(long, short = 'n', default_value_t = 50, value_name = "N",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    limit: usize,
    /// List the oldest first
    #[arg(long)]
    oldest: bool,
    /// Print only the number of matching tasks per state
    #[arg(long)]
    count: bool,
}

pub(crate) async fn list(context: &Context, args: ListArgs) -> anyhow::Result<u8> {
    let client = context.client(SHORT)?;
    let mut query = TaskQuery {
        states: args.states,
        paused: args.paused,
        labels: args.labels,
        queue: args.queue,
        worker: args.worker,
        prefix: args.prefix,
        limit: None,
        cursor: None,
        oldest: args.oldest,
    };
    if args.count {
        let c = client.counts_of(&query).await?;
        if context.json() {
            output::json(&c)?;
        } else {
            let rows = [
                ("pending", c.pending),
                ("assigned", c.assigned),
                ("of these running", c.running),
                ("succeeded", c.succeeded),
                ("failed", c.failed),
                ("cancelled", c.cancelled),
                ("total", c.total),
                ("of these paused", c.paused),
            ];
            let rows: Vec<_> = rows.iter().map(|(s, n)| vec![(*s).into(), n.to_string()]).collect();
            output::table(&["STATE", "TASKS"], &rows)?;
        }
        return Ok(0);
    }
    let mut tasks: Vec<Task> = Vec::new();
    let more = loop {
        query.limit = Some((args.limit - tasks.len()).clamp(1, outlast::api::MAX_PAGE));
        let page = client.tasks(&query).await?;
        tasks.extend(page.tasks);
        query.cursor = page.next;
        if query.cursor.is_none() || tasks.len() >= args.limit {
            break query.cursor.is_some();
        }
    };
    if context.json() {
        output::json(&tasks)?;
        return Ok(0);
    }
    if tasks.is_empty() {
        eprintln!("no such tasks");
        return Ok(0);
    }
    let rows: Vec<_> = tasks.iter().map(row).collect();
    output::table(&["ID", "STATE", "DONE", "TRY", "WORKER", "SUBMITTED", "COMMAND", "WHY"], &rows)?;
    if more {
        eprintln!("… and more; use --limit");
    }
    Ok(0)
}

/// A task's state, including a pending request to it.
pub(crate) fn state(t: &Task) -> String {
    match (t.cancelling, t.paused, t.state) {
        (true, ..) => "cancelling".into(),
        (_, true, TaskState::Pending) => "paused".into(),
        (_, true, TaskState::Assigned) => "assigned, paused".into(),
        (.., TaskState::Assigned) if t.started_at.is_some() => "running".into(),
        (.., state) => state.to_string(),
    }
}

/// Reason and cause of a task's end.
fn why(t: &Task) -> String {
    match (t.cause, t.reason.as_str()) {
        (Cause::Unspecified | Cause::Done | Cause::Cancelled, reason) => reason.into(),
        (cause, "") => cause.to_string(),
        (cause, reason) => format!("{reason} ({cause})"),
    }
}

fn row(t: &Task) -> Vec<String> {
    vec![
        t.id.clone(),
        state(t),
        t.progress.map_or_else(|| "-".into(), |p| format!("{:.0}%", p * 100.0)),
        t.attempt.to_string(),
        t.worker.clone().unwrap_or_else(|| "-".into()),
        output::time(Some(&t.submitted_at)),
        output::short(&output::command(&t.spec), 40),
        output::short(&why(t), 60),
    ]
}

#[derive(clap::Subcommand)]
pub(crate) enum TaskCommand {
    /// Show a task
    Show {
        /// Task id
        id: String,
    },
    /// Show the result of a task
    Result {
        /// Task id
        id: String,
        /// Wait until the task has ended
        #[arg(long)]
        wait: bool,
    },
    /// Print the output of a task
    Logs {
        /// Task id
        id: String,
        /// Standard error instead of standard output
        #[arg(long)]
        stderr: bool,
        /// Continue while the task runs
        #[arg(long, short)]
        follow: bool,
        /// Attempt to show, instead of the newest
        #[arg(long, value_name = "N")]
        attempt: Option<u64>,
    },
    /// List the events of a task
    History {
        /// Task id
        id: String,
    },
    /// Cancel tasks
    Cancel {
        /// Task ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Run failed or cancelled tasks again
    Retry {
        /// Task ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

pub(crate) async fn run(context: &Context, what: TaskCommand) -> anyhow::Result<u8> {
    let client = context.client(SHORT)?;
    match what {
        TaskCommand::Show { id } => {
            let task = client.task(&id).await?;
            if context.json() {
                output::json(&task)?;
            } else {
                show(&task)?;
                show_told(&client, &id).await?;
            }
        }
        TaskCommand::Result { id, wait } => {
            let found = match wait {
                true => Some(context.client(Duration::MAX)?.wait(&id).await?),
                false => client.result(&id, 0).await?,
            };
            let Some(result) = found else {
                eprintln!("outlast: task {id} has not ended; --wait waits for it");
                return Ok(6);
            };
            if context.json() {
                output::json(&result)?;
            } else {
                show_result(&result)?;
            }
            return Ok(match result.state {
                TaskState::Succeeded => 0,
                _ => process::code_of_signal(result.signal).unwrap_or(1),
            });
        }
        TaskCommand::Logs { id, stderr, follow, attempt } => {
            return logs::copy(context, &id, stderr, follow, attempt).await;
        }
        TaskCommand::History { id } => {
            let history = client.history(&id).await?;
            if context.json() {
                output::json(&history)?;
            } else {
                let row = |e: &outlast::api::HistoryEvent| {
                    let attempt = if e.attempt == 0 { "-".into() } else { e.attempt.to_string() };
                    let worker = e.worker.clone().unwrap_or_else(|| "-".into());
                    vec![
                        output::time(Some(&e.at)),
                        e.event.clone(),
                        attempt,
                        worker,
                        e.cause.to_string(),
                        e.reason.clone(),
                    ]
                };
                let rows: Vec<_> = history.events.iter().map(row).collect();
                output::table(&["TIME", "EVENT", "TRY", "WORKER", "CAUSE", "WHY"], &rows)?;
            }
        }
        TaskCommand::Cancel { ids } => {
            return each(&ids, async |id| report(context, &client.cancel(id).await?)).await;
        }
        TaskCommand::Retry { ids } => {
            return each(&ids, async |id| report(context, &client.retry(id).await?)).await;
        }
    }
    Ok(0)
}

fn report(context: &Context, task: &Task) -> anyhow::Result<()> {
    if context.json() {
        output::json(task)?;
    } else if task.cancelling {
        eprintln!("{}: is being cancelled; its worker will confirm when it has stopped", task.id);
    } else {
        eprintln!("{}: {}", task.id, task.state);
    }
    Ok(())
}

fn show(t: &Task) -> anyhow::Result<()> {
    let mut rows = vec![
        ("id", t.id.clone()),
        ("state", state(t)),
        ("command", output::command(&t.spec)),
        ("attempt", format!("{} ({} lost)", t.attempt, t.retries)),
        ("worker", t.worker.clone().unwrap_or_else(|| "-".into())),
        ("submitted", output::time(Some(&t.submitted_at))),
        ("assigned", output::time(t.assigned_at.as_deref())),
        ("started", output::time(t.started_at.as_deref())),
        ("ended", output::time(t.ended_at.as_deref())),
    ];
    if !t.reason.is_empty() {
        rows.push(("why", t.reason.clone()));
    }
    if t.cause != Cause::Unspecified {
        rows.push(("cause", t.cause.to_string()));
    }
    if let Some(why) = &t.waiting_for {
        rows.push(("waits", why.clone()));
    }
    for (key, value) in rows {
        output::line(&format!("{key:12}{value}"))?;
    }
    Ok(())
}

/// Prints the newest checkpoint and the state.
async fn show_told(client: &outlast::Client, id: &str) -> anyhow::Result<()> {
    let list = client.checkpoints(id).await?.checkpoints;
    if let Some(newest) = list.iter().rfind(|c| c.kept) {
        let kept = list.iter().filter(|c| c.kept).count();
        let size = output::bytes(newest.size);
        let at = output::time(Some(&newest.created_at));
        let text = format!("{} of {size} at {at}; {kept} of {} are kept", newest.id, list.len());
        output::line(&format!("{:12}{text}", "checkpoint"))?;
    }
    for line in fetch::state_lines(&client.task_state(id).await?) {
        output::line(&format!("{:12}{line}", "reported"))?;
    }
    Ok(())
}

fn show_result(r: &TaskResult) -> anyhow::Result<()> {
    let mut rows = vec![("state", r.state.to_string())];
    rows.extend(r.exit_code.map(|c| ("exit code", c.to_string())));
    rows.extend(r.signal.map(|s| ("signal", s.to_string())));
    if !r.message.is_empty() {
        rows.push(("why", r.message.clone()));
    }
    rows.extend(r.worker.clone().map(|w| ("worker", w)));
    rows.extend(r.duration_ms.map(|ms| ("took", output::duration(ms))));
    rows.push(("memory", output::bytes(r.max_rss_bytes)));
    if !r.value.is_null() {
        rows.push(("value", r.value.to_string()));
    }
    for (key, value) in rows {
        output::line(&format!("{key:12}{value}"))?;
    }
    let stdout = ("stdout", "", &r.stdout, r.stdout_truncated, r.stdout_bytes);
    let stderr = ("stderr", " --stderr", &r.stderr, r.stderr_truncated, r.stderr_bytes);
    for (name, flag, text, cut, size) in [stdout, stderr] {
        if !text.is_empty() {
            let note = if cut {
                let size = output::bytes(size);
                format!(" (the end of {size}; full output: outlast task logs{flag} {})", r.id)
            } else {
                String::new()
            };
            output::text(&format!("--- {name}{note}\n{}", text.trim_end()))?;
        }
    }
    Ok(())
}
