//! `outlast task pause|resume|checkpoint-now|move|explain`: control of running tasks, and their history.

use crate::context::{Context, SHORT, each};
use crate::output;
use outlast::api::{Explanation, Task, TaskState};

/// Protocol version of workers of the v1 dialect.
const V1: &str = "v1";
/// Seconds after which a coordinator withdraws a pause that such a worker does not answer.
const PAUSE_LAPSES: u32 = 30;

#[derive(clap::Subcommand)]
pub(crate) enum SteerCommand {
    /// Explain in sentences a task's history, its state, and possible actions
    Explain {
        /// Task id
        id: String,
    },
    /// Pause tasks: running ones are suspended, waiting ones are not assigned
    Pause {
        /// Task ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Resume tasks
    Resume {
        /// Task ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Request a checkpoint from tasks now
    CheckpointNow {
        /// Task ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Move a task to another worker, where it resumes from its newest checkpoint
    Move {
        /// Task id
        id: String,
        /// Target worker [default: any other than the present one]
        #[arg(long, value_name = "WORKER")]
        to: Option<String>,
    },
}

pub(crate) async fn run(context: &Context, what: SteerCommand) -> anyhow::Result<u8> {
    let client = context.client(SHORT)?;
    match what {
        SteerCommand::Explain { id } => {
            let story = client.explain(&id).await?;
            if context.json() {
                output::json(&story)?;
            } else {
                tell(&story)?;
            }
        }
        SteerCommand::Pause { ids } => {
            let pause = async |id: &str| {
                warn_of_v1(&client, id).await;
                let task = client.pause(id).await?;
                let note = match task.state {
                    TaskState::Assigned => "is to be paused; its history says when it is",
                    _ => "is paused",
                };
                report(context, &task, note)
            };
            return each(&ids, pause).await;
        }
        SteerCommand::Resume { ids } => {
            let resume = async |id: &str| report(context, &client.resume(id).await?, "resumes");
            return each(&ids, resume).await;
        }
        SteerCommand::CheckpointNow { ids } => {
            let ask = async |id: &str| {
                let task = client.ask_checkpoint(id).await?;
                let note =
                    format!("a checkpoint was requested; see `outlast task checkpoints {id}`");
                report(context, &task, &note)
            };
            return each(&ids, ask).await;
        }
        SteerCommand::Move { id, to } => {
            let task = client.move_task(&id, to.as_deref()).await?;
            let note = match (&to, task.worker == to && task.state == TaskState::Assigned) {
                (Some(to), true) => format!("is already on {to}"),
                (Some(to), false) => format!("will continue on {to}"),
                (None, _) => "will continue on another worker".into(),
            };
            report(context, &task, &note)?;
        }
    }
    Ok(0)
}

/// Warns before a pause that a worker of the v1 dialect may not support it.
async fn warn_of_v1(client: &outlast::Client, id: &str) {
    // The request itself reports every error.
    let Ok(task) = client.task(id).await else { return };
    let Some(name) = task.worker.filter(|_| task.state == TaskState::Assigned) else { return };
    if let Ok(worker) = client.worker(&name).await
        && worker.version == V1
    {
        eprintln!(
            "note: worker {name} speaks the v1 dialect, and {id} stops only if its program answers \
             `pause_task`; without an answer within {PAUSE_LAPSES} s the request is withdrawn"
        );
    }
}

fn report(context: &Context, task: &Task, note: &str) -> anyhow::Result<()> {
    Ok(context.done(task, &format!("{}: {note}", task.id))?)
}

fn tell(story: &Explanation) -> std::io::Result<()> {
    for sentence in &story.sentences {
        output::line(sentence)?;
    }
    output::line(&format!("now: {}", story.now))?;
    if let Some(hint) = &story.hint {
        output::line(&format!("possible action: {hint}"))?;
    }
    Ok(())
}
