"""Types of the coordinator's documents, for type checkers.

The documents are plain dicts, with the names and values of the HTTP API; ``/api/v1/openapi.json``
of a coordinator describes each field. Times are RFC 3339 in UTC. Older coordinators may leave out fields that are
required here, newer ones may add some.
"""

from __future__ import annotations

from typing import Any, Literal, Optional, TypedDict

TaskState = Literal["pending", "assigned", "succeeded", "failed", "cancelled"]

Cause = Literal[
    "",
    "asked_back",
    "cancelled",
    "disk",
    "done",
    "drained",
    "exit",
    "lost",
    "machine",
    "moved",
    "network",
    "not_started",
    "out_of_memory",
    "signal",
    "superseded",
    "timed_out",
    "worker_crashed",
    "worker_forgotten",
    "worker_stopped",
]

OutcomeKind = Literal[
    "succeeded", "failed", "timed_out", "cancelled", "interrupted", "returned"
]

HistoryEventKind = Literal[
    "submitted",
    "assigned",
    "started",
    "requeued",
    "succeeded",
    "failed",
    "cancelled",
    "superseded",
    "cancel_requested",
    "retried",
    "noted",
    "pause_requested",
    "resume_requested",
    "recovery",
]

WorkerState = Literal["connected", "draining", "unfit", "suspect", "away"]

LinkCause = Literal[
    "",
    "coordinator_restarted",
    "network",
    "refused",
    "silent",
    "slept",
    "slow",
    "taken_over",
    "worker_stopped",
]

Isolation = Literal["quarantined", "on probation"]


class _TaskAlways(TypedDict):
    id: str
    number: int
    state: TaskState
    spec: dict[str, Any]
    attempt: int
    retries: int
    cancelling: bool
    worker: Optional[str]
    submitted_at: str
    assigned_at: Optional[str]
    started_at: Optional[str]
    ended_at: Optional[str]
    reason: str
    has_result: bool
    cause: Cause
    paused: bool


class Task(_TaskAlways, total=False):
    """A task, as :meth:`outlast.Client.info` returns it."""

    progress: float
    waiting_for: str
    owner: str


class TaskList(TypedDict):
    """A page of tasks."""

    tasks: list[Task]
    next: Optional[str]


class TaskResult(TypedDict):
    """The end of a task, as :meth:`outlast.Client.wait` returns it."""

    id: str
    attempt: int
    state: TaskState
    outcome: Optional[OutcomeKind]
    exit_code: Optional[int]
    signal: Optional[int]
    message: str
    worker: Optional[str]
    started_at: Optional[str]
    finished_at: Optional[str]
    duration_ms: Optional[int]
    max_rss_bytes: int
    cpu_ms: int
    stdout: str
    stderr: str
    stdout_bytes: int
    stderr_bytes: int
    stdout_truncated: bool
    stderr_truncated: bool
    value: Any


class _HistoryEventAlways(TypedDict):
    at: str
    event: HistoryEventKind
    attempt: int
    worker: Optional[str]
    reason: str
    cause: Cause


class HistoryEvent(_HistoryEventAlways, total=False):
    """An entry of :meth:`outlast.Client.history`."""

    recovery: Any


class History(TypedDict):
    """A task's history."""

    events: list[HistoryEvent]


class Explanation(TypedDict):
    """A task's history in sentences, as :meth:`outlast.Client.explain` returns it."""

    id: str
    sentences: list[str]
    now: str
    hint: Optional[str]


class TaskStateView(TypedDict):
    """The last state that a task reported, as :meth:`outlast.Client.state` returns it."""

    id: str
    attempt: int
    version: int
    progress: Optional[float]
    state: dict[str, Any]
    at: Optional[str]


class _CheckpointAlways(TypedDict):
    id: str
    attempt: int
    number: int
    kept: bool
    dropped: bool
    size: int
    manifest: str
    created_at: str
    recorded_at: str
    gone_at: Optional[str]
    worker: Optional[str]
    meta: Any


class Checkpoint(_CheckpointAlways, total=False):
    """A checkpoint, kept or not."""

    artifact: str


