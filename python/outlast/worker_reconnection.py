"""The plugin that makes a worker of the replaced system durable.

Most workers need only ``create_worker_reconnection_plugin(worker)``. It runs the Rust worker, which
syncs results and checkpoints to disk before anything else happens. They reach the coordinator
exactly once, however often the link drops or this process is killed.

An ``execute_task`` that delegates its work may return ``{"status": "running"}`` (or
``"in_progress"``, without further fields that a result would have). The task then continues to run and to
occupy its slot until ``submit_task_result(task_id, …)`` is called, it is cancelled, or its timeout passes.

An assignment is a task of the kind ``call``; whichever function it names, ``execute_task(task_id,
task_config)`` is run, with the task's ``args`` as ``task_config``::

    curl -d '{"call": {"function": "execute_task", "args": {"model": "m"}}}' …/api/v1/tasks
"""

from __future__ import annotations

import datetime
import enum
import logging
import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Union

from . import _calls, _config, _data
from ._runner import Runner
from .context import TaskContext
from .errors import ConfigurationError, InvalidData, OutlastError

__all__ = [
    "ConnectionState",
    "ConnectionStats",
    "WorkerReconnectionManager",
    "WorkerReconnectionPlugin",
    "create_worker_reconnection_plugin",
]

log = logging.getLogger("outlast.worker_reconnection")

# As in the v1 dialect: words for a running task, and fields that may accompany them.
_RUNS = ("running", "in_progress")
_BESIDE = {
    "status", "task_id", "worker_id", "attempt", "message", "progress", "started_at", "timestamp",
}  # fmt: skip
# Seconds between two checks for a cancel while the result is awaited.
_LOOK = 0.1


def _runs_on(result: Any) -> bool:
    """Reports whether ``execute_task`` only reported that the task runs."""
    return isinstance(result, dict) and result.get("status") in _RUNS and set(result) <= _BESIDE


class ConnectionState(enum.Enum):
    """State of a worker's link."""

    #: Accepted by the coordinator.
    CONNECTED = "connected"
    #: Connecting, or waiting for the handshake.
    CONNECTING = "connecting"
    #: Waiting to connect (again).
    DISCONNECTED = "disconnected"
    #: Stopped reconnecting after ``max_reconnect_attempts``, until ``force_reconnect()`` or ``start()``.
    FAILED = "failed"
    #: Stopped.
    SHUTDOWN = "shutdown"


@dataclass
class ConnectionStats:
    """Statistics of a link, since the worker's start or ``reset_connection_stats()``."""

    #: Seconds.
    connected_time: float = 0.0
    #: Seconds, from the first loss on.
    disconnected_time: float = 0.0
    connection_attempts: int = 0
    successful_connections: int = 0
    failed_connections: int = 0
    #: Local time without a time zone, as returned by ``datetime.now()``.
    last_connected: Optional[datetime.datetime] = None
    last_disconnected: Optional[datetime.datetime] = None
    #: Round-trip times in milliseconds, the newest 100, oldest first.
    latency_samples: list[float] = field(default_factory=list)

    @property
    def average_latency(self) -> float:
        """Milliseconds; 0.0 without samples."""
        samples = self.latency_samples
        return sum(samples) / len(samples) if samples else 0.0

    @property
    def connection_stability(self) -> float:
        """Share of the time spent connected; 1.0 if there is none yet."""
        total = self.connected_time + self.disconnected_time
        return self.connected_time / total if total else 1.0

    @property
    def connection_success_rate(self) -> float:
        """Share of connection attempts that succeeded; 1.0 without attempts."""
        attempts = self.connection_attempts
        return self.successful_connections / attempts if attempts else 1.0

    def add_latency_sample(self, ms: float) -> None:
        """Adds a round-trip time in milliseconds, and keeps the newest 100."""
        self.latency_samples.append(float(ms))
        del self.latency_samples[:-100]


def _stats(document: Mapping[str, Any]) -> ConnectionStats:
    stats = ConnectionStats(**document)
    for name in ("last_connected", "last_disconnected"):
        at = getattr(stats, name)
        if at is not None:
            setattr(stats, name, datetime.datetime.fromtimestamp(at))
    return stats


