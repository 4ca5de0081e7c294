"""A process that runs a worker's tasks, one at a time, in its main thread.

The process starts clean, with a socket as its stdin, and imports the modules that the functions need,
including the worker's script. Frames on the socket (see ``child.rs``):

=====  =========================================================================================
``B``  to the process, first: settings of the worker's process, see ``_spawn.py``
``T``  to the process: a task
``D``  from the process: the task's result; ``F``: its failure; ``E``: why the process cannot work at all
``N``  from the process: request for a function by name; other kinds: requests of the task
``A``  to the process: the answer
=====  =========================================================================================

The process ends when the socket closes, and the kernel ends it with the worker. A terminal's Ctrl-C does not
reach it. The worker uses SIGURG to raise :class:`TaskStopped` in a task that does not check its control.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import types
from typing import Any, Callable, NoReturn, Optional

from . import _calls, _outcome, _process, errors
from .context import TaskContext, _current
from .errors import InvalidData, OutlastError, TaskNotRunning, TaskStopped

# Age in seconds up to which the known control of the task is used again.
_FRESH = 0.02
# Time in seconds for the worker, after a SIGTERM to all of its processes, to decide about the task.
_PATIENCE = 1.0
# Longest frame in bytes that the worker accepts.
_LONGEST = 16 << 20
# Size of a checkpoint in bytes from which on the worker reads it in this process's memory.
_LARGE = 256 << 10


class Link:
    """The socket, and the interruption of the main thread while it does not use the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._in = sock.makefile("rb", buffering=64 << 10)
        self._lock = threading.Lock()
        self._process = os.getpid()
        self.running = False
        self._guarded = False
        self._pending = False

    def is_mine(self) -> bool:
        """Reports whether this is the process that was started with the socket, and not a fork of it."""
        return self._process == os.getpid()

    def send(self, kind: bytes, payload: bytes) -> None:
        self._sock.sendall(struct.pack("<I", len(payload)) + kind + payload)

    def receive(self) -> Optional[tuple[bytes, bytes]]:
        head = self._in.read(5)
        if len(head) < 5:
            return None
        payload = self._in.read(struct.unpack("<I", head[:4])[0])
        return head[4:], payload

    def ask(self, kind: bytes, payload: bytes) -> dict[str, Any]:
        """A request of the running task, from any of its threads."""
        if not self.is_mine():
            raise OutlastError("a process that a task forked has no connection to the worker")
        if len(payload) > _LONGEST:
            raise InvalidData(f"a message of {len(payload)} bytes is longer than {_LONGEST}")
        mine = threading.current_thread() is threading.main_thread()
        # An exception in the middle of a frame would leave the rest of it unread.
        self._guarded = self._guarded or mine
        try:
            with self._lock:
                self.send(kind, payload)
                answer = self.receive()
        finally:
            if mine:
                self._guarded = False
        if mine and self._pending:
            self._pending = False
            raise _stopped()
        if answer is None:
            os._exit(1)  # the worker has ended, and its successor runs the task again
        return json.loads(answer[1])

    def interrupt(self, *_: Any) -> None:
        if self._guarded:
            self._pending = True
        elif self.running and self.is_mine():
            raise _stopped()


def _stopped() -> TaskStopped:
    return TaskStopped("the task did not react to a request to stop")


