"""Failures: reports of callers made sense of, and the coordinator's record of them read."""

from __future__ import annotations

import datetime
import traceback
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Optional

from ._recovery import FailureContext, FailureType, RecoveryAction
from .errors import InvalidData

#: Tasks whose history is read for a drawing.
MOST_TASKS = 200
#: Characters of a text that the planner is given, from its end.
_TAIL = 8192

# What these say by themselves. The other types leave it to the evidence.
_CAUSES = {
    FailureType.TIMEOUT: "timed_out",
    FailureType.WORKER_CRASH: "worker_crashed",
    FailureType.WORKER_DISCONNECTION: "lost",
    FailureType.PERSISTENT_ERROR: "not_started",
}
_SPEC_ONLY = {
    "knobs", "requires", "max_retries", "max_oom_retries", "retry_failures", "recovery", "rerun",
    "labels",
}  # fmt: skip


@dataclass
class Report:
    """What a caller told of a failure."""

    seen: dict[str, Any]
    attempt: Optional[int] = None
    hardware: Optional[str] = None
    stacktrace: str = ""
    task: Any = None
    checkpoint: Any = None
    task_state: dict[str, Any] = field(default_factory=dict)


@dataclass
class Record:
    """A failure and what was decided about it."""

    context: FailureContext
    action: RecoveryAction
    failure_class: str
    decided_by: str
    outcome: str
    #: As the planner takes it; none if it tells nothing of the machine or the task.
    failure: Optional[dict[str, Any]] = None
    #: The changed task that was submitted for it.
    successor: Optional[str] = None

    @property
    def key(self) -> tuple[str, int]:
        return (self.context.task_id, self.context.attempt)

    def shown(self) -> dict[str, Any]:
        names = ("context", "action", "failure_class", "decided_by", "outcome")
        return {name: getattr(self, name) for name in names}


def report(given: Any) -> Report:
    """
    :raises InvalidData: if it makes no sense.
    """
    if isinstance(given, str):
        given = {"message": given}
    elif isinstance(given, BaseException):
        lines = traceback.format_exception(type(given), given, given.__traceback__)
        given = {"message": str(given), "type": given, "traceback": "".join(lines)}
    elif isinstance(given, FailureContext):
        profile = given.hardware_profile
        given = {
            "message": given.error_message,
            "type": given.error_type,
            "traceback": given.stacktrace,
            "attempt": given.attempt,
            "hardware": profile.get("hardware_class"),
            "task_state": given.task_state,
        }
    elif not isinstance(given, Mapping):
        what = type(given).__name__
        raise InvalidData(f"error_info must be a dict, an exception or a text, not {what}")
    info = dict(given)
    kind: Any = _first(info, "type", "error_type")
    message = _text(info, "message", "error_message", "error")
    cause, name = _text(info, "cause"), ""
    if isinstance(kind, str) and kind.upper() in FailureType.__members__:
        kind = FailureType[kind.upper()]
    if isinstance(kind, FailureType):
        cause = cause or _CAUSES.get(kind, "")
    elif isinstance(kind, BaseException):
        name = type(kind).__name__
    elif isinstance(kind, type):
        name = kind.__name__
    elif kind is not None:
        name = str(kind)
    if name and name not in message:
        message = f"{name}: {message}" if message else name
    stack = _text(info, "traceback", "stacktrace")
    seen = {
        "cause": cause,
        "exit_code": _whole(info, "exit_code", -(2**31), 2**31),
        "signal": _whole(info, "signal", 0, 128) or 0,
        "message": message[-_TAIL:],
        "stderr": "\n".join(t for t in (stack, _text(info, "stderr")) if t)[-_TAIL:],
        "stdout": _text(info, "stdout")[-_TAIL:],
    }
    state = _first(info, "task_state")
    return Report(
        seen,
        _whole(info, "attempt", 1, 2**53),
        _text(info, "hardware", "hardware_class") or None,
        stack,
        _first(info, "task", "task_config"),
        info.get("checkpoint_data"),
        dict(state) if isinstance(state, Mapping) else {},
    )


