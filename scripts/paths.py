"""Checks that the files and functions that ARCHITECTURE.md and docs/adding.md name are there."""
import re, sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
CRATES = TREE / "crates"


def place(name):
    """The file or folder of a name such as `core/src/scheduler.rs`; none if it is not there."""
    head, _, rest = name.partition("/")
    places = [TREE / name, CRATES / f"outlast-{head}" / rest, CRATES / name]
    return next((p for p in places if p.exists()), None)


def wrong(page):
    text = re.sub(r"\s+", " ", (TREE / page).read_text())
    for name in re.findall(r"`([a-z_]+(?:/[A-Za-z0-9_.]+)+/?)`", text):
        if not place(name.rstrip("/")):
            yield f"{page}: there is no {name}"
    for name, function in re.findall(r"`([a-z_/0-9]+\.rs)`: `([a-z_0-9]+)`", text):
        file = place(name)
        if file and not re.search(rf"\bfn {function}\b", file.read_text()):
            yield f"{page}: {name} has no function {function}"


def main():
    bad = [line for page in ("ARCHITECTURE.md", "docs/adding.md") for line in wrong(page)]
    if bad:
        sys.exit("\n".join(bad))


if __name__ == "__main__":
    main()
