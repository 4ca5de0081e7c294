"""Hands in tasks and gets their results."""

from __future__ import annotations

import json
import math
import os
import time
from typing import Any, Iterable, Iterator, Mapping, Optional, Sequence, Union

from . import _config, _data
from .errors import TaskCancelled, TaskFailed

_ARGS, _KWARGS = "$args", "$kwargs"


def _arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """As the worker's decorator takes them apart again."""
    if not args:
        return dict(kwargs)
    return {_ARGS: list(args), **({_KWARGS: dict(kwargs)} if kwargs else {})}


class Task:
    """A submitted task. The handle is only its id: another process may make it again by
    :meth:`Client.get`."""

    def __init__(self, client: Client, task_id: str, new: Optional[bool] = None) -> None:
        self._client = client
        #: The task's id.
        self.id = task_id
        #: Whether the submission made it (False: it was there already); None if that is unknown.
        self.new = new

    def __repr__(self) -> str:
        return f"<Task {self.id}>"

    def result(self, timeout: Optional[float] = None) -> Any:
        """See :meth:`Client.result`."""
        return self._client.result(self.id, timeout)

    def wait(self, timeout: Optional[float] = None) -> dict[str, Any]:
        """See :meth:`Client.wait`."""
        return self._client.wait(self.id, timeout)

    def cancel(self) -> None:
        """See :meth:`Client.cancel`."""
        self._client.cancel(self.id)

    def history(self) -> list[dict[str, Any]]:
        """See :meth:`Client.history`."""
        return self._client.history(self.id)

    def state(self) -> dict[str, Any]:
        """See :meth:`Client.state`."""
        return self._client.state(self.id)

    def info(self) -> dict[str, Any]:
        """What the coordinator shows of it."""
        return self._client.info(self.id)