class Raw:
    """Represents the attempt in a :class:`TaskContext`, like ``_outlast.Context`` in the worker's
    process."""

    args = "null"

    def __init__(self, link: Link, job: dict[str, Any]) -> None:
        self._link: Optional[Link] = link
        self.task_id: str = job["id"]
        self.attempt: int = job["attempt"]
        self.function: str = job["function"]
        self.traceparent: Optional[str] = job["traceparent"]
        self.tracestate: Optional[str] = job["tracestate"]
        self._control: tuple[bool, bool, int] = (False, False, 0)
        self._known_at = time.monotonic()

    def over(self) -> None:
        self._link = None

    def _ask(self, op: str, **more: Any) -> Any:
        link = self._link
        if link is None:
            raise TaskNotRunning(f"attempt {self.attempt} of task {self.task_id} has ended")
        answer = link.ask(b"Q", json.dumps({"op": op, **more}).encode())
        cancel, pause, asked = answer["control"]
        self._control, self._known_at = (cancel, pause, asked), time.monotonic()
        return _answered(answer)

    def checkpoint(self, data: Any, meta: str) -> str:
        """The data of a checkpoint as bytes, or a list of such."""
        parts = data if isinstance(data, (list, tuple)) else [data]
        if sum(map(len, parts)) >= _LARGE:
            # The worker reads it in place, if the system permits.
            from ._outlast import Held

            held = Held(parts)
            where = {"pid": os.getpid(), "parts": held.parts}
            made = self._ask("checkpoint_memory", meta=json.loads(meta), **where)
            del held
            if made is not None:
                return str(made)
        with _Memory() as memory:
            for part in parts:
                memory.write(part)
            return self._ask("checkpoint", path=memory.path, meta=json.loads(meta))

    def checkpoint_path(self, path: Any, meta: str) -> str:
        path = os.path.abspath(os.fspath(path))
        return self._ask("checkpoint_path", path=path, meta=json.loads(meta))

    def latest_checkpoint(self) -> Optional[tuple[str, str, Any]]:
        with _Memory() as memory:
            found = self._ask("restore", path=memory.path)
            if found is None:
                return None
            checkpoint, meta, size = found
            return checkpoint, json.dumps(meta), memory.read(size)

    def update_state(self, patch: str, progress: Optional[float] = None) -> None:
        self._ask("state", patch=json.loads(patch), progress=progress)

    def artifact(self, name: str, path: Any) -> None:
        self._ask("artifact", name=name, path=os.path.abspath(os.fspath(path)))

    def control(self) -> tuple[bool, bool, int]:
        if self._link is not None and time.monotonic() - self._known_at > _FRESH:
            self._ask("control")
        return self._control


