"""Submits tasks and fetches their results."""

from __future__ import annotations

import collections
import itertools
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping, Optional, Sized
from typing import TypeVar, Union

from . import _calls, _config, _data, _process, _tables, documents
from .errors import NotFound, TaskCancelled, TaskFailed

if TYPE_CHECKING:
    from ._outlast import Follower

T = TypeVar("T")

# Tasks of a map that are submitted ahead.
_PART = 500
# Minimum time in seconds for the coordinator to answer, however short a timeout is.
_LEAST = 0.1


class Task:
    """A submitted task. The handle is only its id: another process can create it with
    :meth:`Client.get`."""

    def __init__(self, client: Client, task_id: str, new: Optional[bool] = None) -> None:
        self._client = client
        #: The task's id.
        self.id = task_id
        #: Whether the submission created it (False: it existed already); None if that is unknown.
        self.new = new
        self._end: Optional[documents.TaskResult] = None

    def __repr__(self) -> str:
        return f"<Task {self.id}>"

    def _repr_html_(self) -> str:
        return _tables.document(_tables.brief(self.info(), "task"))

    def result(self, timeout: Optional[float] = None) -> Any:
        """See :meth:`Client.result`."""
        return self._client._value(self.wait(timeout))

    def wait(self, timeout: Optional[float] = None) -> documents.TaskResult:
        """See :meth:`Client.wait`."""
        return self._end or self._client.wait(self.id, timeout)

    def cancel(self) -> None:
        """See :meth:`Client.cancel`."""
        self._client.cancel(self.id)

    def history(self) -> list[documents.HistoryEvent]:
        """See :meth:`Client.history`."""
        return self._client.history(self.id)

    def state(self) -> documents.TaskStateView:
        """See :meth:`Client.state`."""
        return self._client.state(self.id)

    def info(self) -> documents.Task:
        """The task's document."""
        return self._client.info(self.id)