class CheckpointList(TypedDict):
    """The checkpoints of a task."""

    checkpoints: list[Checkpoint]


class CountsView(TypedDict):
    """Numbers of tasks by state, as :meth:`outlast.Client.counts` returns them."""

    pending: int
    assigned: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    paused: int
    total: int
    filtered: bool


class Disk(TypedDict):
    """Disk that a worker's checkpoints take, in bytes."""

    used: int
    budget: int
    refused: int


class Copied(TypedDict):
    """A process with a copy of a worker's state folder that was refused."""

    at: str
    times: int
    host: str


class _WorkerAlways(TypedDict):
    name: str
    store_id: str
    state: WorkerState
    incarnation: int
    connection: int
    slots: int
    held: int
    running: int
    queued: int
    unacked: int
    rtt_ms: int
    capabilities: dict[str, Any]
    labels: dict[str, str]
    version: str
    seen_at: Optional[str]
    gone_at: Optional[str]
    gone_reason: str
    gone_cause: LinkCause
    drained: bool
    disk: Optional[Disk]


class Worker(_WorkerAlways, total=False):
    """A worker, as :meth:`outlast.Client.workers` lists it."""

    quarantine: Isolation
    unfit: str
    unfit_since: str
    copied: Copied
    bound_to: str


class WorkerList(TypedDict):
    """All workers."""

    workers: list[Worker]


PatternKind = Literal["worker", "hardware", "task_type", "type_on_hardware", "task"]

FailureClass = Literal[
    "out_of_memory",
    "device",
    "browser_crash",
    "context_lost",
    "disk",
    "timeout",
    "network",
    "worker_crash",
    "worker_lost",
    "worker_stopped",
    "not_started",
    "software",
    "unknown",
]

HardwareClass = Literal["cpu", "gpu", "tpu", "npu", "webgpu", "webnn", "browser"]

Strategy = Literal[
    "immediate_retry",
    "delayed_retry",
    "different_worker",
    "different_hardware_class",
    "reduced_precision",
    "reduced_batch_size",
    "simplified_model",
    "fallback_cpu",
    "browser_restart",
    "escalation",
]

# `class` is no name of a field in Python.
Rule = TypedDict("Rule", {"pattern": str, "class": FailureClass})

FailurePattern = TypedDict(
    "FailurePattern",
    {
        "kind": PatternKind,
        "subject": str,
        "class": FailureClass,
        "count": int,
        "tasks": int,
        "workers": int,
        "first": str,
        "last": str,
        "evidence": str,
    },
)

PastFailure = TypedDict(
    "PastFailure",
    {
        "at": str,
        "task": str,
        "attempt": int,
        "task_type": str,
        "worker": str,
        "hardware": HardwareClass,
        "class": FailureClass,
        "failure_type": str,
        "evidence": str,
    },
)


class QuarantinedWorker(TypedDict):
    """A worker that gets no tasks but probes."""

    worker: str
    state: Isolation
    since: str
    until: str
    failed_probes: int
    reason: str


class LearnedKnobs(TypedDict):
    """Values of knobs that worked."""

    task_type: str
    hardware: str
    knobs: dict[str, Any]
    task: str
    at: str


class RecoveryPatterns(TypedDict):
    """Patterns of failures and their consequences."""

    patterns: list[FailurePattern]
    quarantined: list[QuarantinedWorker]
    learned: list[LearnedKnobs]
    failures: list[PastFailure]


class PatternRules(TypedDict):
    """Limits from which failures are a pattern."""

    history: int
    count: int
    window: float
    probation: float


class Recovery(TypedDict, total=False):
    """Exceptions from the recovery table."""

    errors: dict[str, Any]
    hardware: dict[str, Any]
    base_delay: Optional[float]
    max_delay: Optional[float]
    jitter: Optional[float]
    rules: list[Rule]
    remember: Optional[bool]


class RecoveryTable(TypedDict):
    """Strategies by class of failure."""

    errors: dict[str, list[Strategy]]
    hardware: dict[str, list[Strategy]]
    base_delay: float
    max_delay: float
    jitter: float
    remember: bool
    rules: list[Rule]
    labels: dict[str, Recovery]
    patterns: PatternRules