class Client:
    """A coordinator, as its users see it. Safe to use from several threads.

    Every request is repeated while the coordinator cannot be reached, for ``patience`` seconds;
    submissions carry their ids, so that repeating them does no harm. All methods wait with the GIL
    released, can be interrupted by Ctrl-C, and raise :class:`~outlast.Unreachable`,
    :class:`~outlast.Refused` or :class:`~outlast.NotFound`.

    :param url: of the coordinator; default: ``$OUTLAST_COORDINATOR``, else the local one.
    :param api_key: of role submit or operate; default: ``$OUTLAST_API_KEY``.
    :param ca: PEM file of authorities to trust beside the system's.
    :param allow_pickle: whether a result that is a pickle is loaded. Loading one runs what is in
        it: say False if you do not trust the workers.
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
    ) -> None:
        from ._outlast import Client as Raw

        url = url or os.environ.get("OUTLAST_COORDINATOR") or "http://127.0.0.1:7117"
        key = api_key or os.environ.get("OUTLAST_API_KEY") or None
        ca = os.fspath(ca) if ca is not None else None
        self._raw = Raw(_config.address(url), key, ca, patience)
        self.url: str = self._raw.url
        self._allow_pickle = allow_pickle

    def __repr__(self) -> str:
        return f"<Client {self.url}>"

    def submit(self, spec: Mapping[str, Any]) -> Task:
        """Submits a task as the HTTP API describes it, for example ``{"command": ["echo", "hello"],
        "max_retries": 3}``. With an ``id``, the same submission again finds the same task.

        :raises InvalidData: if it is no task.
        """
        document, new = self._raw.submit(json.dumps(dict(spec)))
        return Task(self, json.loads(document)["id"], new)

    def submit_call(
        self,
        function: str,
        *args: Any,
        spec: Optional[Mapping[str, Any]] = None,
        **kwargs: Any,
    ) -> Task:
        """Submits the call of a worker's function. Keyword arguments alone become the JSON object
        that ``execute_task`` of a plugin gets as its config. ``spec`` has the rest of the task,
        such as ``{"id": …, "queue": …, "max_retries": …}``.
        """
        call = {"function": function, "args": _arguments(args, kwargs)}
        return self.submit({**(spec or {}), "call": call})

    def map(
        self,
        function: str,
        items: Iterable[Any],
        *,
        kwargs: Optional[Mapping[str, Any]] = None,
        spec: Optional[Mapping[str, Any]] = None,
        timeout: Optional[float] = None,
    ) -> Iterator[Any]:
        """Calls a worker's function with each item; gives the results in order. The tasks are
        submitted before this returns.

        :param kwargs: given to each call beside its item.
        :param timeout: seconds for all of them, from now on.
        :raises TaskFailed: by the iterator, for a task that failed.
        """
        tasks = [
            {**(spec or {}), "call": {"function": function, "args": _arguments((item,), kwargs or {})}}
            for item in items
        ]
        ids = self._raw.submit_all(json.dumps(tasks))
        until = None if timeout is None else time.monotonic() + timeout

        def results() -> Iterator[Any]:
            at, window = 0, 8
            while at < len(ids):
                found = self._raw.results(ids[at : at + window])
                for end in found:
                    yield self._value(json.loads(end))
                at += len(found)
                # Many at once where they are ready, and one that is waited for where they are not.
                window = min(2 * window, 512) if len(found) == window else max(window // 2, 8)
                if not found:
                    left = None if until is None else max(0.0, until - time.monotonic())
                    yield self.result(ids[at], left)
                    at += 1

        return results()

    def get(self, task_id: str) -> Task:
        """A handle of a task that was submitted before. Nothing is asked yet."""
        return Task(self, task_id)

    def wait(self, task: Union[str, Task], timeout: Optional[float] = None) -> dict[str, Any]:
        """How a task ended, well or not: the document of the HTTP API, with ``state``, ``value``,
        ``message``, ``worker``, ``attempt``…

        :param timeout: seconds; None waits for as long as it takes.
        :raises TimeoutError: if it has not ended by then.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            seconds = math.ceil(min(30.0, max(0.0, until - time.monotonic())))
            found = self._raw.result(_id(task), seconds)
            if found is not None:
                return json.loads(found)
            if until - time.monotonic() <= 0:
                raise TimeoutError(f"task {_id(task)} has not ended within {timeout:g} s")

    def result(self, task: Union[str, Task], timeout: Optional[float] = None) -> Any:
        """What the function returned; of a command, the document of :meth:`wait`.

        :raises TaskFailed: with the message and traceback of the worker.
        :raises TaskCancelled: if it was cancelled.
        :raises TimeoutError: if it has not ended within ``timeout`` seconds.
        """
        return self._value(self.wait(task, timeout))

    def _value(self, end: dict[str, Any]) -> Any:
        value = end.get("value")
        if end["state"] == "succeeded":
            if value is None and end.get("exit_code") is not None:
                return end
            return _data.from_result(value, self._allow_pickle)
        told = value if isinstance(value, dict) else {}
        kind = TaskCancelled if end["state"] == "cancelled" else TaskFailed
        message = end.get("message") or told.get("message") or end["state"]
        raise kind(end["id"], message, told.get("traceback") or None, end)

    def cancel(self, task: Union[str, Task]) -> None:
        """Cancels a task; one that runs sees it when it next reports."""
        self._raw.cancel(_id(task))

    def retry(self, task: Union[str, Task]) -> None:
        """Runs a task again that failed or was cancelled."""
        self._raw.retry(_id(task))

    def pause(self, task: Union[str, Task]) -> None:
        """Pauses a task; one that runs waits when it next reports."""
        self._raw.pause(_id(task))

    def resume(self, task: Union[str, Task]) -> None:
        """Lets a paused task go on."""
        self._raw.resume(_id(task))

    def history(self, task: Union[str, Task]) -> list[dict[str, Any]]:
        """Everything that happened to a task, in order."""
        return json.loads(self._raw.history(_id(task)))["events"]

    def explain(self, task: Union[str, Task]) -> dict[str, Any]:
        """A task's story in sentences."""
        return json.loads(self._raw.explain(_id(task)))

    def state(self, task: Union[str, Task]) -> dict[str, Any]:
        """What a task told of itself last: ``state``, ``progress``…"""
        return json.loads(self._raw.state(_id(task)))

    def checkpoints(self, task: Union[str, Task]) -> list[dict[str, Any]]:
        """The checkpoints of a task, also those that are not kept any more."""
        return json.loads(self._raw.checkpoints(_id(task)))["checkpoints"]

    def info(self, task: Union[str, Task]) -> dict[str, Any]:
        """What the coordinator shows of a task."""
        return json.loads(self._raw.task(_id(task)))

    def tasks(
        self, *states: str, labels: Optional[Mapping[str, str]] = None
    ) -> Iterator[dict[str, Any]]:
        """All tasks in these states (none: in any), the newest first."""
        cursor = None
        while True:
            pairs = list((labels or {}).items())
            page = json.loads(self._raw.tasks(list(states), pairs, None, cursor))
            yield from page["tasks"]
            cursor = page.get("next")
            if not cursor:
                return

    def workers(self) -> list[dict[str, Any]]:
        """All workers."""
        return json.loads(self._raw.workers())["workers"]

    def counts(self) -> dict[str, Any]:
        """How many tasks are in each state."""
        return json.loads(self._raw.counts())


def _id(task: Union[str, Task]) -> str:
    return task.id if isinstance(task, Task) else task
