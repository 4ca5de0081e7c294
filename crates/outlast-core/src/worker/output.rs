//! Outputs of a worker: actions for the driver, and answers to the tasks' reports.

use crate::adapt::{Change, Packing};
use crate::journal::Journal;
use crate::records::WorkerRecord;
use crate::stats::ConnectionState;
use crate::{Epoch, TaskId};
use outlast_model::message::ToCoordinator;
use outlast_model::{Bytes, Checkpoint, StateUpdate, TaskSpec};
use std::sync::Arc;

/// Records and outputs of a worker.
pub(super) type WorkerJournal = Journal<WorkerRecord, Output>;

/// Number of a report, given by the driver: its answer carries it.
pub type Question = u64;

/// Reason for stopping a running attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// The task was cancelled, or another attempt is current: the outcome is CANCELLED.
    Cancel,
    /// The worker stops, or it is to go on elsewhere: its outcome is INTERRUPTED.
    Interrupt,
}

/// Action for the driver.
#[derive(Debug, Clone)]
pub enum Output {
    /// Open a link; answer with `on_connected` or `on_disconnected`. One at a time.
    Dial,
    /// Try whether a TCP connection to the coordinator's address is accepted, and close it; answer
    /// with `on_probed`, unless another link is dialled meanwhile.
    Probe,
    /// Send on the open link.
    Send(ToCoordinator),
    /// Drop the link (or the dial) at once, without a handshake. No `on_disconnected` follows.
    Close(String),
    /// Start an attempt; answer with `on_finished`, exactly once.
    Run(TaskId, Epoch, Arc<TaskSpec>),
    /// Stop an attempt that was started; `on_finished` still follows.
    StopRun(TaskId, Epoch, StopKind),
    /// Give back an attempt if it has not started; `on_finished` follows either way.
    Recall(TaskId, Epoch),
    /// Pause an attempt that was started, or let it go on; answer with `on_paused`.
    Pause(TaskId, Epoch, bool),
    /// Ask a running attempt for a checkpoint.
    AskCheckpoint(TaskId, Epoch),
    /// An attempt's outcome is durable: whoever ran it may forget it.
    Forget(TaskId, Epoch),
    /// The blob that should be on its way to the coordinator, from now on; answer with
    /// `on_uploaded`. None: no blob.
    Upload(Option<Bytes>),
    /// Answer a question.
    Answer(Question, Answer),
    /// Changes the compression of frames.
    Packing(Packing),
    /// A setting adapted to the link; nothing rests on it.
    Adapted(Change),
    /// The link's state changed, and why.
    State(ConnectionState, String),
    /// Ends the process: nothing is left to do.
    Exit,
}

/// Answer to a task's report, sent once the report is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The checkpoint is this worker's, and will reach the coordinator.
    Checkpoint(Arc<Checkpoint>),
    /// The attempt's whole state.
    State(Arc<StateUpdate>),
    /// The report was refused, without a change.
    Refused(Refused),
}

/// Reason why a report was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The attempt has ended, was superseded, or was never here.
    #[error("attempt {1} of task {0} does not run here")]
    NotRunning(TaskId, Epoch),
    /// More than a limit.
    #[error("{what} takes {size} bytes; the limit is {limit}")]
    TooLarge {
        /// Name of the limit.
        what: &'static str,
        /// Number of bytes.
        size: usize,
        /// Number of bytes.
        limit: usize,
    },
}
