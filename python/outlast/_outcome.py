"""Runs a function as a task and reports its outcome."""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from typing import Any, Callable, Optional

from . import _calls, _data
from .errors import TaskStopped

# Longest traceback in characters; it is sent with the result.
_LONGEST = 64 << 10
# Longest pickled exception in bytes.
_LARGEST = 64 << 10
_HERE = os.path.dirname(__file__) + os.sep

#: Success; JSON of the value or of the failure; the message.
Outcome = tuple[bool, str, str]


def failure(error: BaseException, pickled: bool = False) -> tuple[str, str]:
    """The report of an exception: JSON of message and traceback, and one line."""
    if isinstance(error, SystemExit):
        message = f"the task called sys.exit({'' if error.code is None else _text(repr, error.code)})"
    else:
        text = _text(str, error)
        name = type(error).__name__
        message = f"{name}: {text}" if text else name
    frames = error.__traceback__
    # The caller's own code begins where this package's code ends.
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_HERE):
        frames = frames.tb_next
    trace = _text(lambda e: "".join(traceback.format_exception(type(e), e, frames)), error)
    trace = _data.clean(trace)
    if len(trace) > _LONGEST:
        trace = trace[: _LONGEST // 2] + "\n[…]\n" + trace[-_LONGEST // 2 :]
    message = _clean(message)
    told = {"message": message, "traceback": trace}
    data = _pickled(error) if pickled else None
    if data is not None:
        told["exception"] = data
    return json.dumps(told), message


def _text(of: Callable[[Any], str], value: Any) -> str:
    """The text of an object of the task's own class, whose ``__str__`` may fail."""
    try:
        return of(value)
    except Exception as e:
        return f"<its text is not available: {type(e).__name__}>"


def _clean(text: str) -> str:
    return text[:_LONGEST].encode("utf-8", "replace").decode()


def _pickled(error: BaseException) -> Optional[str]:
    """The exception itself, if it can be pickled."""
    for by in _data.picklers():
        try:
            data = by.dumps(error, protocol=5)
        except Exception:
            continue
        if 0 < len(data) <= _LARGEST:
            return base64.b64encode(data).decode("ascii")
    return None


def _explicit(error: Any) -> tuple[str, str]:
    """The report of an error that a worker submitted itself."""
    if isinstance(error, BaseException):
        return failure(error)
    if isinstance(error, dict):
        told = {**error, "message": _clean(str(error.get("message", "the task failed")))}
        return _data.to_state(told), told["message"]
    message = _clean(_text(str, error))
    return json.dumps({"message": message, "traceback": ""}), message


def run(
    execute: Callable[[Any], Any], context: Any, allow_pickle: bool, exceptions: bool
) -> tuple[Outcome, bool]:
    """The outcome, and whether the task was asked to stop.

    :param exceptions: whether to send the exception itself in addition to its text.
    """
    try:
        value = execute(context)
        if context._submitted is not None:
            value, error = context._submitted
            if error is not None:
                return (False, *_explicit(error)), False
        exact = _calls.is_python(context.args)
        return (True, _data.to_result(value, allow_pickle, exact), ""), False
    except TaskStopped as e:
        return (False, "", str(e) or "stopped"), True
    except BaseException as e:
        # Includes SystemExit and KeyboardInterrupt: they end the task, not the worker.
        return (False, *failure(e, exceptions and allow_pickle)), False