class Client:
    """A coordinator's interface for its users. Safe to use from several threads.

    Every request is repeated while the coordinator cannot be reached, for ``patience`` seconds;
    submissions carry their ids, so that repeating them does no harm. All methods wait with the GIL
    released, can be interrupted by Ctrl-C, and raise :class:`~outlast.Unreachable`,
    :class:`~outlast.Refused` or :class:`~outlast.NotFound`.

    :param url: address of the coordinator; default: ``$OUTLAST_COORDINATOR``, else the local one.
    :param api_key: key of role submit or operate; default: ``$OUTLAST_API_KEY``, the key in the file
        ``$OUTLAST_API_KEY_FILE``, or that of this user's own coordinator on this machine.
    :param ca: PEM file of additional trusted authorities.
    :param allow_pickle: whether to load results that are pickles. Loading a pickle runs code from it: pass
        False if you do not trust the workers.
    :param functions: how Python functions are sent: ``"import"``, by their path ``module:name``, which
        the worker imports; ``"cloudpickle"``, by value, to a worker of the same Python version; or
        ``"auto"``: by path for top-level functions of a module, otherwise (functions of a script or session,
        nested functions) by value.
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
        from ._outlast import Client as Raw

        url = url or os.environ.get("OUTLAST_COORDINATOR") or "http://127.0.0.1:7117"
        key = _config.api_key(api_key)
        ca = os.fspath(ca) if ca is not None else None
        self._raw = Raw(_config.address(url), key, ca, patience)
        self.url: str = self._raw.url
        self._allow_pickle = allow_pickle
        self._functions = _calls.way(functions)

    def __repr__(self) -> str:
        return f"<Client {self.url}>"

    def submit(self, spec: Mapping[str, Any]) -> Task:
        """Submits a task as the HTTP API describes it, for example ``{"command": ["echo", "hello"],
        "max_retries": 3}``. With an ``id``, the same submission again finds the same task.

        :raises InvalidData: if it is not a valid task.
        """
        return self._submit(json.dumps(dict(spec)))

    def _submit(self, text: str) -> Task:
        _process.leave_import()
        document, new = self._raw.submit(text)
        return Task(self, json.loads(document)["id"], new)

    def submit_call(
        self,
        function: Union[str, Callable[..., Any]],
        *args: Any,
        spec: Optional[Mapping[str, Any]] = None,
        **kwargs: Any,
    ) -> Task:
        """Submits a call of a worker's function by its name, or of a Python function, which any
        :class:`outlast.Worker` can run.

        Arguments of a call by name are sent as JSON where possible (tuples become lists), otherwise as a
        pickle; keyword arguments alone become the JSON object that ``execute_task`` of a plugin gets as its
        config. A Python function gets exactly the given arguments, and its result is returned exactly, with a
        pickle where JSON would change it.

        :param spec: the rest of the task, such as ``{"id": …, "queue": …, "max_retries": …}``.
        :raises SerializationError: if a value can be neither JSON nor a pickle.
        :raises InvalidData: if it is larger than a task may be (256 KiB).
        """
        called = self._function(function)
        return self._submit(_head(called, spec) + called.arguments(args, kwargs) + "}}")

    def _function(self, function: Union[str, Callable[..., Any]]) -> _calls.Function:
        return _calls.Function(function, self._functions, self._allow_pickle)

    def map(
        self,
        function: Union[str, Callable[..., Any]],
        items: Iterable[Any],
        *,
        kwargs: Optional[Mapping[str, Any]] = None,
        spec: Optional[Mapping[str, Any]] = None,
        timeout: Optional[float] = None,
        window: int = 4000,
        return_exceptions: bool = False,
        progress: Union[bool, str] = False,
    ) -> Iterator[Any]:
        """Calls a function with each item and yields the results in order, each as soon as it and those
        before it are available. The first ``window`` tasks are submitted before this returns, the others
        as results are consumed: items may be an unlimited iterable, and are not kept.

        :param kwargs: passed to each call in addition to its item.
        :param timeout: seconds for all of them, from now on.
        :param window: number of submitted tasks whose results were not consumed.
        :param return_exceptions: yield the :class:`~outlast.TaskFailed` of a failed task in place of its
            result, and continue.
        :param progress: True, or a description, shows a bar in a terminal (needs tqdm).
        :raises TaskFailed: by the iterator, for a failed task. Submitted tasks continue.
        :raises TimeoutError: if not all have ended by then.
        """
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        called = self._function(function)
        head, given = _head(called, spec), kwargs or {}
        texts = (head + called.arguments((item,), given) + "}}" for item in items)
        results = self._stream(texts, timeout, window, return_exceptions)
        return _bar(results, progress, _length(items))

    def _stream(
        self, texts: Iterator[str], timeout: Optional[float], window: int, exceptions: bool
    ) -> Iterator[Any]:
        _process.leave_import()
        until = _until(timeout)
        follower = self._raw.follow()
        waiting: collections.deque[str] = collections.deque()
        part = max(1, min(_PART, window // 4))

        def fill() -> None:
            while len(waiting) <= window - part:
                batch = list(itertools.islice(texts, part))
                if not batch:
                    return
                limit = None if timeout is None else max(0.0, until - time.monotonic())
                ids = self._raw.submit_all(f"[{','.join(batch)}]", limit)
                if ids is None:
                    raise _not_all(timeout)
                waiting.extend(ids)
                follower.add(ids)

        fill()

        def results() -> Iterator[Any]:
            ended: dict[str, documents.TaskResult] = {}
            try:
                while waiting:
                    first = waiting[0]
                    while first not in ended:
                        ended.update((end["id"], end) for end in _next(follower, until, timeout))
                    waiting.popleft()
                    try:
                        value = self._value(ended.pop(first))
                    except TaskFailed as e:
                        if not exceptions:
                            raise
                        value = e
                    yield value
                    fill()
            finally:
                follower.close()

        return results()

    def as_completed(
        self,
        tasks: Iterable[Union[str, Task]],
        timeout: Optional[float] = None,
        *,
        progress: Union[bool, str] = False,
    ) -> Iterator[Task]:
        """Yields tasks in the order in which they end, whatever their outcome; ``result()`` returns at once.

        :param timeout: seconds for all of them, from now on.
        :param progress: as in :meth:`map`.
        :raises TimeoutError: by the iterator, if not all have ended by then.
        """
        _process.leave_import()
        until = _until(timeout)
        left = {_id(task): task if isinstance(task, Task) else Task(self, task) for task in tasks}
        follower = self._raw.follow()
        follower.add(list(left))

        def ended() -> Iterator[Task]:
            try:
                while left:
                    for end in _next(follower, until, timeout):
                        task = left.pop(end["id"])
                        if _data.is_unknown(end):
                            raise NotFound(f"there is no task {task.id}", 404)
                        task._end = end
                        yield task
            finally:
                follower.close()

        return _bar(ended(), progress, len(left))

    def wait_all(
        self,
        tasks: Iterable[Union[str, Task]],
        timeout: Optional[float] = None,
        *,
        progress: Union[bool, str] = False,
    ) -> list[documents.TaskResult]:
        """The ends of tasks, whatever their outcomes, in the order of the tasks: the documents of :meth:`wait`.

        :param timeout: seconds for all of them.
        :param progress: as in :meth:`map`.
        :raises TimeoutError: if not all have ended by then.
        """
        handles = list(tasks)
        ended = {t.id: t.wait() for t in self.as_completed(handles, timeout, progress=progress)}
        return _tables.Rows([ended[_id(task)] for task in handles], "result")

    def get(self, task_id: str) -> Task:
        """A handle of a task that was submitted before. Sends no request."""
        return Task(self, task_id)

    def wait(
        self, task: Union[str, Task], timeout: Optional[float] = None
    ) -> documents.TaskResult:
        """The end of a task, whatever its outcome: the document of the HTTP API, with ``state``, ``value``,
        ``message``, ``worker``, ``attempt``…

        :param timeout: seconds; None waits indefinitely. 0 checks whether the task has ended; the coordinator
            then has a tenth of a second to answer.
        :raises TimeoutError: if the task is not known to have ended by then.
        """
        _process.leave_import()
        until = _until(timeout)
        while True:
            left = max(0.0, until - time.monotonic())
            limit = None if timeout is None else max(left, _LEAST)
            found = self._raw.result(_id(task), math.ceil(min(30.0, left)), limit)
            if found is not None:
                return _data.read_end(found)
            if until - time.monotonic() <= 0:
                raise TimeoutError(f"task {_id(task)} has not ended within {timeout:g} s")

    def result(self, task: Union[str, Task], timeout: Optional[float] = None) -> Any:
        """The function's result; for a command, the document of :meth:`wait`.

        :raises TaskFailed: with the worker's message and traceback; its ``__cause__`` is the original
            exception, if it could be pickled and pickles are allowed.
        :raises TaskCancelled: if it was cancelled.
        :raises TimeoutError: if it has not ended within ``timeout`` seconds.
        """
        return self._value(self.wait(task, timeout))

    def _value(self, end: documents.TaskResult) -> Any:
        value = end.get("value")
        if end["state"] == "succeeded":
            if value is None and end.get("exit_code") is not None:
                return end
            return _data.from_result(value, self._allow_pickle)
        told = value if isinstance(value, dict) else {}
        if _data.is_unknown(end):
            raise NotFound(f"there is no task {end['id']}", 404)
        kind = TaskCancelled if end["state"] == "cancelled" else TaskFailed
        message = end.get("message") or told.get("message") or end["state"]
        error = kind(end["id"], message, told.get("traceback") or None, end)
        raise error from self._cause(told.get("exception"))

    def _cause(self, data: Any) -> Optional[BaseException]:
        """The exception that the function raised, if it was sent along and can be loaded here."""
        if not isinstance(data, str) or not self._allow_pickle:
            return None
        try:
            cause = _calls.unpickled(data)
        except Exception:
            return None  # its class is not available
        return cause if isinstance(cause, BaseException) else None

    def cancel(self, task: Union[str, Task]) -> None:
        """Cancels a task; a running one notices when it next reports."""
        self._raw.cancel(_id(task))

    def retry(self, task: Union[str, Task]) -> None:
        """Runs a failed or cancelled task again."""
        if isinstance(task, Task):
            task._end = None
        self._raw.retry(_id(task))

    def pause(self, task: Union[str, Task]) -> None:
        """Pauses a task; a running one waits when it next reports."""
        self._raw.pause(_id(task))

    def resume(self, task: Union[str, Task]) -> None:
        """Resumes a paused task."""
        self._raw.resume(_id(task))

    def history(self, task: Union[str, Task]) -> list[documents.HistoryEvent]:
        """The events of a task, in order."""
        found: documents.History = json.loads(self._raw.history(_id(task)))
        return _tables.Rows(found["events"], "event")

    def explain(self, task: Union[str, Task]) -> documents.Explanation:
        """The history of a task in sentences."""
        return json.loads(self._raw.explain(_id(task)))

    def state(self, task: Union[str, Task]) -> documents.TaskStateView:
        """The last state that a task reported: ``state``, ``progress``…"""
        return json.loads(self._raw.state(_id(task)))

    def checkpoints(self, task: Union[str, Task]) -> list[documents.Checkpoint]:
        """The checkpoints of a task, including those that were removed."""
        found: documents.CheckpointList = json.loads(self._raw.checkpoints(_id(task)))
        return _tables.Rows(found["checkpoints"], "checkpoint")

    def info(self, task: Union[str, Task]) -> documents.Task:
        """The document of a task."""
        return json.loads(self._raw.task(_id(task)))

    def tasks(
        self, *states: str, labels: Optional[Mapping[str, str]] = None
    ) -> Iterator[documents.Task]:
        """Tasks in these states (default: all), newest first. Jupyter displays the first hundred as a
        table."""
        return _tables.Pages(lambda cursor: self._page(states, labels, cursor), "task")

    def _page(
        self, states: tuple[str, ...], labels: Optional[Mapping[str, str]], cursor: Optional[str]
    ) -> tuple[list[documents.Task], Optional[str]]:
        pairs = list((labels or {}).items())
        page: documents.TaskList = json.loads(self._raw.tasks(list(states), pairs, None, cursor))
        return page["tasks"], page["next"]

    def workers(self) -> list[documents.Worker]:
        """All workers."""
        found: documents.WorkerList = json.loads(self._raw.workers())
        return _tables.Rows(found["workers"], "worker")

    def counts(self) -> documents.CountsView:
        """The number of tasks in each state."""
        return json.loads(self._raw.counts())


def _head(called: _calls.Function, spec: Optional[Mapping[str, Any]]) -> str:
    """The JSON text of a task up to the arguments of its call."""
    rest = dict(spec or {})
    if called.requires:
        rest["requires"] = {**called.requires, **rest.get("requires", {})}
    rest.pop("call", None)
    text = json.dumps(rest)[:-1]
    comma = ", " if rest else ""
    return f'{text}{comma}"call": {{"function": {json.dumps(called.name)}, "args": '


def _until(timeout: Optional[float]) -> float:
    return math.inf if timeout is None else time.monotonic() + timeout


def _not_all(timeout: Optional[float]) -> TimeoutError:
    return TimeoutError(f"not all tasks have ended within {timeout:g} s")


def _next(
    follower: Follower, until: float, timeout: Optional[float]
) -> list[documents.TaskResult]:
    left = until - time.monotonic()
    if left <= 0:
        raise _not_all(timeout)
    return [_data.read_end(end) for end in follower.next(min(left, 3600.0))]


def _length(items: Iterable[Any]) -> Optional[int]:
    return len(items) if isinstance(items, Sized) else None


def _bar(of: Iterator[T], wanted: Union[bool, str], total: Optional[int]) -> Iterator[T]:
    if not wanted:
        return of
    from .progress import bar

    return bar(of, wanted, total)


def _id(task: Union[str, Task]) -> str:
    return task.id if isinstance(task, Task) else task