class _Memory:
    """A file in memory that the worker opens through this process's list of files, so that large data
    need not pass through the socket."""

    def __enter__(self) -> _Memory:
        self._file = os.memfd_create("outlast")
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self._file)

    def write(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(self._file, view) :]

    def read(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        at = 0
        while at < size:
            read = os.preadv(self._file, [view[at:]], at)
            if read == 0:
                raise OutlastError(f"the checkpoint ended after {at} of {size} bytes")
            at += read
        return data


def _answered(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        name, text = answer["error"]
        raise getattr(errors, name, OutlastError)(text)
    return answer["ok"]


class Functions:
    """The worker's functions, resolved by name when a task first needs them."""

    def __init__(self, link: Link, boot: dict[str, Any]) -> None:
        self._link = link
        self._allow_pickle: bool = boot["allow_pickle"]
        self._known: dict[str, tuple[int, Callable[..., Any], Optional[str]]] = {}
        self._main: Optional[dict[str, Any]] = None
        self._main_failed = ""

    def import_main(self, main: dict[str, Any]) -> None:
        """Imports the worker's script under another name, like ``multiprocessing``."""
        if self._main is not None:
            return
        self._main = main
        module = types.ModuleType("__mp_main__")
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module
        _process.importing = True
        try:
            code = _code(main, module)
            exec(code, module.__dict__)
        except _process.ImportEnds:
            pass
        except BaseException as e:
            # The function may have been defined nevertheless.
            self._main_failed = _outcome.failure(e)[0]
        finally:
            _process.importing = False

    def get(self, name: str, version: int) -> tuple[Callable[..., Any], Optional[str]]:
        known = self._known.get(name)
        if known is None or known[0] != version:
            said = json.loads(_answered(self._link.ask(b"N", name.encode())))
            known = self._known[name] = (version, *self._made(name, said))
        return known[1:]

    def _made(self, name: str, said: dict[str, Any]) -> tuple[Callable[..., Any], Optional[str]]:
        if said["how"] == "value":
            return _calls.loaded(said["data"])
        if said["how"] == "main":
            self.import_main(said["main"])
            module: Any = sys.modules["__main__"]
        else:
            module = __import__(said["module"], fromlist=["*"])
        function = self._registered(name, module.__name__, said["qualname"])
        if function is None:
            try:
                function = _calls.find(module, said["qualname"])
            except AttributeError as e:
                raise OutlastError(self._missing(said, e)) from None
        return function, _calls.wants_context(function)

    def _registered(self, name: str, module: str, qualname: str) -> Optional[Callable[..., Any]]:
        """The function as the decorator received it, whatever the module binds to its name later."""
        for known, function in reversed(_process.registered):
            if known == name and getattr(function, "__qualname__", None) == qualname:
                if function.__module__ == module:
                    return function
        return None

    def _missing(self, said: dict[str, Any], error: AttributeError) -> str:
        if said["how"] != "main":
            return f"the task's process has no {said['module']}:{said['qualname']}: {error}"
        path = said["main"].get("path") or said["main"].get("module")
        why = (
            f"the task's process imported {path} and found no {said['qualname']} in it; define"
            " functions before the script starts its worker or submits anything"
        )
        if self._main_failed:
            failed = json.loads(self._main_failed)
            why = f"the task's process could not import {path}, which must do no harm when it is"
            why += ' imported (if __name__ == "__main__"):\n' + failed["traceback"]
        return why


def _code(main: dict[str, Any], module: types.ModuleType) -> Any:
    if main.get("module"):
        import importlib.util

        spec = importlib.util.find_spec(main["module"])
        if spec is None or spec.loader is None:
            raise ImportError(f"no module named {main['module']!r}", name=main["module"])
        module.__file__, module.__spec__, module.__package__ = spec.origin, spec, spec.parent
        loader: Any = spec.loader
        code = loader.get_code(main["module"])
        if code is None:
            raise ImportError(f"{main['module']} has no code")
        return code
    module.__file__ = main["path"]
    with open(main["path"], "rb") as file:
        return compile(file.read(), main["path"], "exec", dont_inherit=True)


def _die_with(parent: int) -> None:
    import ctypes

    death = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None, use_errno=True).prctl(death, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # the worker ended before


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _terminated(link: Link) -> Callable[..., None]:
    def handler(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not link.running or not link.is_mine():
            return _end()
        # A service manager ends all processes of a worker at once. The worker should know that it
        # stops before it sees a task die: such a task is run again.
        timer = threading.Timer(_PATIENCE, _end)
        timer.daemon = True
        timer.start()

    return handler


def _prepare(link: Link) -> dict[str, Any]:
    first = link.receive()
    if first is None:
        os._exit(1)
    boot: dict[str, Any] = json.loads(first[1])
    _die_with(boot["parent"])
    signal.signal(signal.SIGURG, link.interrupt)
    signal.signal(signal.SIGTERM, _terminated(link))
    for stream in (sys.stdout, sys.stderr):
        # The output of a task should not be lost with its process.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    if sys.stderr is not None:
        import faulthandler

        try:
            faulthandler.enable()
        except (OSError, ValueError, AttributeError):
            pass
    sys.path[:] = boot["path"]
    sys.argv[:] = boot["argv"]
    _process.in_child = True
    return boot


def _run(link: Link, functions: Functions, boot: dict[str, Any], job: dict[str, Any]) -> None:
    allow_pickle = boot["allow_pickle"]
    raw = Raw(link, job)
    context = TaskContext(raw, allow_pickle, boot["checkpoint_interval"])
    context.args = job["args"]

    def execute(context: TaskContext) -> Any:
        if _calls.is_python(context.args):
            found = _calls.brought(context.function, context.args, allow_pickle)
        else:
            found = functions.get(context.function, job["version"])
        try:
            return _calls.invoke(*found, context, allow_pickle)
        except SystemExit as e:
            if not link.is_mine():
                _leave(e.code)
            raise

    _current.context = context
    _trace(raw)
    try:
        link.running = True
        try:
            (good, told, message), stopped = _outcome.run(execute, context, allow_pickle, True)
        finally:
            link.running = False
        if not link.is_mine():
            # A process that the task forked, and that returned from the task: it sends no answer.
            if message and sys.stderr is not None:
                print(message, file=sys.stderr)
            _leave(None if good else 1)
    except TaskStopped as e:  # raised when the task had just ended
        link.running = False
        good, told, message, stopped = False, "", str(e), True
    _current.context = None
    with link._lock:
        # Threads that the task left running can send no more requests.
        raw.over()
        link._pending = False
        _flush()
        if good and len(told) < _LONGEST:
            return link.send(b"D", told.encode())
        if good:
            good, message = False, f"the result is {len(told)} bytes of JSON, which is too large"
            told = json.dumps({"message": message, "traceback": ""})
        said = {"message": message, "details": json.loads(told or "null"), "stopped": stopped}
        link.send(b"F", json.dumps(said).encode())


def _trace(raw: Raw) -> None:
    """Gives tracing libraries and child processes of the task the parent of their spans."""
    for name, value in (("TRACEPARENT", raw.traceparent), ("TRACESTATE", raw.tracestate)):
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _leave(code: Any) -> NoReturn:
    _flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def main() -> None:
    """Runs tasks until the worker closes the socket."""
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    link = Link(sock)
    boot = _prepare(link)
    functions = Functions(link, boot)
    try:
        if boot["main"] is not None:
            functions.import_main(boot["main"])
        while True:
            came = link.receive()
            if came is None:
                return
            _run(link, functions, boot, json.loads(came[1]))
    except KeyboardInterrupt:
        pass  # a signal to this process while it was idle
    except (BrokenPipeError, ConnectionResetError):
        pass  # the worker has ended
