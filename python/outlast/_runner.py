"""Runs the Rust worker and executes Python functions for it."""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from typing import Any, Callable, Optional

from . import _outcome, _process
from .context import TaskContext, _current
from .errors import OutlastError, StoppedError, TaskNotRunning, TaskStopped

log = logging.getLogger("outlast")

_LEVELS = {"CONNECTED": logging.INFO, "DISCONNECTED": logging.WARNING, "FAILED": logging.ERROR}

# A started worker works until it is stopped, even if it is not referenced any more.
_live: set[Runner] = set()


@atexit.register
def _stop_all() -> None:
    # A thread that returned into an interpreter that has ended would hang or crash.
    for runner in list(_live):
        try:
            runner.stop(5.0)
        except OutlastError as e:
            log.warning("at exit: %s", e)


class Runner:
    """A worker: can be started and stopped repeatedly. Safe to use from several threads."""

    def __init__(
        self,
        execute: Callable[[TaskContext], Any],
        allow_pickle: bool,
        settings: Callable[[], dict[str, Any]],
        exceptions: bool = False,
        define: Optional[Callable[[str], str]] = None,
    ) -> None:
        """
        :param exceptions: whether failures carry the exception itself, where possible.
        :param define: describes a function to a task process, for settings with a ``boot``.
        """
        self._execute = execute
        self._allow_pickle = allow_pickle
        self._settings = settings
        self._exceptions = exceptions
        self._define = define
        self._interval = 0.0
        self._agent: Any = None
        self._process = 0
        # A task that the worker had before may run again before start() knows its agent.
        self._ready = threading.Event()
        self._stats = "{}"
        self._state = "DISCONNECTED"
        self._lock = threading.RLock()
        self._contexts: dict[tuple[str, int], TaskContext] = {}
        self._contexts_lock = threading.Lock()

    def start(self) -> None:
        _process.leave_import()
        from ._outlast import Agent

        with self._lock:
            if self._agent is not None and not self._agent.closed:
                if self._agent.status()[0] == "FAILED":
                    self._agent.force_reconnect()
                return
            settings = self._settings()
            self._interval = settings.pop("checkpoint_interval", 0.0)
            self._ready.clear()
            try:
                self._agent = Agent(json.dumps(settings), self._call, _told, self._define)
                self._process = os.getpid()
                _live.add(self)
            finally:
                self._ready.set()

    @property
    def started(self) -> bool:
        """Whether the worker runs in this process."""
        agent = self._agent
        return agent is not None and not agent.closed

    @property
    def agent(self) -> Any:
        agent = self._agent
        if agent is None:
            raise StoppedError("the worker has not been started")
        if self._process != os.getpid():
            raise StoppedError("the worker belongs to the process that this one was forked from")
        if agent.closed:
            raise StoppedError("the worker has been stopped; start() it again first")
        return agent

    def state(self) -> tuple[str, str]:
        agent = self._agent
        if agent is None:
            return self._state, "not started"
        try:
            return agent.status()
        except StoppedError as e:
            return "SHUTDOWN", str(e)

    def stats(self) -> dict[str, Any]:
        agent = self._agent
        try:
            if agent is not None:
                self._stats = agent.stats()
        except StoppedError:
            pass
        return json.loads(self._stats)

    def context(self, task_id: str) -> TaskContext:
        """The running attempt of a task; this thread's own, if it runs that task."""
        self.agent
        own = getattr(_current, "context", None)
        if own is not None and own.task_id == task_id:
            return own
        with self._contexts_lock:
            found = [c for (task, _), c in self._contexts.items() if task == task_id]
        if not found:
            raise TaskNotRunning(f"this worker does not run a task {task_id!r} now")
        return max(found, key=lambda c: c.attempt)

    def running(self) -> list[TaskContext]:
        with self._contexts_lock:
            return list(self._contexts.values())

    def _call(self, raw: Any) -> tuple[bool, str, str, bool]:
        try:
            told, stopped = self._run(raw)
        except TaskStopped as e:  # raised when the task had just ended
            told, stopped = (False, "", str(e) or "stopped"), True
        except BaseException as e:
            told, stopped = (False, *_outcome.failure(e)), False
        return (*told, stopped)

    def _run(self, raw: Any) -> tuple[_outcome.Outcome, bool]:
        self._ready.wait()
        context = TaskContext(raw, self._allow_pickle, self._interval)
        key = (context.task_id, context.attempt)
        with self._contexts_lock:
            self._contexts[key] = context
        _current.context = context
        rest = (self._execute, context, self._allow_pickle, self._exceptions)
        try:
            # Other threads raise nothing here except within this block.
            done: tuple[_outcome.Outcome, bool] = raw.run(lambda: _outcome.run(*rest))
            return done
        finally:
            _current.context = None
            with self._contexts_lock:
                self._contexts.pop(key, None)
            _forget_thread()

    def stop(self, timeout: float, drain: bool = False) -> None:
        """Stops the worker. :class:`TaskStopped` is raised in tasks that still run after two fifths of the
        time; processes that continue a second later are killed."""
        own = getattr(_current, "context", None)
        if own is not None and own in self.running():
            raise OutlastError("a task cannot stop its own worker: stop() would wait for the task")
        with self._lock:
            agent = self._agent
            if agent is None or agent.closed:
                return
            until = time.monotonic() + timeout
            agent.ask_end(drain)
            gentle = timeout if drain else min(5.0, timeout * 0.4)
            ended = agent.wait_ended(gentle)
            if ended is None and drain:
                agent.ask_end(False)
            level = 1
            while ended is None and time.monotonic() < until:
                agent.hurry(level)
                level = 2
                for context in self.running():
                    context._raw.interrupt()
                ended = agent.wait_ended(min(1.0, max(0.05, until - time.monotonic())))
            stuck = [context.task_id for context in self.running()] if ended is None else []
            self.stats()
            # Tasks that did not end are run again by the next process that opens the folder.
            agent.close(max(2.0, until - time.monotonic()) if ended else 0.5)
            _live.discard(self)
        if ended is None:
            names = ", ".join(stuck) or "the worker"
            raise OutlastError(
                f"{names} did not end within {timeout:g} s and keeps its thread, and this process"
                " the state folder, until it does"
            )


def _forget_thread() -> None:
    """Python before 3.12 keeps an entry for each foreign thread that has ended."""
    active = getattr(threading, "_active", {})
    if isinstance(active.get(threading.get_ident()), threading._DummyThread):
        active.pop(threading.get_ident(), None)


def _goes_on(task_id: str, attempt: int, what: str) -> None:
    log.error(
        "task %s %s, and attempt %d continues although TaskStopped was raised in it: it is in a call"
        " that does not return to Python code, or catches everything. It keeps its slot until it"
        " ends; with isolation in processes it would have been killed",
        task_id, what, attempt,
    )  # fmt: skip
    _forget_thread()


def _told(state: str, reason: str) -> None:
    mark = "RECONNECT" if state in ("DISCONNECTED", "FAILED") else "CONNECT"
    text = f"{state.lower()}: {reason}" if reason else state.lower()
    log.log(_LEVELS.get(state, logging.DEBUG), "%s %s", mark, text)
    _forget_thread()
