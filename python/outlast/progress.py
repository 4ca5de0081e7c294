"""Progress bars with the interface of tqdm that also report to the coordinator.

``outlast.tqdm`` is used like tqdm. Inside a task it reports the task's progress, so that
``outlast watch``, the dashboard and ``client.state(task)`` show it; in a terminal or
notebook with the package tqdm installed, the bar is also drawn.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any, Generic, Iterable, Iterator, Mapping, Optional, TypeVar, Union, cast

from .context import TaskContext, _current
from .errors import OutlastError

T = TypeVar("T")

#: Seconds between two reports of a task's bar.
REPORT = 0.5


def _real() -> Any:
    """The class of the installed tqdm that fits this terminal or notebook; None without one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about missing notebook widgets
            from tqdm.auto import tqdm as real  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return None
    return real


def _visible(file: Any) -> bool:
    if "ipykernel" in sys.modules:
        return True
    try:
        return bool(file.isatty())
    except (AttributeError, ValueError):
        return False


class tqdm(Generic[T]):  # noqa: N801, the established name
    """A progress bar with the interface of ``tqdm.tqdm``::

        for batch in outlast.tqdm(batches, desc="train", unit="batch"):
            ...

    In a task, the number of steps, ``total``, ``unit``, the rate and the postfix become the entry
    ``desc`` (else ``progress``) of the task's state, at most twice a second; the outermost bar with a
    total also sets the task's progress. The bar raises :class:`~outlast.TaskStopped` once its task is
    cancelled, and waits while it is paused.

    :param iterable: the items; without one, call :meth:`update`.
    :param total: total number of steps; default: the iterable's length, if it has one.
    :param disable: True draws nothing; None, as in tqdm, and False draw only where there is a
        terminal. The task's state is updated in any case.
    :param report: seconds between two reports.
    :param options: further parameters of the installed tqdm, such as ``leave`` or ``ncols``.
    """

    def __init__(
        self,
        iterable: Optional[Iterable[T]] = None,
        desc: Optional[str] = None,
        total: Optional[float] = None,
        leave: Optional[bool] = True,
        file: Any = None,
        *,
        disable: Optional[bool] = False,
        unit: str = "it",
        initial: float = 0,
        postfix: Union[Mapping[str, Any], str, None] = None,
        report: float = REPORT,
        **options: Any,
    ) -> None:
        if total is None and iterable is not None:
            try:
                total = len(cast(Any, iterable))
            except (TypeError, AttributeError):
                total = None
        self.iterable = iterable
        #: Steps done so far.
        self.n: float = initial
        #: Total number of steps, or None.
        self.total: Optional[float] = total
        self.desc = desc or ""
        self.unit = unit
        self.disable = bool(disable)
        self.leave = leave
        self._initial = initial
        self._postfix: Any = dict(postfix) if isinstance(postfix, Mapping) else postfix
        self._report = max(0.05, report)
        self._began = time.monotonic()
        self._told_at = float("-inf")
        self._told: Any = None
        self._closed = False
        self._bar: Any = None
        if disable is not True and _visible(file or sys.stderr):
            real = _real()
            if real is not None:
                self._bar = real(
                    desc=desc, total=total, leave=leave, file=file, unit=unit, initial=initial,
                    postfix=postfix, **options,
                )  # fmt: skip
        self._context: Optional[TaskContext] = getattr(_current, "context", None)
        self._outermost = False
        if self._context is not None:
            bars = self._bars()
            self._outermost = total is not None and not any(bar._outermost for bar in bars)
            bars.append(self)
            self._tell()

    def _bars(self) -> list[Any]:
        """The open bars of the task."""
        context = cast(Any, self._context)
        if not hasattr(context, "_open_bars"):
            context._open_bars = []
        return cast("list[Any]", context._open_bars)

    def __iter__(self) -> Iterator[T]:
        if self.iterable is None:
            raise TypeError("this tqdm has no iterable; call update()")
        try:
            for item in self.iterable:
                yield item
                self.update()
        finally:
            self.close()

    def __len__(self) -> int:
        return int(self.total or 0)

    def __bool__(self) -> bool:
        return self.total is None or self.total > 0

    def __enter__(self) -> tqdm[T]:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def update(self, n: float = 1) -> None:
        """Adds to the number of steps done.

        :raises TaskStopped: in a task that was cancelled, or whose worker stops.
        """
        self.n += n
        if self._bar is not None:
            self._bar.update(n)
        if self._context is not None and time.monotonic() - self._told_at >= self._report:
            self._tell()
            self._context.check()

    def set_description(self, desc: Optional[str] = None, refresh: bool = True) -> None:
        """Sets the description."""
        old, self.desc = self._name(), desc or ""
        if self._bar is not None:
            self._bar.set_description(desc, refresh)
        if self._context is not None and self._name() != old:
            self._forget(old)
            if refresh:
                self._tell_later()

    set_description_str = set_description

    def set_postfix(
        self,
        ordered_dict: Optional[Mapping[str, Any]] = None,
        refresh: bool = True,
        **kwargs: Any,
    ) -> None:
        """Sets values to show after the bar and in the task's state, such as ``loss=0.1``."""
        self._postfix = {**(ordered_dict or {}), **kwargs}
        if self._bar is not None:
            self._bar.set_postfix(ordered_dict, refresh, **kwargs)
        self._tell_later()

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Sets the postfix as a text."""
        self._postfix = s or None
        if self._bar is not None:
            self._bar.set_postfix_str(s, refresh)
        self._tell_later()

    def refresh(self, *_: Any, **__: Any) -> None:
        """Draws and reports immediately, as after ``bar.n = …``."""
        if self._bar is not None:
            self._bar.n = self.n
            self._bar.total = self.total
            self._bar.refresh()
        if self._context is not None:
            self._tell()

    def reset(self, total: Optional[float] = None) -> None:
        """Starts from zero, optionally with another total."""
        self.n, self._began = 0, time.monotonic()
        self.total = total if total is not None else self.total
        if self._bar is not None:
            self._bar.reset(total)
        if self._context is not None:
            self._tell()

    def clear(self, *_: Any, **__: Any) -> None:
        """Erases the bar until it is next drawn."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        """Closes the bar; does nothing the second time."""
        if self._closed:
            return
        self._closed = True
        if self._bar is not None:
            self._bar.close()
        if self._context is None:
            return
        if self in self._bars():
            self._bars().remove(self)
        try:
            if self.leave:
                self._tell()
            else:
                self._forget(self._name())
        except OutlastError:
            pass  # the attempt may have ended
        self._context = None

    @classmethod
    def write(cls, s: str, file: Any = None, end: str = "\n", nolock: bool = False) -> None:
        """Prints a line without disturbing the bars."""
        real = _real()
        if real is None:
            print(s, file=file, end=end)
        else:
            real.write(s, file=file, end=end, nolock=nolock)

    @property
    def format_dict(self) -> dict[str, Any]:
        """The reported values: ``n``, ``total``, ``unit``, ``rate`` (steps per second), ``elapsed``
        (seconds), ``postfix``; those that are known."""
        elapsed = time.monotonic() - self._began
        done = self.n - self._initial
        found = {
            "n": self.n,
            "total": self.total,
            "unit": self.unit,
            "rate": float(f"{done / elapsed:.4g}") if elapsed > 0 and done else None,
            "elapsed": round(elapsed, 1),
            "postfix": self._postfix or None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _name(self) -> str:
        return self.desc.rstrip(": ") or "progress"

    def _tell_later(self) -> None:
        if self._context is not None and time.monotonic() - self._told_at >= self._report:
            self._tell()

    def _tell(self) -> None:
        context = self._context
        if context is None:
            return
        self._told_at = time.monotonic()
        updates = {self._name(): self.format_dict}
        if self._outermost and self.total:
            context.progress(min(1.0, max(0.0, self.n / self.total)), **updates)
        else:
            context.update_state(**updates)

    def _forget(self, name: str) -> None:
        if self._context is not None:
            self._context.update_state(**{name: None})


def trange(*args: int, **options: Any) -> tqdm[int]:
    """``tqdm(range(…))``."""
    return tqdm(range(*args), **options)


def bar(of: Iterable[T], wanted: Union[bool, str], total: Optional[int]) -> Iterator[T]:
    """The items, with a bar if ``progress`` is True or a description."""
    if not wanted:
        return iter(of)
    return iter(tqdm(of, desc=wanted if isinstance(wanted, str) else None, total=total, unit="task"))
