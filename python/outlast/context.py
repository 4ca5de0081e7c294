"""What a running task may ask of its worker."""

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

    :raises OutlastError: if it runs none.
    """
    context = getattr(_current, "context", None)
    if context is None:
        raise OutlastError("this thread runs no task")
    return context


class TaskContext:
    """One attempt of a task. Every method may be called from any thread, and raises
    :class:`~outlast.TaskNotRunning` once the attempt is over."""

    def __init__(self, raw: Any, allow_pickle: bool, checkpoint_interval: float) -> None:
        self._raw = raw
        self._allow_pickle = allow_pickle
        self._interval = checkpoint_interval
        self._saved_at = time.monotonic()
        self._asked = 0
        self._submitted: Optional[tuple[Any, Any]] = None
        #: The task's id.
        self.task_id: str = raw.task_id
        #: The number of this attempt, from 1; it only grows.
        self.attempt: int = raw.attempt
        #: The name that the task was called by.
        self.function: str = raw.function
        #: The span that those of the task are children of (W3C Trace Context), if there is one: in
        #: ``os.environ["TRACEPARENT"]`` too where the task has a process of its own.
        self.traceparent: Optional[str] = raw.traceparent
        #: What tracing systems add to it.
        self.tracestate: Optional[str] = raw.tracestate
        #: Its argument.
        self.args: Any = json.loads(raw.args)

    def __repr__(self) -> str:
        return f"<TaskContext {self.task_id} attempt {self.attempt}>"

    def checkpoint(self, data: Any, **meta: Any) -> str:
        """Keeps ``data``, and returns the checkpoint's id. It is durable on this machine then, and
        on its way to the coordinator. ``meta`` is kept beside it (JSON, at most 16 KiB).

        :raises SerializationError: if it can be neither JSON nor a pickle.
        :raises StorageFull: if the disk, or its share, is full.
        """
        parts, codec = _data.to_checkpoint(data, self._allow_pickle)
        made = self._raw.checkpoint(parts, _data.to_state({**meta, **codec}))
        return self._made(made)

    def checkpoint_path(self, path: Union[str, os.PathLike[str]], **meta: Any) -> str:
        """The same of a file or folder, which ``outlast task restore`` puts back."""
        return self._made(self._raw.checkpoint_path(os.fspath(path), _data.to_state(meta)))

    def _made(self, checkpoint: str) -> str:
        self._saved_at = time.monotonic()
        self._asked = self._raw.control()[2]
        return checkpoint

    def restore(self) -> Any:
        """The data of the newest checkpoint, also of an earlier attempt elsewhere; None if there
        is none.

        :raises Unreachable: if only the coordinator has it, and cannot be reached.
        """
        found = self._raw.latest_checkpoint()
        if found is None:
            return None
        _, meta, data = found
        return _data.from_checkpoint(data, json.loads(meta), self._allow_pickle)

    @property
    def checkpoint_due(self) -> bool:
        """Whether ``checkpoint_interval`` has passed since the last one, or somebody asked."""
        late = self._interval > 0 and time.monotonic() - self._saved_at >= self._interval
        return late or self._raw.control()[2] > self._asked

    def update_state(self, **updates: Any) -> None:
        """Merges into the state that the coordinator shows. A value of None removes its name."""
        self._raw.update_state(_data.to_state(updates))

    def progress(self, done: float, **updates: Any) -> None:
        """Says how far the task is, from 0 to 1, and updates its state."""
        done = float(done)
        self._raw.update_state(_data.to_state(updates), done if math.isfinite(done) else None)

    def artifact(self, name: str, path: Union[str, os.PathLike[str]]) -> None:
        """Keeps a file for the result."""
        self._raw.artifact(name, os.fspath(path))

    @property
    def cancelled(self) -> bool:
        """Whether the task should end: somebody cancelled it, or its worker stops."""
        return self._raw.control()[0]

    @property
    def paused(self) -> bool:
        """Whether somebody paused the task."""
        return self._raw.control()[1]

    def check(self) -> None:
        """Waits while the task is paused.

        :raises TaskStopped: if it should end.
        """
        while True:
            cancel, pause, _ = self._raw.control()
            if cancel:
                raise TaskStopped(f"task {self.task_id} was cancelled, or its worker stops")
            if not pause:
                return
            time.sleep(0.1)