class WorkerReconnectionManager:
    """Preserves a worker's tasks, results and checkpoints when its link is lost.

    :param worker_id: 1 to 128 of ``A-Z a-z 0-9 . _ : -``.
    :param coordinator_url: ``http(s)://``, ``ws(s)://`` or bare ``host:port``, optionally with the whole
        worker path.
    :param api_key: key of role worker.
    :param capabilities: this worker's capabilities, a JSON object.
    :param task_executor: called with (task id, task config); returns the result.
    :param state_dir: folder of the durable store; default: one per worker id in the user's state folder.
    :param allow_pickle: whether checkpoints and results that are not JSON are pickled.
    :param slots: number of simultaneous tasks.
    :param ca: PEM file of authorities to trust instead of the system's.
    :raises ConfigurationError: if a setting is invalid. No connection is opened yet.
    """

    def __init__(
        self,
        worker_id: str,
        coordinator_url: str,
        api_key: Optional[str] = None,
        capabilities: Optional[Mapping[str, Any]] = None,
        task_executor: Optional[Callable[[str, Any], Any]] = None,
        *,
        state_dir: Union[str, os.PathLike[str], None] = None,
        allow_pickle: bool = True,
        slots: int = 1,
        ca: Union[str, os.PathLike[str], None] = None,
    ) -> None:
        self.worker_id = _config.worker_name(worker_id)
        self.coordinator_url = coordinator_url
        self._address = _config.address(coordinator_url)
        self.api_key = api_key
        self.capabilities = _config.capabilities(capabilities)
        self.task_executor = task_executor
        self.config: dict[str, Any] = dict(_config.DEFAULTS)
        self.allow_pickle = allow_pickle
        self.slots = slots
        self._ca = ca
        self._given = state_dir is not None
        self.state_dir = (
            Path(state_dir) if state_dir is not None else _config.state_folder(self.worker_id)
        )
        self._runner = Runner(self._execute, allow_pickle, self._settings)

    def __repr__(self) -> str:
        state = self.connection_state.name
        return f"<WorkerReconnectionManager {self.worker_id} {state}>"

    def _settings(self) -> dict[str, Any]:
        config = _config.merged(self.config)
        if not self._given:
            log.info("the state of worker %s is kept in %s", self.worker_id, self.state_dir)
        settings: dict[str, Any] = {key: config[key] for key in _config.PASSED}
        settings.update(
            name=self.worker_id,
            coordinator=self._address,
            state_dir=os.fspath(self.state_dir),
            api_key=self.api_key,
            ca=os.fspath(self._ca) if self._ca is not None else None,
            capabilities=self.capabilities,
            slots=self.slots,
            pin=_config.pins(),
            checkpoint_interval=config["checkpoint_interval"],
        )
        return settings

    def _execute(self, context: TaskContext) -> Any:
        executor = self.task_executor
        if executor is None:
            raise OutlastError(
                f"worker {self.worker_id} has no task executor: give it an"
                " execute_task(task_id, task_config) method"
            )
        result = executor(context.task_id, _calls.config(context.args, self.allow_pickle))
        if _runs_on(result):
            log.info("TASK %s runs until its result is submitted", context.task_id)
            while context._submitted is None:
                context.check()
                time.sleep(_LOOK)
        return result

    def configure(self, config: Mapping[str, Any]) -> None:
        """Changes settings; they take effect at the next ``start()``.

        :raises ConfigurationError: for an unknown key, with the nearest known one, or an invalid value.
        """
        self.config = _config.merged(config, self.config)

    def start(self) -> None:
        """Opens the store, and connects; retries until it succeeds. Does nothing if it runs; connects again
        at once if it had stopped reconnecting.

        :raises ConfigurationError: if the address or the settings cannot be used.
        :raises StateFolderError: if another process has the state folder.
        """
        self._runner.start()

    def stop(self, timeout: float = 30.0) -> None:
        """Stops running tasks, and keeps every result on disk for the next start. No thread remains.

        Running tasks notice a stop when they next report; in those that do not within 5 seconds,
        :class:`~outlast.TaskStopped` is raised.

        :raises OutlastError: if a task did not end within ``timeout`` seconds.
        """
        self._runner.stop(timeout)

    @property
    def connection_state(self) -> ConnectionState:
        """The state of the link."""
        return ConnectionState[self._runner.state()[0]]

    def get_connection_state(self) -> ConnectionState:
        """The state of the link."""
        return self.connection_state

    @property
    def connection_reason(self) -> str:
        """The reason of the link's state, such as the coordinator's answer; empty while it is up."""
        return self._runner.state()[1]

    def is_connected(self) -> bool:
        """Whether the coordinator has accepted this worker. False after ``stop()``."""
        return self.connection_state is ConnectionState.CONNECTED

    def is_healthy(self) -> bool:
        """Whether the link's stability is at least ``connection_health_threshold``."""
        stability = self.get_connection_stats().connection_stability
        return stability >= self.config["connection_health_threshold"]

    def get_connection_stats(self) -> ConnectionStats:
        """A snapshot of the statistics; after ``stop()`` the last one."""
        return _stats(self._runner.stats())

    def reset_connection_stats(self) -> None:
        """Restarts the statistics.

        :raises StoppedError: if the worker is not running.
        """
        self._runner.agent.reset_stats()

    def force_reconnect(self) -> None:
        """Closes the link, if there is one, and connects again at once.

        :raises StoppedError: if the worker is not running.
        """
        self._runner.agent.force_reconnect()

    def submit_task_result(self, task_id: str, result: Any, error: Any = None) -> None:
        """Decides the outcome of a running task, instead of the value that ``execute_task`` returns or the
        exception that it raises. It takes effect when that returns, or at once if it has returned
        ``{"status": "running"}``. The first one counts.

        :param error: a dict with ``message`` (and ``traceback``), text or an exception: the task
            fails.
        :raises TaskNotRunning: if this worker does not currently run the task.
        :raises SerializationError: if the result can be neither JSON nor a pickle.
        """
        context = self._runner.context(task_id)
        if error is None:
            _data.to_result(result, self.allow_pickle)
        if context._submitted is not None:
            raise InvalidData(f"task {task_id} has a result already")
        context._submitted = (result, error)

    def create_checkpoint(self, task_id: str, data: Any) -> str:
        """Saves a checkpoint of a running task and returns its id. It is then durable.

        :raises TaskNotRunning: if this worker does not currently run the task.
        :raises SerializationError: if the data can be neither JSON nor a pickle.
        :raises StorageFull: if the disk, or the task's share of it, is full.
        :raises TaskStopped: after it was saved, if the task was cancelled or the worker stops.
        """
        context = self._runner.context(task_id)
        made = context.checkpoint(data)
        context.check()
        return made

    def get_latest_checkpoint(self, task_id: str) -> Any:
        """The data of the newest checkpoint of a running task, including those of earlier attempts and other
        workers; None if there is none.

        :raises TaskNotRunning: if this worker does not currently run the task.
        :raises Unreachable: if only the coordinator has it, and cannot be reached.
        """
        return self._runner.context(task_id).restore()

    def update_task_state(self, task_id: str, updates: Mapping[str, Any]) -> None:
        """Merges into the state of a running task; None removes a key. A number ``progress``
        from 0 to 1, or as a percentage above 1 and up to 100, is also shown as the task's progress.
        Waits while the task is paused.

        :raises TaskNotRunning: if this worker does not currently run the task.
        :raises TaskStopped: if the task was cancelled or the worker stops.
        """
        context = self._runner.context(task_id)
        text = _data.to_state(updates)
        done = updates.get("progress")
        if isinstance(done, bool) or not isinstance(done, (int, float)) or not 0 <= done <= 100:
            done = None
        elif done > 1:
            done /= 100
        context._raw.update_state(text, done)
        context.check()


