"""Python interface of Outlast, which runs tasks over networks that fail.

``outlast.worker_reconnection`` is the plugin for workers of the replaced system,
``outlast.Worker``, ``outlast.Client`` and ``outlast.Executor`` are the interface for new code.
Everything is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {
    "AsyncClient": "aio",
    "AsyncTask": "aio",
    "Client": "client",
    "Executor": "executor",
    "Task": "client",
    "Worker": "worker",
    "TaskContext": "context",
    "current_task": "context",
    "tqdm": "progress",
    "trange": "progress",
    "OutlastError": "errors",
    "ConfigurationError": "errors",
    "StateFolderError": "errors",
    "StoppedError": "errors",
    "TaskNotRunning": "errors",
    "StorageFull": "errors",
    "InvalidData": "errors",
    "SerializationError": "errors",
    "Unreachable": "errors",
    "Refused": "errors",
    "NotFound": "errors",
    "TaskFailed": "errors",
    "TaskCancelled": "errors",
    "TaskStopped": "errors",
}

__all__ = [
    "AsyncClient",
    "AsyncTask",
    "Client",
    "Executor",
    "Task",
    "Worker",
    "TaskContext",
    "current_task",
    "tqdm",
    "trange",
    "OutlastError",
    "ConfigurationError",
    "StateFolderError",
    "StoppedError",
    "TaskNotRunning",
    "StorageFull",
    "InvalidData",
    "SerializationError",
    "Unreachable",
    "Refused",
    "NotFound",
    "TaskFailed",
    "TaskCancelled",
    "TaskStopped",
    "__version__",
]

if TYPE_CHECKING:
    from .aio import AsyncClient as AsyncClient, AsyncTask as AsyncTask
    from .client import Client as Client, Task as Task
    from .context import TaskContext as TaskContext, current_task as current_task
    from .executor import Executor as Executor
    from .errors import (
        ConfigurationError as ConfigurationError,
        InvalidData as InvalidData,
        NotFound as NotFound,
        OutlastError as OutlastError,
        Refused as Refused,
        SerializationError as SerializationError,
        StateFolderError as StateFolderError,
        StoppedError as StoppedError,
        StorageFull as StorageFull,
        TaskCancelled as TaskCancelled,
        TaskFailed as TaskFailed,
        TaskNotRunning as TaskNotRunning,
        TaskStopped as TaskStopped,
        Unreachable as Unreachable,
    )
    from .progress import tqdm as tqdm, trange as trange
    from .worker import Worker as Worker

    __version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from ._outlast import __version__ as found
    elif name in _WHERE:
        found = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
