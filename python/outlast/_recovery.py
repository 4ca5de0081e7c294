"""The vocabulary of recovery: types of failures, strategies, actions."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Mapping, Optional, Type, TypeVar

from .errors import InvalidData

_Member = TypeVar("_Member", bound=enum.Enum)

#: Defaults. The values in effect are in the coordinator's table
#: (:meth:`RecoveryManager.recovery_table`) and in the task's ``max_retries``.
DEFAULTS: Mapping[str, Any] = MappingProxyType({
    "max_retries": 3,
    "base_delay": 2.0,  # seconds before the first delayed retry; it doubles each time
    "max_delay": 60.0,  # seconds
    "jitter_factor": 0.2,  # share of a delay, in both directions
    "checkpoint_interval": 300,  # seconds; see the worker's TaskContext.checkpoint_due
    "failure_history_size": 100,  # failures
    "pattern_threshold": 3,  # similar failures that make a pattern
    "pattern_window": 3600.0,  # seconds within which they occur
})


class FailureType(enum.Enum):
    """Type of a failure. The coordinator's own classes are finer: see ``failure_class`` of
    :meth:`RecoveryManager.get_recovery_history`."""

    HARDWARE_ERROR = "hardware_error"
    SOFTWARE_ERROR = "software_error"
    #: Memory or disk.
    RESOURCE_EXHAUSTION = "resource_exhaustion"
    TIMEOUT = "timeout"
    #: The task could not reach another system.
    COMMUNICATION_ERROR = "communication_error"
    BROWSER_FAILURE = "browser_failure"
    #: The worker was stopped or drained.
    TRANSIENT_ERROR = "transient_error"
    #: The task could not be started.
    PERSISTENT_ERROR = "persistent_error"
    WORKER_CRASH = "worker_crash"
    WORKER_DISCONNECTION = "worker_disconnection"
    #: Only ever reported by callers: tasks outlive their coordinator.
    COORDINATOR_ERROR = "coordinator_error"
    UNKNOWN = "unknown"


class RecoveryStrategy(enum.Enum):
    """Reaction to a failure."""

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
    #: No further attempts; an operator has to look at the task.
    ESCALATION = "escalation"


def member(kind: Type[_Member], given: Any) -> Optional[_Member]:
    """The member for a value: the member itself, one of the same name of another enumeration, its name,
    or its value in any case."""
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
    """A failure and its circumstances."""

    task_id: str
    #: Name of the worker; empty if unknown.
    worker_id: str
    #: ``hardware_class`` (cpu, gpu, …) and, if the worker is known, its capabilities.
    hardware_profile: dict[str, Any] = field(default_factory=dict)
    #: The evidence for the failure's class.
    error_message: str = ""
    error_type: FailureType = FailureType.UNKNOWN
    #: Time of the decision, in UTC.
    timestamp: datetime.datetime = field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc)
    )
    #: Number of the attempt, from 1.
    attempt: int = 1
    stacktrace: str = ""
    #: The last state that the task reported.
    task_state: dict[str, Any] = field(default_factory=dict)
    #: Decisions about earlier failures of the task.
    recovery_attempts: int = 0


@dataclass
class RecoveryAction:
    """Reaction to a failure, with its reason."""

    strategy: RecoveryStrategy
    #: The worker to run on; None: any worker that the coordinator chooses.
    worker_id: Optional[str] = None
    #: Seconds before the next attempt.
    delay: float = 0.0
    #: The task as it is to be run from now on; None: unchanged.
    modified_task: Optional[dict[str, Any]] = None
    #: The checkpoint to resume from: the coordinator's record of the newest one, or
    #: ``checkpoint_data`` of the report.
    checkpoint_data: Any = None
    #: Always 0: recovery does not change priorities.
    priority_adjustment: int = 0
    #: The class of the failure, its evidence, the action, and the reason.
    message: str = ""
    #: Requirements on the worker, as in a task's ``requires``.
    hardware_requirements: dict[str, str] = field(default_factory=dict)


def action_of(given: Any) -> RecoveryAction:
    """The action for a value: an action, a strategy or its name, or a dict with the fields of
    :class:`RecoveryAction`. The delay is negative if none is given.

    :raises InvalidData: if the value is none of these.
    """
    bare = member(RecoveryStrategy, given)
    if bare is not None:
        return RecoveryAction(bare, delay=-1.0)
    fields: dict[str, Any] = {"delay": -1.0}
    if isinstance(given, RecoveryAction):
        fields = dict(vars(given))
        # The default of the field counts as no delay given.
        fields["delay"] = given.delay or -1.0
    elif isinstance(given, Mapping):
        fields.update(given)
    elif isinstance(given, str):
        raise InvalidData(f"action {given!r} is not a strategy; {_STRATEGIES}")
    else:
        raise InvalidData(
            "action must be a RecoveryAction, a RecoveryStrategy, its name, or a dict with"
            f" 'strategy', not {type(given).__name__}"
        )
    strategy = member(RecoveryStrategy, fields.pop("strategy", None))
    if strategy is None:
        raise InvalidData(f"the action has no valid strategy; {_STRATEGIES}")
    unknown = set(fields) - {f.name for f in dataclasses.fields(RecoveryAction)}
    if unknown:
        raise InvalidData(f"unknown fields of an action: {', '.join(sorted(map(str, unknown)))}")
    delay, task = fields["delay"], fields.get("modified_task")
    if isinstance(delay, bool) or not isinstance(delay, (int, float)) or delay != delay:
        raise InvalidData(f"the action's delay must be in seconds, not {delay!r}")
    if task is not None and not isinstance(task, Mapping):
        raise InvalidData(f"the action's modified_task must be a dict, not {type(task).__name__}")
    return RecoveryAction(strategy, **fields)


_STRATEGIES = "strategies are " + ", ".join(s.value for s in RecoveryStrategy)
