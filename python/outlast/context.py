"""The interface of a running task to its worker."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from typing import Any, Optional, Union

from . import _data
from .errors import OutlastError, TaskStopped

_current = threading.local()


def current_task() -> TaskContext:
    """The task that this thread runs.

    :raises OutlastError: if it runs no task.
    """
    context = getattr(_current, "context", None)
    if context is None:
        raise OutlastError("this thread runs no task")
    return context


class TaskContext:
    """One attempt of a task. Every method may be called from any thread, and raises
    :class:`~outlast.TaskNotRunning` once the attempt has ended."""

    def __init__(self, raw: Any, allow_pickle: bool, checkpoint_interval: float) -> None:
        self._raw = raw
        self._allow_pickle = allow_pickle
        self._interval = checkpoint_interval
        self._saved_at = time.monotonic()
        self._asked = 0
        self._submitted: Optional[tuple[Any, Any]] = None
        #: The task's id.
        self.task_id: str = raw.task_id
        #: The number of this attempt, from 1; it only increases.
        self.attempt: int = raw.attempt
        #: The name that the task was called by.
        self.function: str = raw.function
        #: The parent span for the spans of the task (W3C Trace Context), if there is one: also in
        #: ``os.environ["TRACEPARENT"]`` if the task has a process of its own.
        self.traceparent: Optional[str] = raw.traceparent
        #: The ``tracestate`` that belongs to it.
        self.tracestate: Optional[str] = raw.tracestate
        #: The argument of the call.
        self.args: Any = json.loads(raw.args)

    def __repr__(self) -> str:
        return f"<TaskContext {self.task_id} attempt {self.attempt}>"

    def checkpoint(self, data: Any, **meta: Any) -> str:
        """Saves ``data`` and returns the checkpoint's id. The checkpoint is then durable on this machine and
        is being uploaded to the coordinator. ``meta`` is stored with it (JSON, at most 16 KiB).

        :raises SerializationError: if the data can be neither JSON nor a pickle.
        :raises StorageFull: if the disk, or the task's share of it, is full.
        """
        parts, codec = _data.to_checkpoint(data, self._allow_pickle)
        made = self._raw.checkpoint(parts, _data.to_state({**meta, **codec}))
        return self._made(made)

    def checkpoint_path(self, path: Union[str, os.PathLike[str]], **meta: Any) -> str:
        """Saves a file or folder as a checkpoint, which ``outlast task restore`` restores."""
        return self._made(self._raw.checkpoint_path(os.fspath(path), _data.to_state(meta)))

    def _made(self, checkpoint: str) -> str:
        self._saved_at = time.monotonic()
        self._asked = self._raw.control()[2]
        return checkpoint

    def restore(self) -> Any:
        """The data of the newest checkpoint, including those of earlier attempts on other machines; None if
        there is none.

        :raises Unreachable: if only the coordinator has it, and cannot be reached.
        """
        found = self._raw.latest_checkpoint()
        if found is None:
            return None
        _, meta, data = found
        return _data.from_checkpoint(data, json.loads(meta), self._allow_pickle)

    @property
    def checkpoint_due(self) -> bool:
        """Whether ``checkpoint_interval`` has passed since the last checkpoint, or one was requested."""
        late = self._interval > 0 and time.monotonic() - self._saved_at >= self._interval
        return late or self._raw.control()[2] > self._asked

    def update_state(self, **updates: Any) -> None:
        """Merges into the state that the coordinator shows. A value of None removes its key."""
        self._raw.update_state(_data.to_state(updates))

    def progress(self, done: float, **updates: Any) -> None:
        """Reports the task's progress, from 0 to 1, and updates its state."""
        done = float(done)
        self._raw.update_state(_data.to_state(updates), done if math.isfinite(done) else None)

    def artifact(self, name: str, path: Union[str, os.PathLike[str]]) -> None:
        """Saves a file as an artifact of the result."""
        self._raw.artifact(name, os.fspath(path))

    @property
    def cancelled(self) -> bool:
        """Whether the task should end: it was cancelled, or its worker stops."""
        return self._raw.control()[0]

    @property
    def paused(self) -> bool:
        """Whether the task is paused."""
        return self._raw.control()[1]

    def check(self) -> None:
        """Waits while the task is paused.

        :raises TaskStopped: if the task should end.
        """
        while True:
            cancel, pause, _ = self._raw.control()
            if cancel:
                raise TaskStopped(f"task {self.task_id} was cancelled, or its worker stops")
            if not pause:
                return
            time.sleep(0.1)