class WorkerReconnectionPlugin:
    """Connects an existing worker object. Its tasks run in threads of this process, which has that
    object; a task that crashes the interpreter ends the others with it, and they are run again.
    In a task that does not check whether it has to end, :class:`~outlast.TaskStopped` is raised.
    ``outlast.Worker`` gives each task a process of its own.

    Attributes of the object: ``coordinator_url``; optional ``worker_id`` (default: a fresh UUID), ``api_key``,
    ``capabilities``, ``reconnection_config``, ``execute_task(task_id, task_config) -> dict``, and
    beyond the replaced system ``state_dir``, ``allow_pickle`` (default True), ``slots`` (1), ``ca``.

    :raises ConfigurationError: if a setting is invalid.
    """

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        url = getattr(worker, "coordinator_url", None)
        if url is None:
            raise ConfigurationError(
                f"{type(worker).__name__} has no coordinator_url; set one such as http://host:7117"
            )
        given = getattr(worker, "worker_id", None)
        #: The manager that does the work.
        self.reconnection_manager = WorkerReconnectionManager(
            worker_id=str(uuid.uuid4()) if given is None else given,
            coordinator_url=url,
            api_key=getattr(worker, "api_key", None),
            capabilities=getattr(worker, "capabilities", None),
            task_executor=self._execute,
            state_dir=getattr(worker, "state_dir", None),
            allow_pickle=getattr(worker, "allow_pickle", True),
            slots=getattr(worker, "slots", 1),
            ca=getattr(worker, "ca", None),
        )
        config = getattr(worker, "reconnection_config", None)
        if config is not None:
            self.reconnection_manager.configure(config)

    def _execute(self, task_id: str, task_config: Any) -> Any:
        execute = getattr(self.worker, "execute_task", None)
        if not callable(execute):
            raise OutlastError(
                f"{type(self.worker).__name__} has no execute_task(task_id, task_config) method,"
                " so worker"
                f" {self.reconnection_manager.worker_id} cannot run tasks"
            )
        return execute(task_id, task_config)

    def start(self) -> None:
        """See :meth:`WorkerReconnectionManager.start`."""
        self.reconnection_manager.start()

    def stop(self, timeout: float = 30.0) -> None:
        """See :meth:`WorkerReconnectionManager.stop`."""
        self.reconnection_manager.stop(timeout)

    def is_connected(self) -> bool:
        """Whether the coordinator has accepted this worker."""
        return self.reconnection_manager.is_connected()

    def get_connection_stats(self) -> ConnectionStats:
        """See :meth:`WorkerReconnectionManager.get_connection_stats`."""
        return self.reconnection_manager.get_connection_stats()

    def submit_task_result(self, task_id: str, result: Any, error: Any = None) -> None:
        """See :meth:`WorkerReconnectionManager.submit_task_result`."""
        self.reconnection_manager.submit_task_result(task_id, result, error)

    def create_checkpoint(self, task_id: str, data: Any) -> str:
        """See :meth:`WorkerReconnectionManager.create_checkpoint`."""
        return self.reconnection_manager.create_checkpoint(task_id, data)

    def get_latest_checkpoint(self, task_id: str) -> Any:
        """See :meth:`WorkerReconnectionManager.get_latest_checkpoint`."""
        return self.reconnection_manager.get_latest_checkpoint(task_id)

    def update_task_state(self, task_id: str, updates: Mapping[str, Any]) -> None:
        """See :meth:`WorkerReconnectionManager.update_task_state`."""
        self.reconnection_manager.update_task_state(task_id, updates)

    def force_reconnect(self) -> None:
        """See :meth:`WorkerReconnectionManager.force_reconnect`."""
        self.reconnection_manager.force_reconnect()


def create_worker_reconnection_plugin(worker: Any) -> WorkerReconnectionPlugin:
    """A started plugin for this worker. ``worker.reconnection_plugin`` is set to it first, if the
    worker has none, since a task may arrive at once."""
    plugin = WorkerReconnectionPlugin(worker)
    former = getattr(worker, "reconnection_plugin", None)
    ours = isinstance(former, WorkerReconnectionPlugin)
    # A stopped plugin of this package does not serve the worker's calls any more.
    if former is None or (ours and former.connection_state is ConnectionState.SHUTDOWN):
        worker.reconnection_plugin = plugin
    try:
        plugin.start()
    except BaseException:
        if getattr(worker, "reconnection_plugin", None) is plugin:
            worker.reconnection_plugin = former
        raise
    return plugin
