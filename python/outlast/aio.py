"""The client for asyncio programs.

Requests run in the extension's runtime, at most 64 at a time per event loop; all awaited tasks share
one request. Its threads never enter Python: the loop watches a socket and fetches the answers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Generator, Iterable, Mapping
from typing import Optional, Union

from . import _data, _tables, documents
from .client import _LEAST, Client, _head
from .errors import StoppedError, TaskFailed

if TYPE_CHECKING:
    from ._outlast import Mailbox

# Tasks of a map that are submitted ahead.
_PART = 500


class AsyncTask:
    """A submitted task. ``await task`` returns its result. The handle is only its id: another process
    can create it with :meth:`AsyncClient.get`."""

    def __init__(self, client: AsyncClient, task_id: str, new: Optional[bool] = None) -> None:
        self._client = client
        #: The task's id.
        self.id = task_id
        #: Whether the submission created it (False: it existed already); None if that is unknown.
        self.new = new
        self._end: Optional[documents.TaskResult] = None

    def __repr__(self) -> str:
        return f"<AsyncTask {self.id}>"

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    async def result(self, timeout: Optional[float] = None) -> Any:
        """See :meth:`AsyncClient.result`."""
        return self._client._sync._value(await self.wait(timeout))

    async def wait(self, timeout: Optional[float] = None) -> documents.TaskResult:
        """See :meth:`AsyncClient.wait`."""
        return self._end or await self._client.wait(self.id, timeout)

    async def cancel(self) -> None:
        """See :meth:`AsyncClient.cancel`."""
        await self._client.cancel(self.id)

    async def history(self) -> list[documents.HistoryEvent]:
        """See :meth:`AsyncClient.history`."""
        return await self._client.history(self.id)

    async def state(self) -> documents.TaskStateView:
        """See :meth:`AsyncClient.state`."""
        return await self._client.state(self.id)

    async def info(self) -> documents.Task:
        """See :meth:`AsyncClient.info`."""
        return await self._client.info(self.id)


class _Line:
    """One event loop's requests."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: Client) -> None:
        from ._outlast import Mailbox

        self.loop = loop
        self.raw = Mailbox(client._raw)
        self.process = os.getpid()
        self._futures: dict[int, asyncio.Future[str]] = {}
        self._numbers = itertools.count()
        self._closed = False
        loop.add_reader(self.raw.fileno(), _drain, weakref.ref(self))

    def begin(self, op: str, args: str) -> asyncio.Future[str]:
        """A future for the answer. Cancelling it cancels the request."""
        number = next(self._numbers)
        future: asyncio.Future[str] = self.loop.create_future()
        self._futures[number] = future
        future.add_done_callback(lambda _: self._over(number))
        try:
            if op == "wait":
                self.raw.wait(number, args)
            else:
                self.raw.ask(number, op, args)
        except BaseException:
            future.cancel()
            raise
        return future

    def _over(self, number: int) -> None:
        if self._futures.pop(number, None) is not None:
            self.raw.forget(number)

    def drain(self) -> None:
        for number, text, error in self.raw.drain():
            future = self._futures.pop(number, None)
            if future is None or future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(text or "")

    def close(self) -> None:
        """Runs in its own loop, or after that was closed."""
        self._closed = True
        _release(self.loop, self.raw)
        for future in list(self._futures.values()):
            if not future.done() and not self.loop.is_closed():
                future.set_exception(StoppedError("the client was closed"))
        self._futures.clear()


    def __del__(self) -> None:
        # The loop must not watch a descriptor that the system may reuse.
        if not getattr(self, "_closed", True) and not self.loop.is_closed():
            try:
                self.loop.call_soon_threadsafe(_release, self.loop, self.raw)
            except RuntimeError:
                pass  # closed just now


def _release(loop: asyncio.AbstractEventLoop, raw: Mailbox) -> None:
    if not loop.is_closed():
        loop.remove_reader(raw.fileno())
    raw.close()


def _drain(line: weakref.ref[_Line]) -> None:
    found = line()
    if found is not None:
        found.drain()


