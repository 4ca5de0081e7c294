"""The failure history as a page: self-contained HTML with inline SVG, light and dark."""

from __future__ import annotations

import datetime
import html
from collections import Counter
from typing import Any, Iterable, Mapping, Sequence

from . import _failures, documents

#: Outcomes in the order in which they are drawn, with their meaning.
_OUTCOMES = {
    "succeeded": "the next attempt succeeded",
    "failed again": "the next attempt failed, too",
    "given up": "no further attempt was made",
    "cancelled": "cancelled meanwhile",
    "open": "not known yet",
    "not tried": "the task allows no further attempts",
}
_ROWS = 60  # of the table
_ITEMS = 12  # of a list
_WIDTH = 900  # of the drawings, in their own units

_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1d2329; --soft: #5c6670;
  --line: #d9dde1; --heat: #b3401f; --on-heat: #fff; --succeeded: #1f77b4; --failed-again: #e08214;
  --given-up: #8c2d5c; --cancelled: #7f8790; --open: #b4bcc4; --not-tried: #5c6670; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --ink: #e4e8ec; --soft: #9aa5b0;
  --line: #343c44; --heat: #f0764b; --on-heat: #14181c; --succeeded: #58a6dd;
  --failed-again: #f2a65a; --given-up: #d873a5; --cancelled: #97a1ab; --open: #55606b;
  --not-tried: #9aa5b0; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem }
p, .soft { color: var(--soft) } p { margin: .3rem 0 } svg { width: 100%; height: auto; display: block }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif } svg .soft { fill: var(--soft) }
svg .on { fill: var(--on-heat) } svg line { stroke: var(--line) }
.legend span { margin-right: 1.2em; white-space: nowrap }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: .2em;
  margin-right: .4em; vertical-align: -.05em; border: 2px solid transparent; box-sizing: border-box }
