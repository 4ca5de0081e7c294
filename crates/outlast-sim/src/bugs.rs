//! Mistakes to plant around the core, to see that the oracles notice.

/// A planted mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The coordinator's driver reports a batch as durable before it is.
    CoordinatorAcksBeforeSync,
    /// The worker's driver reports a batch as durable before it is.
    WorkerAcksBeforeSync,
    /// The coordinator's store never keeps a cursor.
    ForgetsCursor,
    /// The worker's store loses a finished result now and then.
    LosesFinished,
    /// The nonce of a worker's process is ignored in its hello.
    ForgetsNonces,
    /// An outcome of an old attempt is passed off as the current one's.
    SkipsFencing,
    /// After a restart the coordinator knows a smaller epoch.
    ReusesEpoch,
    /// The coordinator's clock runs twenty times too fast.
    ClockRuns,
    /// Assignments are not written down.
    ForgetsAssigned,
    /// Synced batches are gone after a crash now and then.
    LyingDisk,
    /// After a restart a worker does not know what had started.
    ForgetsStarted,
    /// Silence is never noticed.
    NeverTimesOut,
    /// The coordinator collects blobs that checkpoints refer to.
    CollectsReferenced,
    /// A restarted coordinator gives away at once what workers still run.
    ForgetsLease,
    /// A worker that restarts does not see what outlived its process.
    ForgetsAlive,
    /// A worker says that a checkpoint is durable before it is.
    AnswersBeforeSync,
    /// States arrive in any order, and the last one to arrive wins.
    StateGoesBack,
    /// A former incarnation of a worker passes for the newest.
    WelcomesFormer,
    /// A task of an id that was used before does not go on from the former one's epoch.
    ForgetsFormer,
    /// After a restart the coordinator does not know how long a failed task is to wait.
    ForgetsDelay,
    /// After a restart it does not know what was tried for a task.
    ForgetsTried,
    /// After a restart it does not know how often a task was tried again.
    ForgetsBudget,
    /// After a restart it does not know how often a task was lost together with others.
    ForgetsShared,
    /// Decisions after a failure are not always written with the attempt's end.
    SplitsDecision,
    /// Workers are given a task as it was submitted, whatever was decided since.
    OldKnobs,
    /// A v1 worker's result is acknowledged before it is kept.
    V1AcksAtOnce,
    /// Recorded results of a v1 worker are ignored: a repeated one counts again.
    V1ForgetsOutcomes,
    /// Recorded outcomes that came beside their lane are ignored.
    ForgetsUnsaved,
    /// A worker that is back is not made to wait until its inventory is answered.
    SettlesAtOnce,
    /// The coordinator says that it keeps an outcome, and does not.
    SavesNothing,
    /// A v1 worker's former links are closed when it opens another.
    V1EndsFormer,
    /// A v1 worker's checkpoint passes for an earlier attempt's of the same name.
    V1MixesAttempts,
    /// Attempts are given no checkpoint to go on from.
    PassesCheckpointsOver,
    /// The coordinator's driver answers a query as it did the first time.
    ReadsStaleFacts,
}

impl Bug {
    /// The list of all mistakes.
    pub const ALL: [Bug; 34] = [
        Bug::CoordinatorAcksBeforeSync,
        Bug::WorkerAcksBeforeSync,
        Bug::ForgetsCursor,
        Bug::LosesFinished,
        Bug::ForgetsNonces,
        Bug::SkipsFencing,
        Bug::ReusesEpoch,
        Bug::ClockRuns,
        Bug::ForgetsAssigned,
        Bug::LyingDisk,
        Bug::ForgetsStarted,
        Bug::NeverTimesOut,
        Bug::CollectsReferenced,
        Bug::ForgetsLease,
        Bug::ForgetsAlive,
        Bug::AnswersBeforeSync,
        Bug::StateGoesBack,
        Bug::WelcomesFormer,
        Bug::ForgetsFormer,
        Bug::ForgetsDelay,
        Bug::ForgetsTried,
        Bug::ForgetsBudget,
        Bug::ForgetsShared,
        Bug::SplitsDecision,
        Bug::OldKnobs,
        Bug::ForgetsUnsaved,
        Bug::SettlesAtOnce,
        Bug::SavesNothing,
        Bug::V1AcksAtOnce,
        Bug::V1ForgetsOutcomes,
        Bug::V1EndsFormer,
        Bug::V1MixesAttempts,
        Bug::PassesCheckpointsOver,
        Bug::ReadsStaleFacts,
    ];
}
