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
    """Runs functions for a coordinator, and outlives the loss of its link::

        worker = outlast.Worker("http://127.0.0.1:7117")

        @worker.task
        def add(a, b):
            return a + b

        worker.run()

    Each task runs in a process of its own, one per slot, which is used again for the next one. A
    task that crashes, runs out of memory or hangs costs nobody else anything. These processes are
    started anew, not forked, and import what the functions need: where a function is in the script
    that the program was started with, that script is imported in each of them up to the point where
    it starts its worker. What it does before is done in each of them, too, unless it stands under
    ``if __name__ == "__main__"``. Functions of a session (Jupyter, ``python -c``) and those inside
    other functions are sent to them by value.

    With ``isolation="thread"`` tasks run in threads of this process: they share what it has in
    memory, and one that crashes the interpreter takes all with it; they are then run again. A
    thread cannot be killed: a time limit or a cancellation that a task does not look for raises
    :class:`~outlast.TaskStopped` in it, once, and a task that this does not end keeps its slot.

    :param url: of the coordinator; default: ``$OUTLAST_COORDINATOR``, else the local one.
    :param name: that people see; default: this machine's.
    :param state_dir: of the durable store; one process may use it at a time. Default: one per
        worker name in the user's state folder, told in the log.
    :param slots: tasks at once.
    :param api_key: of role worker; default: ``$OUTLAST_API_KEY``, the key in the file
        ``$OUTLAST_API_KEY_FILE``, or that of this user's own coordinator on this machine.
    :param capabilities: what it has, beside what is found; JSON.
    :param labels: text by name.
    :param ca: PEM file of authorities to trust instead of the system's.
    :param config: as of the plugin, for example ``{"heartbeat_interval": 3.0}``.
    :param allow_pickle: whether checkpoints and results that are no JSON are pickled, and functions
        and arguments taken that come as pickles. Whoever may submit to this worker can run anything
        here, in that way or by a command.
    :param isolation: ``"process"`` or ``"thread"``.
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
            raise ConfigurationError(f"slots must be a whole number from 1 on, not {slots!r}")
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
        """Makes a function callable by tasks, under its own name or another one.

        A parameter annotated ``TaskContext`` gets the task's context; the others come from the
        submission. Elsewhere ``outlast.current_task()`` gives it. Running a notebook's cell again
        replaces the function.
        """

        def register(function: F) -> F:
            known = name or getattr(function, "__name__", None)
            if not isinstance(known, str) or not known:
                raise ConfigurationError(f"{function!r} has no name of its own; give it name=…")
            before = self._functions.get(known)
            if before is not None and not _same(before[0], function):
                raise ConfigurationError(f"there is a task function {known!r} already")
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
        """Whether the coordinator has welcomed it."""
        return self._runner.state()[0] == "CONNECTED"


def _same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether one is a newer version of the other, as when a cell is run again."""
    code = getattr(other, "__code__", None)
    if code is None or os.path.exists(code.co_filename):
        return False  # written twice in a file, by mistake
    path = [(getattr(f, "__module__", None), getattr(f, "__qualname__", f)) for f in (one, other)]
    return path[0] == path[1]