.legend i.not-tried { background: none !important; border-color: var(--not-tried) }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: 13px }
th { text-align: left; color: var(--soft); font-weight: 600 }
th, td { padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td { overflow-wrap: anywhere; min-width: 4.5em } td.fixed { white-space: nowrap }
ul { padding-left: 1.2rem; margin: .3rem 0 } li { overflow-wrap: anywhere }
"""


def _e(text: Any) -> str:
    """Escapes text for HTML; characters that XML does not allow become a replacement character."""
    clean = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return html.escape(clean)


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _short(text: Any, most: int) -> str:
    text = str(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _color(outcome: str) -> str:
    return f"var(--{outcome.replace(' ', '-')})"


def _label(x: float, y: float, text: Any, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{_e(text)}</text>'


def _svg(height: float, parts: Iterable[str], title: str) -> str:
    inside = "".join(parts)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{_e(title)}">{inside}</svg>'
    )


def _legend(used: Iterable[str]) -> str:
    used = set(used)
    items = [
        f'<span><i class="{o.replace(" ", "-")}" style="background:{_color(o)}"></i>'
        f"{_e(o)}: {_e(text)}</span>"
        for o, text in _OUTCOMES.items()
        if o in used
    ]
    return f'<p class="legend">{" ".join(items)}</p>'


def _where(failures: Sequence[Mapping[str, Any]]) -> str:
    """Matrix of workers and the failure classes on them."""
    counts = Counter((f["worker"] or "(unknown)", f["class"]) for f in failures)
    workers = _most(w for w, _ in counts.elements())
    classes = _most(c for _, c in counts.elements())
    left, top, row = 190, 30, 34
    width = min(140.0, (_WIDTH - left - 60) / max(1, len(classes)))
    slanted = width < 105
    top = 95 if slanted else top
    parts, most = [], max(counts.values())
    for n, name in enumerate(classes):
        x = left + (n + 0.5) * width
        if slanted:
            parts.append(f'<g transform="translate({x:.1f} {top - 10}) rotate(-38)">')
            parts.append(_label(0, 0, name) + "</g>")
        else:
            parts.append(_label(x, top - 10, name, "middle"))
    for n, worker in enumerate(workers):
        y = top + n * row
        parts.append(_label(left - 12, y + row / 2 + 4, _short(worker, 24), "end"))
        for m, name in enumerate(classes):
            count = counts[worker, name]
            if not count:
                continue
            share = 0.18 + 0.82 * count / most
            title = f"{_count(count, 'failure')} of class {name} on {worker}"
            parts.append(
                f'<g><title>{_e(title)}</title><rect x="{left + m * width + 2:.1f}" y="{y + 2}"'
                f' width="{width - 4:.1f}" height="{row - 4}" rx="4" fill="var(--heat)"'
                f' fill-opacity="{share:.2f}"/>'
                + _label(left + (m + 0.5) * width, y + row / 2 + 4, count, "middle",
                         "on" if share > 0.6 else "")
                + "</g>"
            )
        total = sum(counts[worker, c] for c in classes)
        parts.append(_label(left + len(classes) * width + 12, y + row / 2 + 4, total, kind="soft"))
    height = top + len(workers) * row + 4
    return _svg(height, parts, "failures by worker and class")


def _most(names: Iterable[str]) -> list[str]:
    """Counts, the highest first."""
    return [name for name, _ in Counter(names).most_common()]


def _helped(records: Sequence[_failures.Record]) -> str:
    """Recovery actions by failure class, coloured by their outcome."""
    counts: Counter[tuple[str, str, str]] = Counter(
        (r.failure_class, r.action.strategy.value, r.outcome) for r in records
    )
    pairs = _most(f"{c}\n{s}" for c, s, _ in counts.elements())
    left, row = 330, 30
    most = max(Counter((c, s) for c, s, _ in counts.elements()).values())
    scale = (_WIDTH - left - 60) / most
    parts: list[str] = []
    for n, pair in enumerate(sorted(pairs, key=lambda p: p.split("\n")[0])):
        kind, strategy = pair.split("\n")
        y, x, total = n * row, float(left), 0
        parts.append(_label(left - 190, y + 19, kind, "end", "soft"))
        parts.append(_label(left - 184, y + 19, "→", kind="soft"))
        parts.append(_label(left - 164, y + 19, strategy))
        for outcome in _OUTCOMES:
            count = counts[kind, strategy, outcome]
            if not count:
                continue
            width = count * scale
            parts.append(
                f"<g><title>{_e(f'{strategy} after {kind}: {count} {outcome}')}</title>"
                f'<rect x="{x:.1f}" y="{y + 4}" width="{max(1.0, width - 2):.1f}" height="{row - 8}"'
                f' rx="3" fill="{_color(outcome)}"/></g>'
            )
            x += width
            total += count
        parts.append(_label(x + 8, y + 19, total, kind="soft"))
    return _svg(len(pairs) * row + 4, parts, "actions and their outcomes")


def _over_time(marks: Sequence[Mapping[str, Any]]) -> str:
    """Each failure at its time and worker, in the colour of its outcome."""
    rows = _most(m["worker"] or "(unknown)" for m in marks)
    left, row, right = 190, 36, 20
    first = min(m["at"] for m in marks)
    seconds = max((max(m["at"] for m in marks) - first).total_seconds(), 1.0)
    wide = _WIDTH - left - right
    parts: list[str] = []
    bottom = len(rows) * row
    count = 5
    for n in range(count):
        at = first + datetime.timedelta(seconds=seconds * n / (count - 1))
        x = left + wide * n / (count - 1)
        anchor = "start" if n == 0 else "end" if n == count - 1 else "middle"
        text = at.strftime("%H:%M:%S" if seconds < 86_400 else "%m-%d %H:%M")
        parts.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom + 5}"/>')
        parts.append(_label(x, bottom + 22, text, anchor, "soft"))
    for n, worker in enumerate(rows):
        y = n * row + row / 2
        parts.append(_label(left - 12, y + 4, _short(worker, 24), "end"))
        parts.append(f'<line x1="{left}" y1="{y}" x2="{_WIDTH - right}" y2="{y}"/>')
        taken: dict[int, int] = {}
        for mark in (m for m in marks if (m["worker"] or "(unknown)") == worker):
            x = left + wide * (mark["at"] - first).total_seconds() / seconds
            # Failures at about the same time are drawn beside each other.
            level = taken.get(int(x / 11), 0)
            taken[int(x / 11)] = level + 1
            up = (0, -9, 9)[level % 3]
            title = f"{mark['task']}.{mark['attempt']}: {mark['what']}"
            color, ring = _color(mark["outcome"]), ""
            if mark["outcome"] == "not tried":
                color, ring = "var(--paper)", ' style="stroke:var(--not-tried);stroke-width:2"'
            parts.append(
                f"<g><title>{_e(title)}</title>"
                f'<circle cx="{x:.1f}" cy="{y + up:.1f}" r="5.5" stroke="var(--paper)"{ring}'
                f' fill="{color}"/></g>'
            )
    return _svg(bottom + 32, parts, "failures over time")


def _marks(
    failures: Sequence[documents.PastFailure], records: Sequence[_failures.Record]
) -> list[dict[str, Any]]:
    """Each failure once, oldest first, with the action that followed."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for f in failures:
        found[f["task"], f["attempt"]] = {
            "at": _failures.when(f["at"]),
            "task": f["task"],
            "attempt": f["attempt"],
            "worker": f["worker"],
            "hardware": f["hardware"],
            "class": f["class"],
            "evidence": f["evidence"],
            "done": "",
            "outcome": "not tried",
        }
    for r in records:
        c = r.context
        found[r.key] = {
            "at": c.timestamp,
            "task": c.task_id,
            "attempt": c.attempt,
            "worker": c.worker_id,
            "hardware": c.hardware_profile.get("hardware_class", ""),
            "class": r.failure_class,
            "evidence": c.error_message,
            "done": r.action.strategy.value,
            "outcome": r.outcome,
            "why": r.action.message,
        }
    marks = sorted(found.values(), key=lambda m: m["at"])
    for mark in marks:
        done = f" → {mark['done']} ({mark['outcome']})" if mark["done"] else ""
        mark["what"] = f"{mark['class']}{done}; {mark['evidence']}"
    return marks


def _table(marks: Sequence[Mapping[str, Any]]) -> str:
    head = ("When (UTC)", "Attempt", "Worker", "Device", "Failure", "Action", "Outcome")
    rows = []
    for mark in reversed(marks[-_ROWS:]):
        at = mark["at"].astimezone(datetime.timezone.utc).strftime("%m-%d %H:%M:%S")
        dot = f'<span style="color:{_color(mark["outcome"])}">●</span>'
        cells = (
            f'<td class="fixed">{at}</td><td>{_e(_short(mark["task"], 60))}.{mark["attempt"]}</td>'
            f"<td>{_e(mark['worker'])}</td><td>{_e(mark['hardware'])}</td>"
            f"<td><b>{_e(mark['class'])}</b><br>"
            f"<span class=soft>{_e(_short(mark['evidence'], 160))}</span></td>"
            f'<td class="fixed" title="{_e(mark.get("why", ""))}">{_e(mark["done"] or "nothing")}</td>'
            f'<td class="fixed">{dot} {_e(mark["outcome"])}</td>'
        )
        rows.append(f"<tr>{cells}</tr>")
    headings = "".join(f"<th>{h}</th>" for h in head)
    more = len(marks) - _ROWS
    note = f"<p>{more} earlier ones are not shown.</p>" if more > 0 else ""
    return f"<div class=wide><table><tr>{headings}</tr>{''.join(rows)}</table></div>{note}"


def _lists(document: documents.RecoveryPatterns) -> str:
    """Patterns, quarantined workers, and knob values that worked."""
    patterns = [
        f"{_e(p['kind'])} <b>{_e(_short(p['subject'], 80))}</b>: {p['count']} × {_e(p['class'])},"
        f" {_count(p['tasks'], 'task')}, {_count(p['workers'], 'worker')}"
        f" <span class=soft>({_e(_short(p['evidence'], 120))})</span>"
        for p in document["patterns"]
    ]
    workers = [
        f"<b>{_e(q['worker'])}</b> is {_e(q['state'])}: {_e(q['reason'])}"
        for q in document["quarantined"]
    ]
    learned = [
        f"<b>{_e(_short(k['task_type'], 80))}</b> on {_e(k['hardware'])} starts with "
        + ", ".join(f"{_e(n)} {_e(v)}" for n, v in k["knobs"].items())
        for k in document["learned"]
    ]
    found = ""
    for title, items in (
        ("Repeated failures", patterns),
        ("Quarantined workers", workers),
        ("Settings that worked", learned),
    ):
        if len(items) > _ITEMS:
            items[_ITEMS:] = [f"<span class=soft>{len(items) - _ITEMS} more</span>"]
        if items:
            found += f"<h2>{title}</h2><ul>{''.join(f'<li>{i}</li>' for i in items)}</ul>"
    return found


def page(url: str, document: documents.RecoveryPatterns, records: Sequence[_failures.Record]) -> str:
    """The whole page."""
    failures = document["failures"]
    marks = _marks(failures, records)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    parts = [
        "<h1>Failures and recovery</h1>",
        f"<p>{_e(url)}, {now} UTC. {_count(len(marks), 'failure')} of"
        f" {_count(len({m['task'] for m in marks}), 'task')}, {_count(len(records), 'decision')}.</p>",
    ]
    if not marks:
        parts.append("<p>No failures in the coordinator's record.</p>")
    else:
        parts += ["<h2>Failures by worker</h2>", _where(marks)]
        if records:
            parts += ["<h2>Actions and their outcomes</h2>"]
            parts += [_legend(r.outcome for r in records), _helped(records)]
        parts += ["<h2>Over time (UTC)</h2>", _legend(m["outcome"] for m in marks), _over_time(marks)]
    parts.append(_lists(document))
    if marks:
        parts += ["<h2>All failures</h2>", _table(marks)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Failures and recovery</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
