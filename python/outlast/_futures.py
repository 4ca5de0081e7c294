"""The futures of :class:`outlast.Executor`, and the names of its tasks."""

from __future__ import annotations

import collections
import concurrent.futures as futures
import hashlib
import itertools
import json
import threading
import uuid
from typing import Any, Callable, Optional

from . import _calls
from .errors import ConfigurationError, InvalidData


class Future(futures.Future):  # type: ignore[type-arg]
    """Future of a task. It is pending until the task has ended."""

    def __init__(self, canceller: Callable[[Future], bool], task_id: str) -> None:
        super().__init__()
        self._canceller = canceller
        # Held forever from the first cancel that takes effect: waiters are notified of it once.
        self._announced = threading.Lock()
        #: The task's id; ``client.get(future.task_id)`` is its handle, in any process.
        self.task_id = task_id

    def __repr__(self) -> str:
        return f"<Future of task {self.task_id}, {self._state.lower()}>"

    def cancel(self) -> bool:
        """Cancels the task, even if it runs. False if the task has ended.

        :raises OutlastError: if the coordinator cannot be reached.
        """
        if self.done():
            return self.cancelled()
        return self._canceller(self)

    def _end(self, act: Callable[[], Any]) -> None:
        # Another caller may have cancelled it at the same time.
        try:
            act()
        except futures.InvalidStateError:
            pass

    def _cancelled(self) -> bool:
        # Called by the canceller and at the task's end, at any time and in any order.
        done = super().cancel()
        if done and self._announced.acquire(blocking=False):
            self.set_running_or_notify_cancel()
        return done


class Session:
    """Names tasks so that the same submission gets the same name in another run.

    :raises ConfigurationError: if the session cannot be part of a task's id.
    """

    def __init__(self, name: Optional[str]) -> None:
        if name is not None and not _usable(name, 64):
            raise ConfigurationError(f"{name!r} is not a session; use 1 to 64 of A-Z a-z 0-9 . _ : -")
        self.name = name or f"x-{uuid.uuid4().hex[:20]}"
        self._own = name is None
        self._numbers = itertools.count(1)
        self._seen: collections.Counter[str] = collections.Counter()

    def id(self, called: _calls.Function, arguments: str, key: Optional[str]) -> str:
        """
        :raises InvalidData: if the key is invalid.
        """
        if key is not None:
            if not _usable(key, 128 - len(self.name) - 1):
                raise InvalidData(
                    f"{key!r} is not a key; use A-Z a-z 0-9 . _ : -, up to 127 with the session"
                )
            return f"{self.name}:{key}"
        if self._own:
            return f"{self.name}:{next(self._numbers)}"
        document = json.loads(arguments)
        # The pickled bytes of a function differ from run to run; its code does not.
        document.pop(_calls.FUNCTION, None)
        same = json.dumps([called.name, called.code, document], sort_keys=True)
        digest = hashlib.sha256(same.encode()).hexdigest()[:32]
        self._seen[digest] += 1
        return f"{self.name}:{digest}-{self._seen[digest]}"


def _usable(text: Any, longest: int) -> bool:
    allowed = isinstance(text, str) and text.isascii() and 0 < len(text) <= longest
    return allowed and all(c.isalnum() or c in "._:-" for c in text)