class AsyncClient:
    """A coordinator's interface for asyncio programs, with the methods of :class:`~outlast.Client`::

        async with outlast.AsyncClient() as client:
            task = await client.submit_call("add", 1, 2)
            print(await task)

    One client serves any number of event loops. Cancelling a waiting coroutine cancels its request, and
    nothing else: the task continues (:meth:`cancel` ends it), and a submission in flight may have arrived:
    give it an ``id`` if you repeat it.

    Every request is repeated while the coordinator cannot be reached, for ``patience`` seconds. All
    methods raise :class:`~outlast.Unreachable`, :class:`~outlast.Refused` or
    :class:`~outlast.NotFound`, and :class:`~outlast.StoppedError` after :meth:`aclose`. Parameters
    are those of :class:`~outlast.Client`.

    :raises ConfigurationError: if something cannot be used.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        api_key: Optional[str] = None,
        ca: Union[str, os.PathLike[str], None] = None,
        patience: float = 60.0,
        allow_pickle: bool = True,
        functions: str = "auto",
    ) -> None:
        self._sync = Client(
            url,
            api_key=api_key,
            ca=ca,
            patience=patience,
            allow_pickle=allow_pickle,
            functions=functions,
        )
        #: The coordinator's address.
        self.url = self._sync.url
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<AsyncClient {self.url}>"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancels all requests; their callers get :class:`~outlast.StoppedError`. Tasks continue."""
        self._closed = True
        with self._lock:
            lines = list(self._lines.values())
            self._lines.clear()
        here = asyncio.get_running_loop()
        for line in lines:
            if line.loop is here or line.loop.is_closed():
                line.close()
            else:
                try:
                    line.loop.call_soon_threadsafe(line.close)
                except RuntimeError:  # closed just now
                    line.raw.close()

    def _line(self) -> _Line:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise StoppedError("the client was closed")
        with self._lock:
            line = self._lines.get(loop)
            if line is None or line.process != os.getpid():
                for other in [one for one in self._lines if one.is_closed()]:
                    self._lines.pop(other).close()
                line = self._lines[loop] = _Line(loop, self._sync)
            return line

    async def _ask(self, op: str, *args: Any) -> Any:
        return json.loads(await self._line().begin(op, json.dumps(args)))

    async def submit(self, spec: Mapping[str, Any]) -> AsyncTask:
        """Submits a task as the HTTP API describes it; see :meth:`outlast.Client.submit`.

        :raises InvalidData: if it is not a valid task.
        """
        return await self._submit(json.dumps(dict(spec)))

    async def _submit(self, text: str) -> AsyncTask:
        task_id, new = json.loads(await self._line().begin("submit", text))
        return AsyncTask(self, task_id, new)

    async def submit_call(
        self,
        function: Union[str, Callable[..., Any]],
        *args: Any,
        spec: Optional[Mapping[str, Any]] = None,
        **kwargs: Any,
    ) -> AsyncTask:
        """Submits a call; see :meth:`outlast.Client.submit_call`.

        :raises SerializationError: if a value can be neither JSON nor a pickle.
        :raises InvalidData: if it is larger than a task may be (256 KiB).
        """
        called = self._sync._function(function)
        return await self._submit(_head(called, spec) + called.arguments(args, kwargs) + "}}")

    async def map(
        self,
        function: Union[str, Callable[..., Any]],
        items: Iterable[Any],
        *,
        kwargs: Optional[Mapping[str, Any]] = None,
        spec: Optional[Mapping[str, Any]] = None,
        timeout: Optional[float] = None,
        window: int = 4000,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Any]:
        """Calls a function with each item and yields the results in order (``async for``), each as soon as it
        and those before it are available. Nothing is submitted before the first is requested, and at most
        ``window`` tasks are ahead of the results that were consumed.

        :param kwargs: passed to each call in addition to its item.
        :param timeout: seconds for all of them, from the first step on.
        :param window: number of submitted tasks whose results were not consumed.
        :param return_exceptions: yield the :class:`~outlast.TaskFailed` of a failed task in place of its
            result, and continue.
        :raises TaskFailed: for a failed task. Submitted tasks continue.
        :raises TimeoutError: if not all have ended by then.
        """
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        called = self._sync._function(function)
        head, given = _head(called, spec), kwargs or {}
        texts = (head + called.arguments((item,), given) + "}}" for item in items)
        until = _until(timeout)
        part = max(1, min(_PART, window // 4))
        waiting: list[asyncio.Future[str]] = []
        at, more = 0, True
        try:
            while True:
                while more and len(waiting) - at <= window - part:
                    batch = list(itertools.islice(texts, part))
                    more = len(batch) == part
                    if batch:
                        line = self._line()
                        handed = line.begin("submit_all", f"[{','.join(batch)}]")
                        ids = json.loads(await _within(handed, until, timeout))
                        del waiting[:at]
                        at = 0
                        waiting.extend(line.begin("wait", task_id) for task_id in ids)
                if at == len(waiting):
                    return
                end = _data.read_end(await _within(waiting[at], until, timeout))
                at += 1
                try:
                    value = self._sync._value(end)
                except TaskFailed as e:
                    if not return_exceptions:
                        raise
                    value = e
                yield value
        finally:
            for future in waiting[at:]:
                future.cancel()

    async def as_completed(
        self, tasks: Iterable[Union[str, AsyncTask]], timeout: Optional[float] = None
    ) -> AsyncIterator[AsyncTask]:
        """Yields tasks in the order in which they end, whatever their outcome (``async for``); ``await task``
        returns at once.

        :param timeout: seconds for all of them, from the first step on.
        :raises TimeoutError: if not all have ended by then.
        """
        until = _until(timeout)
        line = self._line()
        ended: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()
        left: dict[asyncio.Future[str], AsyncTask] = {}
        try:
            for task in tasks:
                handle = task if isinstance(task, AsyncTask) else AsyncTask(self, task)
                future = line.begin("wait", handle.id)
                left[future] = handle
                future.add_done_callback(ended.put_nowait)
            while left:
                getting = asyncio.ensure_future(ended.get())
                future = await _within(getting, until, timeout)
                handle = left.pop(future)
                handle._end = _data.read_end(future.result())
                yield handle
        finally:
            for future in left:
                future.cancel()

    def get(self, task_id: str) -> AsyncTask:
        """A handle of a task that was submitted before. Sends no request."""
        return AsyncTask(self, task_id)

    async def wait(
        self, task: Union[str, AsyncTask], timeout: Optional[float] = None
    ) -> documents.TaskResult:
        """The end of a task, whatever its outcome; see :meth:`outlast.Client.wait`.

        :param timeout: seconds; None waits indefinitely. 0 checks whether the task has ended; the coordinator
            then has a tenth of a second to answer.
        :raises TimeoutError: if the task is not known to have ended by then.
        """
        future = self._line().begin("wait", _id(task))
        until = _until(None if timeout is None else max(timeout, _LEAST))
        return _data.read_end(await _within(future, until, timeout, _id(task)))

    async def result(self, task: Union[str, AsyncTask], timeout: Optional[float] = None) -> Any:
        """The function's result; for a command, the document of :meth:`wait`.

        :raises TaskFailed: with the worker's message and traceback.
        :raises TaskCancelled: if it was cancelled.
        :raises TimeoutError: if it has not ended within ``timeout`` seconds.
        """
        return self._sync._value(await self.wait(task, timeout))

    async def cancel(self, task: Union[str, AsyncTask]) -> None:
        """Cancels a task; a running one notices when it next reports."""
        await self._ask("cancel", _id(task))

    async def retry(self, task: Union[str, AsyncTask]) -> None:
        """Runs a failed or cancelled task again."""
        if isinstance(task, AsyncTask):
            task._end = None
        await self._ask("retry", _id(task))

    async def pause(self, task: Union[str, AsyncTask]) -> None:
        """Pauses a task; a running one waits when it next reports."""
        await self._ask("pause", _id(task))

    async def resume(self, task: Union[str, AsyncTask]) -> None:
        """Resumes a paused task."""
        await self._ask("resume", _id(task))

    async def history(self, task: Union[str, AsyncTask]) -> list[documents.HistoryEvent]:
        """The events of a task, in order."""
        found: documents.History = await self._ask("history", _id(task))
        return _tables.Rows(found["events"], "event")

    async def explain(self, task: Union[str, AsyncTask]) -> documents.Explanation:
        """The history of a task in sentences."""
        return await self._ask("explain", _id(task))

    async def state(self, task: Union[str, AsyncTask]) -> documents.TaskStateView:
        """The last state that a task reported: ``state``, ``progress``…"""
        return await self._ask("state", _id(task))

    async def checkpoints(self, task: Union[str, AsyncTask]) -> list[documents.Checkpoint]:
        """The checkpoints of a task, including those that were removed."""
        found: documents.CheckpointList = await self._ask("checkpoints", _id(task))
        return _tables.Rows(found["checkpoints"], "checkpoint")

    async def info(self, task: Union[str, AsyncTask]) -> documents.Task:
        """The document of a task."""
        return await self._ask("task", _id(task))

    async def tasks(
        self, *states: str, labels: Optional[Mapping[str, str]] = None
    ) -> AsyncIterator[documents.Task]:
        """Tasks in these states (default: all), newest first (``async for``)."""
        query: dict[str, Any] = {"states": states, "labels": list((labels or {}).items())}
        cursor = None
        while True:
            text = json.dumps({**query, "cursor": cursor})
            page: documents.TaskList = json.loads(await self._line().begin("tasks", text))
            for task in page["tasks"]:
                yield task
            cursor = page["next"]
            if not cursor:
                return

    async def workers(self) -> list[documents.Worker]:
        """All workers."""
        found: documents.WorkerList = await self._ask("workers")
        return _tables.Rows(found["workers"], "worker")

    async def counts(self) -> documents.CountsView:
        """The number of tasks in each state."""
        return await self._ask("counts")


def _until(timeout: Optional[float]) -> float:
    return math.inf if timeout is None else asyncio.get_running_loop().time() + timeout


async def _within(
    future: asyncio.Future[Any], until: float, timeout: Optional[float], task: str = ""
) -> Any:
    """The future's result, if it is available by then; the future is cancelled otherwise."""
    if until == math.inf:
        return await future
    left = until - asyncio.get_running_loop().time()
    try:
        return await asyncio.wait_for(future, max(0.0, left))
    except asyncio.TimeoutError:
        what = f"task {task} has not" if task else "not all tasks have"
        raise TimeoutError(f"{what} ended within {timeout:g} s") from None


def _id(task: Union[str, AsyncTask]) -> str:
    return task.id if isinstance(task, AsyncTask) else task
