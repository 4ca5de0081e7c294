"""Interpretation of failure reports from callers."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional

from . import _devices
from ._recovery import FailureContext, FailureType, member
from .documents import TaskResult
from .errors import InvalidData

#: Characters of a text that the planner is given, from its end.
_TAIL = 8192

_SPEC_ONLY = {
    "knobs", "requires", "max_retries", "max_oom_retries", "retry_failures", "recovery", "rerun",
    "labels",
}  # fmt: skip


@dataclass
class Report:
    """A caller's report of a failure."""

    seen: dict[str, Any]
    #: The type that the caller states.
    failure_type: Optional[FailureType] = None
    #: Devices that are named in the report: see :mod:`outlast._devices`.
    asked: list[dict[str, Any]] = field(default_factory=list)
    attempt: Optional[int] = None
    hardware: Optional[str] = None
    stacktrace: str = ""
    task: Any = None
    checkpoint: Any = None
    task_state: dict[str, Any] = field(default_factory=dict)


def report(given: Any) -> Report:
    """
    :raises InvalidData: if the report is invalid.
    """
    if isinstance(given, str):
        given = {"message": given}
    elif isinstance(given, BaseException):
        given = _of_exception(given)
    elif isinstance(given, FailureContext):
        profile = given.hardware_profile
        # Unknown is the same as unset.
        known = given.error_type is not FailureType.UNKNOWN
        given = {
            "message": given.error_message,
            "type": given.error_type if known else None,
            "traceback": given.stacktrace,
            "attempt": given.attempt,
            "hardware": profile.get("hardware_class"),
            "task_state": given.task_state,
        }
    elif not isinstance(given, Mapping):
        what = type(given).__name__
        raise InvalidData(f"error_info must be a dict, an exception or a text, not {what}")
    info = dict(given)
    for name in ("error", "exception"):
        inner = info.get(name)
        if isinstance(inner, BaseException):
            inner = _of_exception(inner)
        if isinstance(inner, Mapping):
            # In the form of a v1 result. Fields beside it take precedence.
            del info[name]
            info = {**inner, **{k: v for k, v in info.items() if v is not None}}
    kinds = [info.get(n) for n in ("type", "error_type", "failure_type")]
    said = next((m for m in (member(FailureType, k) for k in kinds) if m is not None), None)
    kind = next((k for k in kinds if k is not None), None)
    message = _text(info, "message", "error_message", "error")
    name = ""
    if said is not None:
        pass
    elif isinstance(kind, BaseException):
        name = type(kind).__name__
    elif isinstance(kind, type):
        name = kind.__name__
    elif kind is not None:
        # `cuda_error` means the same as "cuda error".
        name = str(kind)
        name = name.replace("_", " ") if name.replace("_", "").isalpha() and "_" in name else name
    if name and name not in message:
        message = f"{name}: {message}" if message else name
    stack = _text(info, "traceback", "stacktrace")
    seen = {
        "cause": _text(info, "cause"),
        "exit_code": _whole(info, "exit_code", -(2**31), 2**31),
        "signal": _whole(info, "signal", 0, 128) or 0,
        "message": message[-_TAIL:],
        "stderr": "\n".join(t for t in (stack, _text(info, "stderr")) if t)[-_TAIL:],
        "stdout": _text(info, "stdout")[-_TAIL:],
    }
    state = _first(info, "task_state")
    return Report(
        seen,
        said,
        _devices.of_report(info),
        _whole(info, "attempt", 1, 2**53),
        _text(info, "hardware", "hardware_class") or None,
        stack,
        _first(info, "task", "task_config"),
        info.get("checkpoint_data"),
        dict(state) if isinstance(state, Mapping) else {},
    )


def _of_exception(given: BaseException) -> dict[str, Any]:
    lines = traceback.format_exception(type(given), given, given.__traceback__)
    return {"message": str(given), "type": given, "traceback": "".join(lines)}


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
    """The task that a caller describes, in the coordinator's form, and, if it is a config of the caller's
    own, that config.

    :raises InvalidData: if the description is not a dict.
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
    if isinstance(spec.get("requires"), Mapping):
        spec["requires"] = _devices.without_devices(spec["requires"])
    return spec, given


def ladders(
    spec: Mapping[str, Any], before: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A task's knobs and its state, where the caller may have omitted values that were tried: positions
    count from the first value that there ever was."""
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


def with_result(seen: Mapping[str, Any], result: TaskResult) -> dict[str, Any]:
    """The caller's report, completed with the coordinator's record of the attempt's end."""
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
