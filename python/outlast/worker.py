"""A worker whose tasks are Python functions."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, TypeVar, Union, overload

from . import _config
from ._runner import Runner
from .client import _ARGS, _KWARGS
from .context import TaskContext
from .errors import ConfigurationError, OutlastError

log = logging.getLogger("outlast.worker")

F = TypeVar("F", bound=Callable[..., Any])


def _wants_context(function: Callable[..., Any]) -> Optional[str]:
    """The name of its parameter that is annotated as TaskContext."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    for parameter in parameters:
        note = parameter.annotation
        if note is TaskContext:
            return parameter.name
        if isinstance(note, str) and note.rpartition(".")[2] == "TaskContext":
            return parameter.name
    return None


class Worker:
    """Runs functions for a coordinator, and outlives the loss of its link::

        worker = outlast.Worker("http://127.0.0.1:7117")

        @worker.task
        def add(a, b):
            return a + b

        worker.run()

    Tasks run in threads of this process, so that one that crashes the interpreter takes the others
    with it; they are then run again.

    :param url: of the coordinator; default: ``$OUTLAST_COORDINATOR``, else the local one.
    :param name: that people see; default: this machine's.
    :param state_dir: of the durable store; one process may use it at a time. Default: one per
        worker name in the user's state folder, told in the log.
    :param slots: tasks at once.
    :param api_key: of role worker; default: ``$OUTLAST_API_KEY``.
    :param capabilities: what it has, beside what is found; JSON.
    :param labels: text by name.
    :param ca: PEM file of authorities to trust instead of the system's.
    :param config: as of the plugin, for example ``{"heartbeat_interval": 3.0}``.
    :param allow_pickle: whether checkpoints and results that are no JSON are pickled.
    :raises ConfigurationError: if something cannot be used. Nothing is dialled yet.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        name: Optional[str] = None,
        state_dir: Union[str, os.PathLike[str], None] = None,
        slots: int = 1,
        api_key: Optional[str] = None,
        capabilities: Optional[Mapping[str, Any]] = None,
        labels: Optional[Mapping[str, str]] = None,
        ca: Union[str, os.PathLike[str], None] = None,
        config: Optional[Mapping[str, Any]] = None,
        allow_pickle: bool = True,
    ) -> None:
        url = url or os.environ.get("OUTLAST_COORDINATOR") or "http://127.0.0.1:7117"
        self.url = _config.address(url)
        self.name = _config.worker_name(name or socket.gethostname())
        self._given = state_dir is not None
        self.state_dir = (
            Path(state_dir) if state_dir is not None else _config.state_folder(self.name)
        )
        if not isinstance(slots, int) or slots < 1:
            raise ConfigurationError(f"slots must be a whole number from 1 on, not {slots!r}")
        checked = _config.merged(config)
        self._options: dict[str, Any] = {
            **{key: checked[key] for key in (*_config.PASSED, "checkpoint_interval")},
            "name": self.name,
            "coordinator": self.url,
            "state_dir": os.fspath(self.state_dir),
            "api_key": api_key or os.environ.get("OUTLAST_API_KEY") or None,
            "ca": os.fspath(ca) if ca is not None else None,
            "capabilities": _config.capabilities(capabilities),
            "labels": dict(labels or {}),
            "slots": slots,
        }
        self._functions: dict[str, tuple[Callable[..., Any], Optional[str]]] = {}
        self._runner = Runner(self._execute, allow_pickle, self._settings)

    def __repr__(self) -> str:
        return f"<Worker {self.name} {self._runner.state()[0]}>"

    @overload
    def task(self, function: F) -> F: ...
    @overload
    def task(self, *, name: Optional[str] = None) -> Callable[[F], F]: ...
    def task(self, function: Any = None, *, name: Optional[str] = None) -> Any:
        """Makes a function callable by tasks, under its own name or another one.

        A parameter annotated ``TaskContext`` gets the task's context; the others come from the
        submission. Elsewhere ``outlast.current_task()`` gives it.
        """

        def register(function: F) -> F:
            known = name or function.__name__
            if known in self._functions:
                raise ConfigurationError(f"there is a task function {known!r} already")
            self._functions[known] = (function, _wants_context(function))
            return function

        return register if function is None else register(function)

    def _settings(self) -> dict[str, Any]:
        if not self._given:
            log.info("the state of worker %s is kept in %s", self.name, self.state_dir)
        return dict(self._options)

    def _execute(self, context: TaskContext) -> Any:
        found = self._functions.get(context.function)
        if found is None:
            known = ", ".join(sorted(self._functions)) or "none"
            raise OutlastError(f"this worker has no function {context.function!r}; it has: {known}")
        function, wanted = found
        given = context.args
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        if isinstance(given, dict) and _ARGS in given:
            args, kwargs = list(given[_ARGS]), dict(given.get(_KWARGS, {}))
        elif isinstance(given, dict):
            kwargs = given
        elif given is not None:
            args = [given]
        if wanted is None:
            return function(*args, **kwargs)
        if args and next(iter(inspect.signature(function).parameters)) == wanted:
            return function(context, *args, **kwargs)
        return function(*args, **{**kwargs, wanted: context})

    def start(self) -> None:
        """Opens the store, and dials until it succeeds.

        :raises ConfigurationError: if the address cannot be used.
        :raises StateFolderError: if another process has the state folder.
        """
        self._runner.start()

    def stop(self, timeout: float = 30.0) -> None:
        """Stops what runs, and keeps every result on disk for the next start. No thread is left.

        :raises OutlastError: if a task did not end within ``timeout`` seconds.
        """
        self._runner.stop(timeout)

    def drain(self, timeout: float = 3600.0) -> None:
        """Takes no new work, finishes and delivers what it has, and ends; what is left after
        ``timeout`` seconds is stopped."""
        self._runner.stop(timeout, drain=True)

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def run(self) -> None:
        """Starts, and works until Ctrl-C or SIGTERM; then stops. For the main thread.

        :raises OutlastError: if it gave up, as after ``max_reconnect_attempts``.
        """
        asked = threading.Event()
        before = {}
        if threading.current_thread() is threading.main_thread():
            for one in (signal.SIGTERM, signal.SIGINT):
                before[one] = signal.signal(one, lambda *_: asked.set())
        try:
            self.start()
            while not asked.wait(0.2):
                state, why = self._runner.state()
                if state == "FAILED":
                    raise OutlastError(f"no link to {self.url}: {why}")
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            self.stop()

    @property
    def connected(self) -> bool:
        """Whether the coordinator has welcomed it."""
        return self._runner.state()[0] == "CONNECTED"
