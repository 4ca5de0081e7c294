//! Queues and watches that the core's outputs go to. Filling them never waits.

use super::outbound::ToLink;
use super::questions::Questions;
use super::status::{Ended, Status};
use super::{identity, now};
use bytes::Bytes;
use outlast_core::stats::ConnectionState;
use outlast_core::worker::{Output, Worker};
use std::path::PathBuf;
use tokio::sync::{mpsc, watch};

/// The queues and watches of an agent.
pub(super) struct Outlets {
    pub link: mpsc::UnboundedSender<ToLink>,
    pub questions: Questions,
    /// The blob that should be on its way to the coordinator.
    pub uploads: watch::Sender<Option<Bytes>>,
    pub status: watch::Sender<Status>,
    pub ended: watch::Sender<Option<Ended>>,
    state_dir: PathBuf,
}

impl Outlets {
    /// The outlets of an agent that has not begun.
    pub fn new(link: mpsc::UnboundedSender<ToLink>, state_dir: PathBuf) -> Outlets {
        Outlets {
            link,
            questions: Questions::default(),
            uploads: watch::Sender::new(None),
            status: watch::Sender::new((ConnectionState::Disconnected, String::new())),
            ended: watch::Sender::new(None),
            state_dir,
        }
    }

    /// Queues an output where it goes. Returns it if it is a start or stop, which may take a while.
    pub fn queue(&self, core: &Worker, output: Output) -> Option<Output> {
        match output {
            // Both ends live as long as the agent does.
            Output::Dial => drop(self.link.send(ToLink::Dial)),
            Output::Probe => drop(self.link.send(ToLink::Probe)),
            Output::Send(message) => drop(self.link.send(ToLink::Frame(message.into()))),
            Output::Close(reason) => {
                tracing::debug!("closing the link: {reason}");
                let _ = self.link.send(ToLink::Close);
            }
            Output::State(state, reason) => self.report_status(core, state, reason),
            Output::Upload(manifest) => drop(self.uploads.send_replace(manifest)),
            Output::Answer(question, answer) => self.questions.answer(question, answer),
            Output::Packing(packing) => drop(self.link.send(ToLink::Packing(packing))),
            Output::Adapted(c) if c.minor => {
                tracing::debug!("ADAPT {}: {} → {}: {}", c.setting.word(), c.from, c.to, c.why);
            }
            Output::Adapted(c) => {
                tracing::info!("ADAPT {}: {} → {}: {}", c.setting.word(), c.from, c.to, c.why);
            }
            Output::Exit => match core.copied() {
                Some(why) => self.end(true, why),
                None => self.end(false, "it was asked to end"),
            },
            run => return Some(run),
        }
        None
    }

    fn report_status(&self, core: &Worker, state: ConnectionState, reason: String) {
        match state {
            ConnectionState::Connecting => tracing::debug!("connecting"),
            ConnectionState::Connected => {
                let (stats, at) = (core.stats(), now());
                tracing::info!(
                    "connected: {} of {} dials succeeded, {:.0}% of the time up",
                    stats.successful_connections,
                    stats.connection_attempts,
                    stats.connection_stability(at) * 100.0
                );
            }
            ConnectionState::Disconnected => tracing::warn!("disconnected: {reason}"),
            ConnectionState::Failed => {
                tracing::error!("no link: {reason}");
                if let Some(why) = core.copied() {
                    identity::mark(&self.state_dir, why);
                }
            }
            ConnectionState::Shutdown => tracing::debug!("link closed for good"),
        }
        self.status.send_replace((state, reason));
    }

    /// Notes the end of the agent; the first one counts.
    pub fn end(&self, failed: bool, reason: &str) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(Ended { failed, reason: reason.into() });
            first
        });
    }
}
