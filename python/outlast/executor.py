"""A :class:`concurrent.futures.Executor` whose futures survive the loss of this process."""

from __future__ import annotations

import atexit
import collections
import concurrent.futures as futures
import itertools
import logging
import os
import threading
import time
import weakref
from typing import Any, Callable, Iterable, Iterator, Mapping, Optional, Sequence, Union

from . import _calls, _data, _process, documents
from ._futures import Future, Session
from .client import Client, _head
from .errors import (
    ConfigurationError,
    NotFound,
    OutlastError,
    Refused,
    StoppedError,
    TaskCancelled,
)

log = logging.getLogger("outlast.executor")

# Submissions in one request, and submissions that wait for one; then submit() blocks.
_PART = 500
_WAITING = 5000
# Functions whose paths are cached.
_KNOWN = 256
# Seconds without tasks to follow after which the thread ends; the next submission starts another.
_IDLE = 10.0
# Seconds between two attempts of a request.
_PAUSE = 1.0
# Seconds that the end of the program waits for pending submissions.
_LAST = 10.0

_live: weakref.WeakSet[Executor] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    # The tasks continue, and the next process finds them; submissions must have been sent.
    for executor in list(_live):
        executor._leave(_LAST)


class Executor(futures.Executor):
    """Runs Python functions on the workers of a coordinator::

        with outlast.Executor("http://127.0.0.1:7117", session="sweep-3") as pool:
            for future in concurrent.futures.as_completed([pool.submit(train, lr) for lr in rates]):
                print(future.result())

    With a ``session`` the futures survive the loss of this process: started again, the same program
    finds the tasks that it submitted before, running or finished, instead of submitting them again. A
    submission is the same if it has the same session, function (its name and its own code),
    arguments, and position among those that are equal in all this: ten equal calls are ten
    tasks, and found as such. Failed and cancelled tasks stay as they are: retry them with
    :meth:`Client.retry`, or use another session. Arguments that JSON cannot represent are compared
    by their pickles, which may differ from run to run: give such calls a ``key`` with
    :meth:`submit_task`. Without a session each executor has its own tasks.

    Leaving the ``with`` block waits for all futures. Ending the program without waiting does not
    end the tasks.

    :param client: a client, or the address for one.
    :param session: 1 to 64 of ``A-Z a-z 0-9 . _ : -``.
    :param spec: fields of every task, such as ``{"max_retries": 5, "requires": {"gpu": "*"}}``.
    :raises ConfigurationError: if a setting is invalid.
    """

    def __init__(
        self,
        client: Union[Client, str, None] = None,
        *,
        session: Optional[str] = None,
        spec: Optional[Mapping[str, Any]] = None,
    ) -> None:
        if spec and not {"id", "call"}.isdisjoint(spec):
            raise ConfigurationError("the spec of an executor's tasks must have no id and no call")
        #: The client that it uses.
        self.client = client if isinstance(client, Client) else Client(client)
        self._session = Session(session)
        self.session = self._session.name
        self._spec = dict(spec or {})
        self._imported: dict[Any, _calls.Function] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Not submitted yet, as (task's JSON text, its id, function's name).
        self._queue: collections.deque[tuple[str, str, str]] = collections.deque()
        self._sending = 0
        self._open: dict[str, list[Future]] = {}
        self._closed = self._leaving = False
        self._thread: Optional[threading.Thread] = None
        self._follower: Any = None
        self._process = os.getpid()
        _live.add(self)

    def __repr__(self) -> str:
        return f"<Executor {self.session} at {self.client.url}, {len(self._open)} pending>"

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """See :meth:`concurrent.futures.Executor.submit`; ``fn`` may also be the name of a worker's
        function. The task is submitted in the background: if the coordinator refuses it, the future gets
        the exception.

        :raises SerializationError: if a value can be neither JSON nor a pickle.
        :raises RuntimeError: after :meth:`shutdown`.
        """
        return self.submit_task(fn, args, kwargs)

    def submit_task(
        self,
        fn: Union[str, Callable[..., Any]],
        args: Sequence[Any] = (),
        kwargs: Optional[Mapping[str, Any]] = None,
        *,
        key: Optional[str] = None,
        spec: Optional[Mapping[str, Any]] = None,
    ) -> Future:
        """Like :meth:`submit`, with more options.

        :param key: submissions with the same key in this session are the same task, whatever the
            arguments are. It becomes the task's id, ``SESSION:KEY``.
        :param spec: fields of the task, in addition to those of the executor.
        :raises InvalidData: if the key is invalid.
        """
        return self._hand_in(self._function(fn, spec), list(args), dict(kwargs or {}), key, False)

    def map(
        self,
        fn: Union[str, Callable[..., Any]],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        buffersize: Optional[int] = None,
    ) -> Iterator[Any]:
        """See :meth:`concurrent.futures.Executor.map`.

        :param timeout: seconds for all of them, from now on.
        :param chunksize: calls in one task.
        :param buffersize: tasks that are submitted ahead of the consumed results; None submits all of
            them before this returns.
        :raises TimeoutError: by the iterator.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be at least 1")
        until = None if timeout is None else time.monotonic() + timeout
        called = self._function(fn, None)
        if chunksize > 1 and isinstance(fn, str):
            raise ValueError("chunks are for Python functions, not for names")
        calls = zip(*iterables)

        def tasks() -> Iterator[Future]:
            while True:
                chunk = list(itertools.islice(calls, chunksize))
                if not chunk:
                    return
                if chunksize == 1:
                    yield self._hand_in(called, list(chunk[0]), {}, None, False)
                else:
                    yield self._hand_in(called, [chunk], {}, None, True)

        coming = tasks()
        ahead = collections.deque(itertools.islice(coming, buffersize))

        def results() -> Iterator[Any]:
            try:
                while ahead:
                    left = None if until is None else max(0.0, until - time.monotonic())
                    value = ahead[0].result(left)
                    ahead.popleft()
                    ahead.extend(itertools.islice(coming, 1))
                    if chunksize == 1:
                        yield value
                    else:
                        yield from value
            finally:
                for future in ahead:
                    if not future.done():
                        self._quietly(future.cancel)

        return results()

    def _function(
        self, fn: Union[str, Callable[..., Any]], spec: Optional[Mapping[str, Any]]
    ) -> tuple[_calls.Function, dict[str, Any]]:
        try:
            known = self._imported.get(fn)
        except TypeError:  # it cannot be hashed
            known = None
        called = known or self.client._function(fn)
        # By value, a function is what it is now; a path stays the same.
        if known is None and called.travels_by_path and len(self._imported) < _KNOWN:
            self._imported[fn] = called
        return called, {**self._spec, **(spec or {})}

    def _hand_in(
        self,
        function: tuple[_calls.Function, dict[str, Any]],
        args: list[Any],
        kwargs: dict[str, Any],
        key: Optional[str],
        each: bool,
    ) -> Future:
        _process.leave_import()
        if self._process != os.getpid():
            raise StoppedError("the executor belongs to the process that this one was forked from")
        called, spec = function
        arguments = called.arguments(args, kwargs, each)
        with self._changed:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            task_id = self._session.id(called, arguments, key)
            text = _head(called, {**spec, "id": task_id}) + arguments + "}}"
            future = Future(self._cancel, task_id)
            known = self._open.setdefault(task_id, [])
            known.append(future)
            if len(known) == 1:
                # Not in a callback of a future, since the same thread makes room.
                mine = threading.current_thread() is self._thread
                while len(self._queue) >= _WAITING and not self._closed and not mine:
                    self._changed.wait(1.0)
                self._queue.append((text, task_id, called.name))
            if self._thread is None:
                self._follower = self.client._raw.follow()
                self._thread = threading.Thread(
                    target=self._work, name="outlast-executor", daemon=True
                )
                self._thread.start()
            self._follower.wake()
        return future

    # The one thread that submits, follows, and completes futures.

    def _work(self) -> None:
        follower = self._follower
        idle = False
        while True:
            with self._changed:
                batch = [self._queue.popleft() for _ in range(min(_PART, len(self._queue)))]
                self._sending = len(batch)
                self._changed.notify_all()
                ends = self._leaving or (not self._open and (self._closed or idle))
                if not batch and ends:
                    self._thread = None
                    break
            if batch:
                self._submit(batch)
                with self._changed:
                    self._sending = 0
                    self._changed.notify_all()
            wait = 0.0 if self._queue else 60.0 if self._open else _IDLE
            began = time.monotonic()
            try:
                ended = follower.next(wait)
            except OutlastError as e:
                # The tasks are safe; futures stay pending.
                log.warning("%s; retrying", e)
                continue
            idle = not ended and time.monotonic() - began >= _IDLE
            for end in ended:
                self._complete(_data.read_end(end))
        follower.close()

    def _submit(self, batch: list[tuple[str, str, str]]) -> None:
        try:
            self.client._raw.submit_all(f"[{','.join(text for text, _, _ in batch)}]")
        except Refused as e:
            if e.status in (429, 502, 503, 504, 507) and not self._leaving:
                log.warning("%s; retrying", e)
                with self._changed:
                    self._queue.extendleft(reversed(batch))
                    self._changed.wait(_PAUSE)
                return
            if len(batch) > 1 and e.status in (400, 409, 413):
                # One refused task refuses the whole batch; and a proxy may accept only part of it.
                half = len(batch) // 2
                for part in (batch[:half], batch[half:]):
                    self._submit(part)
                return
            if len(batch) > 1 or e.status != 409 or not self._is_known(*batch[0][1:]):
                return self._fail(batch, e)
        except BaseException as e:
            return self._fail(batch, e)
        self._follower.add([task_id for _, task_id, _ in batch if task_id in self._open])

    def _is_known(self, task_id: str, name: str) -> bool:
        """Reports whether the task that has this id calls the same function: pickles of the same object may
        differ."""
        try:
            return bool(self.client.info(task_id)["spec"]["call"]["function"] == name)
        except (OutlastError, KeyError, TypeError):
            return False

    def _take(self, task_id: str) -> list[Future]:
        with self._changed:
            found = self._open.pop(task_id, [])
            self._changed.notify_all()
        return found

    def _fail(self, batch: list[tuple[str, str, str]], error: BaseException) -> None:
        for _, task_id, _ in batch:
            for future in self._take(task_id):
                future._end(lambda: future.set_exception(error))

    def _complete(self, end: documents.TaskResult) -> None:
        task_id = end["id"]
        try:
            value = self.client._value(end)
        except TaskCancelled:
            for future in self._take(task_id):
                future._cancelled()
            return
        except BaseException as e:
            return self._fail([("", task_id, "")], e)
        for future in self._take(task_id):
            future._end(lambda: future.set_result(value))

    def _cancel(self, future: Future) -> bool:
        task_id = future.task_id
        with self._changed:
            waiting = [one for one in self._queue if one[1] == task_id]
            if waiting:
                self._queue.remove(waiting[0])
                self._changed.notify_all()
            elif threading.current_thread() is not self._thread:
                self._changed.wait_for(lambda: not self._sending or self._thread is None)
        try:
            if not waiting:
                self.client.cancel(task_id)
        except NotFound:
            pass  # it was refused, or does not exist any more
        except Refused as e:
            if e.status == 409:  # it has ended
                return future.cancelled()
            raise
        if self._follower is not None:
            self._follower.forget(task_id)
        done = [one._cancelled() for one in self._take(task_id) or [future]]
        if self._follower is not None:
            self._follower.wake()
        return any(done)

    def flush(self, timeout: Optional[float] = None) -> bool:
        """Waits until the coordinator has durably stored every submission: from then on the loss of this
        process costs nothing. False if that takes longer than ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._queue or self._sending) or self._thread is None, timeout
            )

    @staticmethod
    def _quietly(act: Callable[[], Any]) -> None:
        try:
            act()
        except OutlastError as e:
            log.warning("%s", e)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accepts no more submissions. With ``wait``, returns when all futures are done; without, they
        continue until they are, or until the program ends; their tasks continue even then.

        :param cancel_futures: cancels tasks that have not ended, including running ones.
        """
        if self._process != os.getpid():
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            left = [future for found in self._open.values() for future in found]
            thread, follower = self._thread, self._follower
        if cancel_futures:
            for future in left:
                self._quietly(future.cancel)
        if follower is not None:
            follower.wake()
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _leave(self, seconds: float) -> None:
        """Submits pending tasks when the program ends, and waits for nothing else."""
        thread = self._thread
        if thread is None or self._process != os.getpid() or not thread.is_alive():
            return
        self._closed = True
        until = time.monotonic() + seconds
        if not self.flush(min(1.0, seconds)):
            log.warning("the program ends: waiting up to %g s for tasks to be submitted", seconds)
            if not self.flush(max(0.0, until - time.monotonic())):
                left = len(self._queue) + self._sending
                log.warning("%d or more tasks were not submitted: the program ends", left)
                self._queue.clear()
        self._leaving = True
        self._follower.wake()
        thread.join(max(0.5, until - time.monotonic()))


__all__ = ["Executor", "Future"]
