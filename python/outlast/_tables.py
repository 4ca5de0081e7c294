"""Lists of documents that Jupyter displays as tables."""

from __future__ import annotations

import html
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, TypeVar

# A kind of document.
D = TypeVar("D", bound=Mapping[str, Any])

# The columns of each kind of list; the documents themselves have more fields.
_COLUMNS = {
    "task": ("id", "state", "progress", "worker", "attempt", "submitted_at", "ended_at", "reason"),
    "worker": ("name", "state", "slots", "running", "queued", "rtt_ms", "version", "seen_at"),
    "event": ("at", "event", "attempt", "worker", "reason"),
    "checkpoint": ("id", "attempt", "worker", "size", "created_at", "kept"),
    "result": ("id", "state", "worker", "attempt", "value", "message"),
}
_LONGEST = 120
_ROWS = 100


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "progress" and isinstance(value, (int, float)):
        return f'<progress max="1" value="{float(value):.4f}"></progress> {value:.0%}'
    if isinstance(value, float):
        value = f"{value:g}"
    text = value if isinstance(value, str) else str(value)
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    return html.escape(text)


def table(documents: Iterable[Mapping[str, Any]], kind: str) -> str:
    """HTML of a table; texts are escaped, and truncated when they are long."""
    rows = list(documents)
    names = [n for n in _COLUMNS[kind] if any(r.get(n) is not None for r in rows)]
    names = names or list(_COLUMNS[kind][:2])
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(n, row.get(n))}</td>" for n in names) + "</tr>"
        for row in rows[:_ROWS]
    )
    more = len(rows) - _ROWS
    note = f"<caption>and {more} more</caption>" if more > 0 else ""
    return f"<table>{note}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def document(of: Mapping[str, Any]) -> str:
    """HTML of one document: a row for each of its keys."""
    rows = "".join(
        f"<tr><th>{html.escape(str(name).replace('_', ' '))}</th><td>{_cell(str(name), value)}</td></tr>"
        for name, value in of.items()
        if value is not None
    )
    return f"<table><tbody>{rows}</tbody></table>"


def brief(of: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The part of a document that a table shows."""
    return {name: of[name] for name in _COLUMNS[kind] if of.get(name) not in (None, "")}


class Pages(Iterator[D]):
    """Documents from page to page, requested as they are consumed, with an HTML view.

    :param page: requests the page at a cursor; returns its documents and the next cursor.
    """

    def __init__(
        self, page: Callable[[Optional[str]], tuple[list[D], Optional[str]]], kind: str
    ) -> None:
        self._page, self._kind = page, kind
        self._documents = self._all()

    def _all(self) -> Iterator[D]:
        cursor = None
        while True:
            documents, cursor = self._page(cursor)
            yield from documents
            if not cursor:
                return

    def __next__(self) -> D:
        return next(self._documents)

    def _repr_html_(self) -> str:
        # From the beginning, since displaying must not consume them.
        return table(self._page(None)[0], self._kind)


class Rows(List[D]):
    """A list of documents with a table view."""

    def __init__(self, documents: Iterable[D], kind: str) -> None:
        super().__init__(documents)
        self._kind = kind

    def _repr_html_(self) -> str:
        return table(self, self._kind)
