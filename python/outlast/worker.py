"""A worker whose tasks are Python functions."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, TypeVar, Union, overload

from . import _calls, _config, _process, _spawn
from ._runner import Runner
from .context import TaskContext
from .errors import ConfigurationError, OutlastError

log = logging.getLogger("outlast.worker")

F = TypeVar("F", bound=Callable[..., Any])


class Worker:
    """Runs functions for a coordinator, and survives the loss of its link::

        worker = outlast.Worker("http://127.0.0.1:7117")

        @worker.task
        def add(a, b):
            return a + b

        worker.run()

    Each task runs in a separate process, one per slot, which is reused for the next one. A task that
    crashes, runs out of memory or hangs affects no other. These processes are spawned, not forked, and
    import the modules of the functions: if a function is in the main script, that script is imported in
    each of them up to the point where it starts its worker. Everything that the script does before that
    point happens in each of them, too, unless it stands under
    ``if __name__ == "__main__"``. Functions of a session (Jupyter, ``python -c``) and nested functions
    are sent by value.

    With ``isolation="thread"`` tasks run in threads of this process: they share its memory, and one that
    crashes the interpreter ends all of them; they are then run again. A thread cannot be killed: at a time
    limit or a cancellation that a task does not check for, :class:`~outlast.TaskStopped` is raised in it,
    once, and a task that this does not end keeps its slot.

    :param url: address of the coordinator; default: ``$OUTLAST_COORDINATOR``, else the local one.
    :param name: displayed name; default: this machine's.
    :param state_dir: folder of the durable store; one process may use it at a time. Default: one per
        worker name in the user's state folder, named in the log.
    :param slots: number of simultaneous tasks.
    :param api_key: key of role worker; default: ``$OUTLAST_API_KEY``, the key in the file
        ``$OUTLAST_API_KEY_FILE``, or that of this user's own coordinator on this machine.
    :param capabilities: capabilities in addition to those that are detected; JSON.
    :param labels: a dict of texts.
    :param ca: PEM file of trusted authorities, instead of the system's.
    :param config: settings of the plugin, for example ``{"heartbeat_interval": 3.0}``.
    :param allow_pickle: whether checkpoints and results that are not JSON are pickled, and whether
        functions and arguments that are pickles are accepted. With pickles or commands, anyone who may
        submit to this worker can run any code here.
    :param isolation: ``"process"`` or ``"thread"``.
    :raises ConfigurationError: if a setting is invalid. No connection is opened yet.
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
        isolation: str = "process",
    ) -> None:
        url = url or os.environ.get("OUTLAST_COORDINATOR") or "http://127.0.0.1:7117"
        self.url = _config.address(url)
        self.name = _config.worker_name(name or socket.gethostname())
        self._given = state_dir is not None
        self.state_dir = (
            Path(state_dir) if state_dir is not None else _config.state_folder(self.name)
        )
        if not isinstance(slots, int) or slots < 1:
            raise ConfigurationError(f"slots must be a whole number of at least 1, not {slots!r}")
        checked = _config.merged(config)
        self._options: dict[str, Any] = {
            **{key: checked[key] for key in (*_config.PASSED, "checkpoint_interval")},
            "name": self.name,
            "coordinator": self.url,
            "state_dir": os.fspath(self.state_dir),
            "api_key": _config.api_key(api_key),
            "ca": os.fspath(ca) if ca is not None else None,
            "capabilities": {
                _calls.CAPABILITY: _calls.VERSION,
                **_config.capabilities(capabilities),
            },
            "labels": dict(labels or {}),
            "slots": slots,
            "pin": _config.pins(),
        }
        self._functions: dict[str, tuple[Callable[..., Any], Optional[str]]] = {}
        if isolation not in ("process", "thread"):
            raise ConfigurationError(
                f'isolation must be "process" or "thread", not {isolation!r}'
            )
        self.isolation = isolation
        self._allow_pickle = allow_pickle
        self._runner = Runner(
            self._execute, allow_pickle, self._settings, exceptions=True, define=self._definition
        )

    def __repr__(self) -> str:
        return f"<Worker {self.name} {self._runner.state()[0]}>"

    @overload
    def task(self, function: F) -> F: ...
    @overload
    def task(self, *, name: Optional[str] = None) -> Callable[[F], F]: ...
    def task(self, function: Any = None, *, name: Optional[str] = None) -> Any:
        """Registers a function that tasks can call, under its own name or another one.

        A parameter annotated ``TaskContext`` gets the task's context; the others come from the
        submission. Other functions get the context from ``outlast.current_task()``. Running a notebook's cell
        again replaces the function.
        """

        def register(function: F) -> F:
            known = name or getattr(function, "__name__", None)
            if not isinstance(known, str) or not known:
                raise ConfigurationError(f"{function!r} has no name of its own; give it name=…")
            before = self._functions.get(known)
            if before is not None and not _same(before[0], function):
                raise ConfigurationError(f"a task function {known!r} is already registered")
            if self.isolation == "process" and self._runner.started:
                _spawn.check(known, function)
            self._functions[known] = (function, _calls.wants_context(function))
            if _process.in_child:
                _process.registered.append((known, function))
            elif self._runner.started:
                self._runner.agent.redefined(known)
            return function

        return register if function is None else register(function)

    def _settings(self) -> dict[str, Any]:
        if not self._given:
            log.info("the state of worker %s is kept in %s", self.name, self.state_dir)
        if self.isolation == "thread":
            return dict(self._options)
        functions = [function for function, _ in self._functions.values()]
        for name, (function, _) in self._functions.items():
            _spawn.check(name, function)
        boot = _spawn.boot(
            self._allow_pickle, self._options["checkpoint_interval"], _spawn.main_for(functions)
        )
        return {**self._options, "command": _spawn.command(), "boot": boot}

    def _find(self, name: str) -> tuple[Callable[..., Any], Optional[str]]:
        found = self._functions.get(name)
        if found is None:
            known = ", ".join(sorted(self._functions)) or "none"
            raise OutlastError(f"this worker has no function {name!r}; it has: {known}")
        return found

    def _definition(self, name: str) -> str:
        return _spawn.definition(name, self._find(name)[0])

    def _execute(self, context: TaskContext) -> Any:
        if _calls.is_python(context.args):
            found = _calls.brought(context.function, context.args, self._allow_pickle)
        else:
            found = self._find(context.function)
        return _calls.invoke(*found, context, self._allow_pickle)

    def start(self) -> None:
        """Opens the store, and connects; retries until it succeeds.

        :raises ConfigurationError: if the address cannot be used.
        :raises StateFolderError: if another process has the state folder.
        """
        self._runner.start()

    def stop(self, timeout: float = 30.0) -> None:
        """Stops running tasks, and keeps every result on disk for the next start. No thread remains.

        :raises OutlastError: if a task did not end within ``timeout`` seconds.
        """
        self._runner.stop(timeout)

    def drain(self, timeout: float = 3600.0) -> None:
        """Accepts no new tasks, finishes and delivers the current ones, and stops; tasks that still run after
        ``timeout`` seconds are stopped."""
        self._runner.stop(timeout, drain=True)

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def run(self) -> None:
        """Starts, and works until Ctrl-C or SIGTERM; then stops. Call it from the main thread.

        :raises OutlastError: if it stopped reconnecting, as after ``max_reconnect_attempts``.
        """
        _process.leave_import()
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
        """Whether the coordinator has accepted it."""
        return self._runner.state()[0] == "CONNECTED"


def _same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Reports whether one is a newer version of the other, as when a cell is run again."""
    code = getattr(other, "__code__", None)
    if code is None or os.path.exists(code.co_filename):
        return False  # defined twice in a file, by mistake
    path = [(getattr(f, "__module__", None), getattr(f, "__qualname__", f)) for f in (one, other)]
    return path[0] == path[1]
