"""The words of recovery: what went wrong, and what is done about it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Mapping, Optional, Type, TypeVar

from .errors import InvalidData

_Member = TypeVar("_Member", bound=enum.Enum)

#: What holds where nobody overrides it. What does hold is in the coordinator's table
#: (:meth:`RecoveryManager.recovery_table`) and in the task's ``max_retries``.
DEFAULTS: Mapping[str, Any] = MappingProxyType({
    "max_retries": 3,
    "base_delay": 2.0,  # seconds before the first delayed retry; it doubles each time
    "max_delay": 60.0,  # seconds
    "jitter_factor": 0.2,  # share of a delay, either way
    "checkpoint_interval": 300,  # seconds; see the worker's TaskContext.checkpoint_due
    "failure_history_size": 100,  # failures
    "pattern_threshold": 3,  # like failures that make a pattern
    "pattern_window": 3600.0,  # seconds within which they do
})


class FailureType(enum.Enum):
    """What went wrong. The coordinator's own classes are finer: see ``failure_class`` of
    :meth:`RecoveryManager.get_recovery_history`."""

    HARDWARE_ERROR = "hardware_error"
    SOFTWARE_ERROR = "software_error"
    #: Memory or disk.
    RESOURCE_EXHAUSTION = "resource_exhaustion"
    TIMEOUT = "timeout"
    #: The task could not reach something.
    COMMUNICATION_ERROR = "communication_error"
    BROWSER_FAILURE = "browser_failure"
    #: The worker was stopped or drained.
    TRANSIENT_ERROR = "transient_error"
    #: It could not be started.
    PERSISTENT_ERROR = "persistent_error"
    WORKER_CRASH = "worker_crash"
    WORKER_DISCONNECTION = "worker_disconnection"
    #: Only what a report says: tasks outlive their coordinator.
    COORDINATOR_ERROR = "coordinator_error"
    UNKNOWN = "unknown"


class RecoveryStrategy(enum.Enum):
    """What is done about a failure."""

    IMMEDIATE_RETRY = "immediate_retry"
    DELAYED_RETRY = "delayed_retry"
    DIFFERENT_WORKER = "different_worker"
    DIFFERENT_HARDWARE_CLASS = "different_hardware_class"
    REDUCED_PRECISION = "reduced_precision"
    REDUCED_BATCH_SIZE = "reduced_batch_size"
    SIMPLIFIED_MODEL = "simplified_model"
    FALLBACK_CPU = "fallback_cpu"
    BROWSER_RESTART = "browser_restart"
    #: Never chosen: a checkpoint that fails does not fail its task.
    SKIP_CHECKPOINTING = "skip_checkpointing"
    #: Never chosen: each attempt has a fresh folder and process.
    RESET_WORKER_STATE = "reset_worker_state"
    #: Given up, for a person to look at.
    ESCALATION = "escalation"


def member(kind: Type[_Member], given: Any) -> Optional[_Member]:
    """The member that is meant: itself, one of the same name of another enumeration, its name or
    its value in any case."""
    if isinstance(given, kind):
        return given
    if isinstance(given, enum.Enum):
        given = given.name
    if not isinstance(given, str):
        return None
    name = given.strip().rpartition(".")[2] if given.strip().startswith(kind.__name__) else given
    name = name.strip().upper().replace("-", "_").replace(" ", "_")
    return kind.__members__.get(name)


@dataclass
class FailureContext:
    """A failure, and what was known around it."""

    task_id: str
    #: Name of the worker; empty if unknown.
    worker_id: str
    #: ``hardware_class`` (cpu, gpu, …) and, if the worker was known, its capabilities.
    hardware_profile: dict[str, Any] = field(default_factory=dict)
    #: The evidence: what the failure's class rests on.
    error_message: str = ""
    error_type: FailureType = FailureType.UNKNOWN
    #: When it was decided on; in UTC.
    timestamp: datetime.datetime = field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc)
    )
    #: From 1 on.
    attempt: int = 1
    stacktrace: str = ""
    #: What the task told of itself last.
    task_state: dict[str, Any] = field(default_factory=dict)
    #: Decisions about earlier failures of the task.
    recovery_attempts: int = 0


@dataclass
class RecoveryAction:
    """What is done about a failure, and why."""

    strategy: RecoveryStrategy
    #: Where it is to run; None: wherever the coordinator gives it.
    worker_id: Optional[str] = None
    #: Seconds before it is tried again.
    delay: float = 0.0
    #: The task as it is to be run from now on; None: as it was.
    modified_task: Optional[dict[str, Any]] = None
    #: What it can resume from: the coordinator's record of its newest checkpoint, or what the
    #: report had as ``checkpoint_data``.
    checkpoint_data: Any = None
    #: Always 0: recovery leaves priorities alone.
    priority_adjustment: int = 0
    #: The class of the failure, what that rests on, what is done, and why.
    message: str = ""
    #: What a worker must have, as in a task's ``requires``.
    hardware_requirements: dict[str, str] = field(default_factory=dict)


def action_of(given: Any) -> RecoveryAction:
    """The action that is meant: itself, a strategy or its name, or a dict with the fields of
    :class:`RecoveryAction`. Its delay is below 0 where none was given.

    :raises InvalidData: if it is none of these.
    """
    bare = member(RecoveryStrategy, given)
    if bare is not None:
        return RecoveryAction(bare, delay=-1.0)
    fields: dict[str, Any] = {"delay": -1.0}
    if isinstance(given, RecoveryAction):
        fields = dict(vars(given))
        # The default of the field: nobody asks for a pause of none.
        fields["delay"] = given.delay or -1.0
    elif isinstance(given, Mapping):
        fields.update(given)
    elif isinstance(given, str):
        raise InvalidData(f"action {given!r} is no strategy; {_STRATEGIES}")
    else:
        raise InvalidData(
            "action must be a RecoveryAction, a RecoveryStrategy, its name, or a dict with"
            f" 'strategy', not {type(given).__name__}"
        )
    strategy = member(RecoveryStrategy, fields.pop("strategy", None))
    if strategy is None:
        raise InvalidData(f"the action's strategy is none; {_STRATEGIES}")
    unknown = set(fields) - {f.name for f in dataclasses.fields(RecoveryAction)}
    if unknown:
        raise InvalidData(f"an action has no {', '.join(sorted(map(str, unknown)))}")
    delay, task = fields["delay"], fields.get("modified_task")
    if isinstance(delay, bool) or not isinstance(delay, (int, float)) or delay != delay:
        raise InvalidData(f"the action's delay must be seconds, not {delay!r}")
    if task is not None and not isinstance(task, Mapping):
        raise InvalidData(f"the action's modified_task must be a dict, not {type(task).__name__}")
    return RecoveryAction(strategy, **fields)


_STRATEGIES = "strategies are " + ", ".join(s.value for s in RecoveryStrategy)
