"""State of a process that runs a worker's tasks; unset in every other process."""

from __future__ import annotations

from typing import Any, Callable

#: Whether this is such a process, and whether it is importing the worker's script.
in_child = False
importing = False
#: The functions that were registered while modules were imported, as (task name, function).
registered: list[tuple[str, Callable[..., Any]]] = []


class ImportEnds(BaseException):
    """Ends the import of the worker's script where the script would start to work."""


def leave_import() -> None:
    """To be called first by every function that a script calls once its functions are defined.

    A script without ``if __name__ == "__main__"`` would start a worker in each process of the
    worker, or submit its tasks again.
    """
    if importing:
        raise ImportEnds