def _first(info: Mapping[str, Any], *names: str) -> Any:
    return next((info[n] for n in names if info.get(n) is not None), None)


def _text(info: Mapping[str, Any], *names: str) -> str:
    value = _first(info, *names)
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return "".join(str(v) for v in value)
    return str(value)


def _whole(info: Mapping[str, Any], name: str, least: int, most: int) -> Optional[int]:
    value = info.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < most:
        raise InvalidData(f"{name} must be a whole number from {least} on, not {value!r}")
    return value


def spec_of(task: Any) -> tuple[dict[str, Any], Optional[dict[str, Any]]]:
    """The task that a caller describes, as the coordinator would take it, and (if it is a config
    of the caller's own) that config.

    :raises InvalidData: if it is no dict.
    """
    if task is None:
        task = {}
    if not isinstance(task, Mapping):
        raise InvalidData(f"task must be a dict, not {type(task).__name__}")
    given = dict(task)
    if any(name in given for name in ("command", "shell", "call")):
        given.pop("id", None)
        return given, None
    spec: dict[str, Any] = {k: v for k, v in given.items() if k in _SPEC_ONLY}
    # The config itself stays with the caller.
    spec["call"] = {"function": str(given.get("type") or "task")}
    return spec, given


def ladders(
    spec: Mapping[str, Any], before: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A task's knobs and its state, where the caller may have left away values that were tried: a
    place counts from the first value that there ever was."""
    given = spec.get("knobs") or {}
    if not isinstance(given, Mapping):
        raise InvalidData(f"knobs must be a dict of lists, not {type(given).__name__}")
    knobs, places = {}, dict(state.get("knobs", {}))
    for name, values in given.items():
        known = before.get(name)
        if isinstance(values, list) and known and known[-len(values) :] == values:
            values = known
        elif known is not None and known != values:
            places.pop(name, None)
        knobs[name] = values
    return knobs, {**state, "knobs": places}


def device_of(config: Optional[Mapping[str, Any]]) -> Optional[str]:
    """What a config of the caller's own runs on, where no knob says it."""
    if config is None or "device" in config.get("knobs", {}):
        return None
    device = config.get("device")
    return device if isinstance(device, str) else None


def state_of(spec: Mapping[str, Any], events: list[dict[str, Any]]) -> dict[str, Any]:
    """How recovery left a task, by its history; as the planner takes it."""
    knobs: dict[str, int] = {}
    tried: list[dict[str, Any]] = []
    avoid: list[str] = []
    of_memory = 0
    own = bool(spec.get("knobs")) or spec.get("max_oom_retries") is not None
    where = {n: end["worker"] or "" for n, end in ends(events).items()}
    for event in events:
        if event["event"] == "retried":
            knobs, tried, avoid, of_memory = {}, [], [], 0
        made = event.get("recovery")
        if event["event"] != "recovery" or not made:
            continue
        for name, value in made.get("knobs", {}).items():
            values = spec.get("knobs", {}).get(name, [])
            if value in values:
                knobs[name] = values.index(value)
        if not decides(event):
            continue
        worker = where.get(event["attempt"], "")
        step = {"class": made["class"], "strategy": made["strategy"], "worker": worker}
        tried.append(step)
        if made["strategy"] == "different_worker" and worker and worker not in avoid:
            avoid.append(worker)
        of_memory += own and made["class"] == "out_of_memory" and made["strategy"] != "escalation"
    return {"knobs": knobs, "begun": True, "tried": tried, "oom_retries": of_memory, "avoid": avoid}


def with_result(seen: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller told, and what the coordinator has of the attempt's end."""
    value = result.get("value")
    told = value if isinstance(value, dict) else {}
    texts = {
        "stderr": (result.get("stderr"), told.get("traceback"), seen["stderr"]),
        "stdout": (result.get("stdout"), seen["stdout"]),
        "message": (seen["message"], result.get("message")),
    }
    made = dict(seen)
    for name, parts in texts.items():
        made[name] = "\n".join(p for p in parts if isinstance(p, str) and p)[-_TAIL:]
    if made["exit_code"] is None:
        made["exit_code"] = result.get("exit_code")
    made["signal"] = made["signal"] or result.get("signal") or 0
    return made


def ends(events: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """By attempt: how it ended."""
    over = ("requeued", "succeeded", "failed", "cancelled")
    return {e["attempt"]: e for e in events if e["event"] in over and e["attempt"] > 0}


def decides(event: Mapping[str, Any]) -> bool:
    """Whether this entry of a history is a decision about a failure."""
    made = event.get("recovery")
    return event["event"] == "recovery" and bool(made and made.get("class"))


def outcome(strategy: str, attempt: int, ends: Mapping[int, Mapping[str, Any]]) -> str:
    """Of the attempt after a decision."""
    if strategy == "escalation":
        return "given up"
    later = [n for n in ends if n > attempt]
    if not later:
        return "open"
    return ended(ends[min(later)]["event"])


def ended(word: str) -> str:
    """An outcome, by a task's state or by how an attempt ended."""
    words = {"succeeded": "succeeded", "cancelled": "cancelled"}
    words |= {"failed": "failed again", "requeued": "failed again"}
    return words.get(word, "open")


def evidence(made: Mapping[str, Any]) -> str:
    """From a decision's text, which is ``class (evidence): what and why``."""
    text = str(made["text"])
    text = text[len(made["class"]) + 2 :] if text.startswith(f"{made['class']} (") else text
    return text.partition("): ")[0]


def failure_type(word: str) -> FailureType:
    """Of the coordinator's class."""
    from ._outlast import FAILURE_TYPES

    return FailureType[FAILURE_TYPES.get(word, "UNKNOWN")]


def when(text: str) -> datetime.datetime:
    """A time of the API."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def iso(millis: int) -> str:
    """As the API writes it."""
    at = datetime.datetime.fromtimestamp(millis / 1000, datetime.timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def member(worker: Mapping[str, Any]) -> dict[str, Any]:
    """A worker as the planner takes it."""
    there = worker["state"] == "connected" and not worker.get("quarantine")
    return {
        "name": worker["name"],
        "there": there,
        "slots": worker["slots"],
        "capabilities": worker["capabilities"] or {},
        "labels": worker["labels"],
    }


def busy(worker: Mapping[str, Any]) -> float:
    """How full a worker is."""
    return float(worker["held"]) / max(1, worker["slots"])


def _past(failure: Mapping[str, Any]) -> dict[str, Any]:
    """A failure of the API as the planner takes it."""
    return {
        "at": int(when(failure["at"]).timestamp() * 1000),
        "task": failure["task"],
        "epoch": failure["attempt"],
        "task_type": failure["task_type"],
        "worker": failure["worker"],
        "worker_name": failure["worker"],
        "hardware": failure["hardware"],
        "class": failure["class"],
        "text": failure["evidence"],
    }


def _mine(past: list[dict[str, Any]], records: list[Record]) -> list[Record]:
    known = {(f["task"], f["attempt"]) for f in past}
    return [r for r in records if r.failure is not None and r.key not in known]


def others(
    past: list[dict[str, Any]], records: list[Record], but: Optional[tuple[str, int]]
) -> list[dict[str, Any]]:
    """All failures but one, as the planner takes them, oldest first."""
    found = [_past(f) for f in past]
    found += [r.failure for r in _mine(past, records) if r.failure is not None]
    found = [f for f in found if (f["task"], f["epoch"]) != but]
    found.sort(key=lambda f: f["at"])
    return [{**f, "number": n} for n, f in enumerate(found, 1)]


def unknown_to(past: list[dict[str, Any]], records: list[Record]) -> list[dict[str, Any]]:
    """The failures that only callers told of, as the API would show them."""
    return [
        {
            "at": iso(r.failure["at"]),
            "task": r.failure["task"],
            "attempt": r.failure["epoch"],
            "task_type": r.failure["task_type"],
            "worker": r.failure["worker"],
            "hardware": r.failure["hardware"],
            "class": r.failure["class"],
            "failure_type": r.context.error_type.name,
            "evidence": r.failure["text"],
        }
        for r in _mine(past, records)
        if r.failure is not None
    ]
