//! `outlast task pause|resume|checkpoint-now|move|explain`: steering what runs, and its story.

use crate::{Context, SHORT, each, output};
use outlast::api::{Explanation, Task};

/// The version that workers of the v1 dialect have.
const V1: &str = "v1";
/// Seconds after which a coordinator withdraws a pause that such a worker does not answer.
const PAUSE_LAPSES: u32 = 30;

#[derive(clap::Subcommand)]
pub(crate) enum SteerCommand {
    /// Say in sentences what happened to it, how it stands, and what can be done
    Explain {
        /// Its id
        id: String,
    },
    /// Pause it: it is stopped where it is, or given to nobody
    Pause {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Let it go on
    Resume {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Ask it for a checkpoint now
    CheckpointNow {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Let it go on at another worker, from its newest checkpoint
    Move {
        /// Its id
        id: String,
        /// The worker [default: any but the one that has it]
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
                let note = match task.state.as_str() {
                    "assigned" => "is to be paused; its history says when it is",
                    _ => "is paused",
                };
                report(context, &task, note)
            };
            return each(&ids, pause).await;
        }
        SteerCommand::Resume { ids } => {
            let resume = async |id: &str| report(context, &client.resume(id).await?, "goes on");
            return each(&ids, resume).await;
        }
        SteerCommand::CheckpointNow { ids } => {
            let ask = async |id: &str| {
                let task = client.ask_checkpoint(id).await?;
                let note =
                    format!("was asked for a checkpoint; see `outlast task checkpoints {id}`");
                report(context, &task, &note)
            };
            return each(&ids, ask).await;
        }
        SteerCommand::Move { id, to } => {
            let task = client.move_task(&id, to.as_deref()).await?;
            let note = match (&to, task.worker == to && task.state == "assigned") {
                (Some(to), true) => format!("is at {to} already"),
                (Some(to), false) => format!("is to go on at {to}"),
                (None, _) => "is to go on elsewhere".into(),
            };
            report(context, &task, &note)?;
        }
    }
    Ok(0)
}

/// A worker of the v1 dialect may not know how to pause: that is said before it is asked.
async fn warn_of_v1(client: &outlast::Client, id: &str) {
    // Whatever is wrong, the request itself says it.
    let Ok(task) = client.task(id).await else { return };
    let Some(name) = task.worker.filter(|_| task.state == "assigned") else { return };
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
        output::line(&format!("what you can do: {hint}"))?;
    }
    Ok(())
}
