"""What can go wrong. Every exception of this package is an :class:`OutlastError`, but for
:class:`TaskStopped`, which ends a task."""

from __future__ import annotations

from typing import Any, Optional


class OutlastError(Exception):
    """Something went wrong; the text says what and what to do."""


class ConfigurationError(OutlastError, ValueError):
    """A setting cannot be used."""


class StateFolderError(OutlastError):
    """A worker's state folder cannot be used, for example because another process has it."""


class StoppedError(OutlastError, RuntimeError):
    """The worker is not running: it was not started, or has been stopped."""


class TaskNotRunning(OutlastError, LookupError):
    """This worker runs no such task, or its attempt is over."""


class StorageFull(OutlastError):
    """There is no room for a checkpoint until the coordinator has taken over earlier ones."""


class InvalidData(OutlastError, ValueError):
    """What was given cannot be taken; the text says why."""


class SerializationError(OutlastError, TypeError):
    """A value can be stored neither as JSON nor (where that is allowed) by pickle."""


class Unreachable(OutlastError, ConnectionError):
    """The coordinator cannot be reached."""


class Refused(OutlastError):
    """The coordinator said no; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFound(Refused, LookupError):
    """The coordinator knows no such thing."""


class TaskFailed(OutlastError):
    """A task failed. ``remote_traceback`` is that of the worker, if there is one; ``result`` the
    whole document that the coordinator has."""

    def __init__(
        self,
        task_id: str,
        message: str,
        remote_traceback: Optional[str] = None,
        result: Any = None,
    ) -> None:
        text = f"task {task_id}: {message}"
        if remote_traceback:
            text += f"\n\non the worker:\n{remote_traceback.rstrip()}"
        super().__init__(text)
        self.task_id = task_id
        self.message = message
        self.remote_traceback = remote_traceback
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.task_id, self.message, self.remote_traceback, self.result)


class TaskCancelled(TaskFailed):
    """A task was cancelled."""


class TaskStopped(BaseException):
    """Raised inside a task that was cancelled or whose worker stops, when it reports something; and
    anywhere in one that does not end in time then, or runs past its time limit.

    Not an :class:`Exception`, so that ``except Exception`` does not keep a task running that
    nobody wants. Let it pass; ``finally`` blocks run.
    """
