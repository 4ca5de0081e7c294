"""Checks the house's shape: which crates depend on which (ARCHITECTURE.md), that no two files of a crate
import each other, and that no function and no file is too long. Tests do not count."""
import json, re, subprocess, sys
from pathlib import Path
from rustfiles import Crate, circles

# The crates that each crate may use. The core must never learn of stores, sockets or shells.
ALLOWED = {
    "outlast-model": set(),
    "outlast-wire": {"outlast-model"},
    "outlast-core": {"outlast-model", "outlast-wire"},
    "outlast-sqlite": set(),
    "outlast-store": {"outlast-sqlite", "outlast-model", "outlast-wire", "outlast-core"},
    "outlast-driver": {"outlast-core", "outlast-store"},
    "outlast-net": {"outlast-wire"},
    "outlast-spawn": set(),
    "outlast-browser": set(),
    "outlast-blob": {"outlast-sqlite"},
    "outlast-chaos": set(),
    "outlast-worker": {"outlast-blob", "outlast-spawn", "outlast-model", "outlast-wire", "outlast-core", "outlast-driver", "outlast-store", "outlast-net"},
    "outlast-coordinator": {"outlast-blob", "outlast-model", "outlast-wire", "outlast-core", "outlast-driver", "outlast-store", "outlast-net"},
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
# In the core a struct with more fields is two things. `Report` is the document of programs that report their own
# failures, and has the fields that these documents have.
MOST_FIELDS = {"outlast-core": (12, {"Report"})}
# The core names none of these but in the files whose matter they are: what a worker of the v1 dialect says is JSON, and
# so are the values of knobs and what a program reports of its failures.
FOREIGN = {"outlast-core": (("outlast_wire", "serde_json", "rusqlite", "prost"), ("coord/v1/", "recovery/"))}
# The only files of the core that name its v1 dialect beside the dialect itself: those that hold its state with theirs,
# so that it goes with a link, a worker or a task; and those where messages come and go.
DIALECT = {"outlast-core": (r"(?<![a-z0-9])v1(?![a-z0-9])", "coord/", {
    "v1/", "arrivals.rs", "conn.rs", "coordinator.rs", "counters.rs", "mod.rs", "output.rs", "session.rs", "task.rs",
    "undurable.rs", "workers.rs"})}
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


def too_long(crate):
    """Functions and files over the limit."""
    for file, function, lines in crate.functions(MOST_LINES_OF_A_FUNCTION):
        yield f"{short(file)}: {function} has {lines} lines; {MOST_LINES_OF_A_FUNCTION} is the limit"
    for file, lines in crate.lengths():
        if lines > MOST_LINES_OF_A_FILE:
            yield f"{short(file)} has {lines} lines; {MOST_LINES_OF_A_FILE} is the limit"


def too_wide(crate):
    """Structs with more fields than a reader holds in mind."""
    most, allowed = MOST_FIELDS.get(crate.name, (None, ()))
    for file, struct, fields in crate.structs() if most else ():
        if fields > most and struct not in allowed:
            yield f"{short(file)}: {struct} has {fields} fields; {most} is the limit"


def foreign(crate):
    """Names that a crate must not use outside the files whose matter they are."""
    names, places = FOREIGN.get(crate.name, ((), ()))
    for file, text in crate.lines.items():
        if not any(place in short(file) for place in places):
            yield from (f"{short(file)} names {name}" for name in names if re.search(rf"\b{name}\b", text))


def dialect(crate):
    """Files that name a dialect and are not where it belongs."""
    pattern, folder, places = DIALECT.get(crate.name, ("", "/", ()))
    for file, text in crate.lines.items():
        place = short(file).partition(f"src/{folder}")[2]
        if place and not place.startswith(tuple(places)) and re.search(pattern, text):
            yield f"{short(file)} names the v1 dialect"


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
    files = 0
    for package in packages:
        name = package["name"]
        if show and name not in show:
            continue
        for target in package["targets"]:
            if target["kind"][0] in ("lib", "cdylib", "bin"):
                crate = Crate(name, target["src_path"])
                files += len(crate.lines)
                bad += [f"{name}: {knot}" for knot in knots(crate)]
                bad += [*too_long(crate), *too_wide(crate), *foreign(crate), *dialect(crate)]
    if bad:
        sys.exit("the house's shape (scripts/arrows.py):\n  " + "\n  ".join(bad))
    print(f"{len(packages)} crates, {files} files: all arrows allowed")


# With names of crates: only those.
main(sys.argv[1:])
