"""Checks the house's shape: which crates depend on which (ARCHITECTURE.md), that no two files of a crate
import each other, and that no function and no file is too long. Tests do not count."""
import json, subprocess, sys
from pathlib import Path
from rustfiles import Crate, circles

# The crates that each crate may use. The core must never learn of stores, sockets or shells.
ALLOWED = {
    "outlast-model": set(),
    "outlast-wire": {"outlast-model"},
    "outlast-core": {"outlast-model", "outlast-wire"},
    "outlast-sqlite": set(),
    "outlast-store": {"outlast-sqlite", "outlast-model", "outlast-wire", "outlast-core"},
    "outlast-net": {"outlast-wire"},
    "outlast-spawn": set(),
    "outlast-browser": set(),
    "outlast-blob": {"outlast-sqlite"},
    "outlast-chaos": set(),
    "outlast-worker": {"outlast-blob", "outlast-spawn", "outlast-model", "outlast-wire", "outlast-core", "outlast-store", "outlast-net"},
    "outlast-coordinator": {"outlast-blob", "outlast-model", "outlast-wire", "outlast-core", "outlast-store", "outlast-net"},
    "outlast": {"outlast-wire", "outlast-core", "outlast-worker"},
    "outlast-torture": {"outlast", "outlast-chaos", "outlast-wire"},
    "outlast-fuzz": {"outlast-blob", "outlast-coordinator", "outlast-core", "outlast-model", "outlast-wire", "outlast-worker"},
    "outlast-python": {"outlast", "outlast-core", "outlast-worker"},
    "outlast-sim": {"outlast-model", "outlast-wire", "outlast-core", "outlast-store"},
}
# Programs at the top, which may use every crate.
TOP = {"outlast-cli", "outlast-bench"}
PURE = {"outlast-core": {"tokio", "rusqlite", "axum", "mio", "libc", "nix"}}

MOST_LINES_OF_A_FUNCTION = 80
MOST_LINES_OF_A_FILE = 500
# What is not in order yet. These lists only shrink.
STILL_CIRCLES = {
    "outlast-core",
}
STILL_LONG_FUNCTIONS = {
    "outlast-core": {"decide", "new", "on_hello", "register"},
}
STILL_LONG_FILES = {
    "crates/outlast-core/src/coord/mod.rs",
    "crates/outlast-core/src/coord/recover.rs",
    "crates/outlast-core/src/coord/session.rs",
    "crates/outlast-core/src/records.rs",
    "crates/outlast-core/src/worker/mod.rs",
    "crates/outlast-core/src/worker/session.rs",
}
# Other sources whose files have the same limit.
SCRIPTS = ("dashboard/src", "python/outlast", "scripts")
GENERATED = {"dashboard/src/types.ts"}

TREE = Path(__file__).resolve().parent.parent


def dependencies(packages):
    """The arrows between crates that ARCHITECTURE.md forbids."""
    for package in packages:
        name = package["name"]
        deps = {d["name"] for d in package["dependencies"] if d["kind"] is None}
        if name in ALLOWED:
            ours = {d for d in deps if d.startswith("outlast")}
            yield from (f"{name} -> {d} is forbidden by ARCHITECTURE.md" for d in sorted(ours - ALLOWED[name]))
        elif name not in TOP:
            yield f"{name} is not known here: say in scripts/arrows.py which crates it may use"
        yield from (f"{name} -> {d}: this crate is pure" for d in sorted(deps & PURE.get(name, set())))


def short(path):
    return str(path.relative_to(TREE))


def knots(crate):
    """The circles of files, each with the names that tie it."""
    arrows = crate.arrows()
    for group in circles(arrows):
        ties = [f"    {short(one)} -> {short(other)}: {', '.join(sorted(names))}"
                for (one, other), names in sorted(arrows.items()) if one in group and other in group]
        yield "\n".join([f"{len(group)} files import each other in a circle:"] + ties)


def too_long(crate, met):
    """Functions and files over the limit: (whether it is still allowed, its text). `met` gets the exceptions."""
    name = crate.name
    for file, function, lines in crate.functions(MOST_LINES_OF_A_FUNCTION):
        allowed = function in STILL_LONG_FUNCTIONS.get(name, ())
        met.add((name, function))
        yield allowed, f"{short(file)}: {function} has {lines} lines; {MOST_LINES_OF_A_FUNCTION} is the limit"
    for file, lines in crate.lengths():
        if lines > MOST_LINES_OF_A_FILE:
            met.add(short(file))
            yield short(file) in STILL_LONG_FILES, f"{short(file)} has {lines} lines; {MOST_LINES_OF_A_FILE} is the limit"


def scripts():
    """Other sources over the limit."""
    for folder in SCRIPTS:
        for file in sorted((TREE / folder).rglob("*")):
            if file.suffix in (".py", ".ts", ".tsx") and short(file) not in GENERATED:
                lines = len(file.read_text().splitlines())
                if lines > MOST_LINES_OF_A_FILE:
                    yield f"{short(file)} has {lines} lines; {MOST_LINES_OF_A_FILE} is the limit"


def main(show):
    meta = json.loads(subprocess.check_output(
        ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"], cwd=TREE))
    packages = meta["packages"]
    bad = list(dependencies(packages)) + list(scripts())
    still, files, met = [], 0, set()
    for package in packages:
        name = package["name"]
        if show and name not in show:
            continue
        tied = []
        for target in package["targets"]:
            if target["kind"][0] in ("lib", "cdylib", "bin"):
                crate = Crate(name, target["src_path"])
                files += len(crate.lines)
                tied += knots(crate)
                for allowed, text in too_long(crate, met):
                    (still if allowed else bad).append(text)
        if name in STILL_CIRCLES:
            still += [f"{name}: {knot}" for knot in tied]
            if tied:
                met.add(name)
        else:
            bad += [f"{name}: {knot}" for knot in tied]
    if show:
        print("\n".join(still + bad))
    else:
        listed = {(name, f) for name, functions in STILL_LONG_FUNCTIONS.items() for f in functions}
        for done in sorted(map(str, (listed | STILL_LONG_FILES | STILL_CIRCLES) - met)):
            print(f"in order by now, so take it off the lists in scripts/arrows.py: {done}")
    if bad:
        sys.exit("the house's shape (scripts/arrows.py):\n  " + "\n  ".join(bad))
    print(f"{len(packages)} crates, {files} files: all arrows allowed, {len(still)} exceptions")


# With names of crates: shows all of theirs, allowed or not.
main(sys.argv[1:])
