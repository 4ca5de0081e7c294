"""Exceptions. All of them are :class:`OutlastError`, except :class:`TaskStopped`, which ends a task."""

from __future__ import annotations

from typing import Any, Optional


class OutlastError(Exception):
    """An operation failed; the text says which, and what to do."""


class ConfigurationError(OutlastError, ValueError):
    """A setting is invalid."""


class StateFolderError(OutlastError):
    """A worker's state folder cannot be used, for example because another process uses it."""


class StoppedError(OutlastError, RuntimeError):
    """The worker is not running: it was not started, or has been stopped."""


class TaskNotRunning(OutlastError, LookupError):
    """This worker does not run the task, or its attempt has ended."""


class StorageFull(OutlastError):
    """There is no room for a checkpoint until earlier ones have been uploaded to the coordinator."""


class InvalidData(OutlastError, ValueError):
    """An argument is invalid; the text says why."""


class SerializationError(OutlastError, TypeError):
    """A value can be stored neither as JSON nor (if allowed) as a pickle."""


class Unreachable(OutlastError, ConnectionError):
    """The coordinator cannot be reached."""


class Refused(OutlastError):
    """The coordinator refused the request; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFound(Refused, LookupError):
    """The coordinator does not have the task, worker or other object."""


class TaskFailed(OutlastError):
    """A task failed. ``remote_traceback`` is the worker's traceback, if there is one; ``result`` is the
    coordinator's document of the result."""

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
    at any point of a task that does not end in time then, or exceeds its time limit.

    Not an :class:`Exception`, so that ``except Exception`` does not keep an unwanted task running. Do not
    catch it; ``finally`` blocks run.
    """
