"""Mutation tests of the core: small mistakes that its unit tests or the simulator must notice.

`scripts/mutants/*.toml` list the mutations: id, file, the text to find, its replacement, and the rule
that it breaks. All of them are applied at once to a copy of the sources, each behind a switch
(`if mutant::on(17) { mutated } else { original }`; where that cannot be written, the replacement has the
switch in it, as `@on`), so that one build serves all. Then, for each, the
core's unit tests and the simulator run with that switch on. The committed sources have no switches.

    python3 scripts/mutants.py                 all; exit status 1 if one survives that is not argued for
    python3 scripts/mutants.py --only ID,ID    some
    python3 scripts/mutants.py --list          only checks the lists, and prints them
    python3 scripts/mutants.py --json FILE     writes what caught each
    python3 scripts/mutants.py --both          also simulates what the unit tests catch
"""
import argparse, concurrent.futures, json, os, re, subprocess, sys, time, tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = ROOT / "scripts" / "mutants"
CORE = Path("crates/outlast-core")
WORK = ROOT / "target" / "mutants"
TREE = WORK / "tree"
# Dependencies keep the profile of ordinary builds; ours are optimised too, and check arithmetic.
OURS = ["outlast-core", "outlast-store", "outlast-wire", "outlast-sqlite", "outlast-sim"]
FIELDS = {"id", "find", "replace", "rule", "equivalent", "open", "within", "file"}

SWITCH = """//! Which mutation is on. Only in the copy that `scripts/mutants.py` makes.
#![allow(missing_docs)]
use std::sync::LazyLock;
static ON: LazyLock<u32> =
    LazyLock::new(|| std::env::var("OUTLAST_MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0));
pub fn on(n: u32) -> bool {
    *ON == n
}
"""


def load():
    """All mutations, in order, each with its number."""
    mutants, seen, bad = [], set(), []
    for path in sorted(LISTS.glob("*.toml")):
        for m in tomllib.loads(path.read_text())["mutant"]:
            name = m.get("id", "?")
            if unknown := set(m) - FIELDS:
                bad.append(f"{path.name}: {name}: unknown fields {sorted(unknown)}")
            if missing := {"id", "file", "find", "replace", "rule"} - set(m):
                bad.append(f"{path.name}: {name}: lacks {sorted(missing)}")
            if name in seen:
                bad.append(f"{path.name}: {name}: the id is there twice")
            seen.add(name)
            mutants.append(m | {"number": len(mutants) + 1, "list": path.name})
    return mutants, bad


def pattern(text):
    """Matches the text, however it is wrapped."""
    return re.compile(r"\s+".join(re.escape(word) for word in text.split()))


def region(source, anchor):
    """From the line of the anchor to the line that closes its block; or why there is none."""
    places = [m.start() for m in pattern(anchor).finditer(source)]
    if len(places) != 1:
        return f"`within` matches {len(places)} times: {anchor}"
    start = source.rfind("\n", 0, places[0]) + 1
    indent = re.match(r" *", source[start:]).group()
    end = re.compile(rf"^{indent}\}}", re.M).search(source, places[0])
    return (places[0], end.end()) if end else f"nothing closes {anchor}"


def locate(m, source):
    """Where the mutation applies; or what is wrong with it."""
    first, last = 0, len(source)
    # Tests are not mutated.
    if (tests := source.find("#[cfg(test)]\nmod tests {")) >= 0:
        last = tests
    if "within" in m:
        found = region(source[:last], m["within"])
        if isinstance(found, str):
            return found
        first, last = found
    places = [(p.start(), p.end()) for p in pattern(m["find"]).finditer(source, first, last)]
    return places[0] if len(places) == 1 else f"the text matches {len(places)} times: {m['find']}"


def render(source, start, end, nodes):
    """The text between two offsets with the mutations in it; inner ones stay inside outer ones."""
    out, at = [], start
    nodes = sorted(nodes, key=lambda n: (n[0], -n[1]))
    while nodes:
        (a, b, here), rest = nodes[0], nodes[1:]
        inner = [n for n in rest if n[1] <= b]
        nodes = [n for n in rest if n[1] > b]
        out.append(source[at:a])
        text = render(source, a, b, inner)
        statement = text.rstrip()[-1] in ";}"
        for m in reversed(here):
            switch = f"crate::mutant::on({m['number']} /* {m['id']} */)"
            if "@on" in m["replace"]:
                text, statement = m["replace"].replace("@on", switch), True
                continue
            text = f"if {switch} {{ {m['replace']} }} else {{ {text} }}"
        out.append(text if statement else f"({text})")
        at = b
    out.append(source[at:end])
    return "".join(out)


def mutate(mutants):
    """The mutated files by path; and what is wrong with the lists."""
    files, bad = {}, []
    for m in mutants:
        path = CORE / "src" / m["file"]
        if not (ROOT / path).is_file():
            bad.append(f"{m['id']}: there is no {path}")
            continue
        source = files.setdefault(path, ((ROOT / path).read_text(), {}))
        place = locate(m, source[0])
        if isinstance(place, str):
            bad.append(f"{m['id']}: {path}: {place}")
            continue
        source[1].setdefault(place, []).append(m)
    made = {}
    for path, (source, places) in files.items():
        spans = sorted(places)
        for (a, b), (c, d) in ((x, y) for i, x in enumerate(spans) for y in spans[i + 1:]):
            if c < b < d and a < c:
                names = [places[(a, b)][0]["id"], places[(c, d)][0]["id"]]
                bad.append(f"{' and '.join(names)} overlap")
        # What has its own switch holds nothing else.
        for (a, b), here in places.items():
            raw = [m["id"] for m in here if "@on" in m["replace"]]
            others = [m["id"] for (c, d), ms in places.items() for m in ms if a <= c and d <= b]
            if raw and len(others) > 1:
                bad.append(f"{raw[0]} replaces the text of {', '.join(set(others) - {raw[0]})}, too")
        made[path] = render(source, 0, len(source), [(a, b, ms) for (a, b), ms in places.items()])
    return made, bad


def write(path, data):
    """Writes what differs, so that builds start from what they have."""
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def copy(made):
    """The sources, with the mutations, below target/mutants/tree."""
    tracked = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "Cargo.toml", "Cargo.lock",
         ".cargo", "crates", "python"], cwd=ROOT)
    wanted = {Path(p) for p in tracked.decode().split("\0") if p and (ROOT / p).is_file()}
    for path in wanted:
        data = (ROOT / path).read_bytes()
        if path in made:
            data = made[path].encode()
        if path == CORE / "src/lib.rs":
            text = made.get(path, data.decode())
            head = re.sub(r"^(?=pub mod |mod )", "#[doc(hidden)]\npub mod mutant;\n", text, count=1, flags=re.M)
            data = re.sub(r"^(?!//!)", "#![allow(warnings, clippy::all)]\n", head, count=1, flags=re.M).encode()
        write(TREE / path, data)
    write(TREE / CORE / "src/mutant.rs", SWITCH.encode())
    wanted.add(CORE / "src/mutant.rs")
    for path in TREE.rglob("*"):
        if path.is_file() and path.relative_to(TREE) not in wanted:
            path.unlink()


def build():
    """The core's test programs, and the simulator."""
    flags = [f for p in OURS for f in ("--config", f"profile.dev.package.{p}.opt-level=2")]

    target = ["--target-dir", str(WORK / "build"), "--message-format=json-render-diagnostics", *flags]
    programs = {"tests": [], "sim": None}
    for command in (["build", "-p", "outlast-sim"], ["test", "--no-run", "-p", "outlast-core"]):
        made = subprocess.run(["cargo", *command, *target], cwd=TREE, stdout=subprocess.PIPE, text=True)
        if made.returncode:
            sys.exit("the mutated copy does not build: the ids are in the lines above")
        for line in made.stdout.splitlines():
            unit = json.loads(line)
            if not unit.get("executable"):
                continue
            if command[0] == "test":
                programs["tests"].append(unit["executable"])
            elif unit["target"]["name"] == "outlast-sim":
                programs["sim"] = unit["executable"]
    return programs


def run(command, number, limit):
    """What shows that something is wrong, or None; a program that does not end shows it, too."""
    env = os.environ | {"OUTLAST_MUTANT": str(number), "RUST_BACKTRACE": "0"}
    try:
        done = subprocess.run(command, cwd=TREE / CORE, env=env, timeout=limit, text=True, errors="replace",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return f"no end within {limit:.0f} s"
    if done.returncode == 0:
        return None
    for shape in (r"^seed \d+: .*", r"^test (.*) \.\.\. FAILED", r"panicked at .*\n.*"):
        if found := re.findall(shape, done.stdout, re.M):
            more = f" and {len(found) - 1} more" if shape.startswith("^test") and len(found) > 1 else ""
            return (found[0] + more).replace("\n", " ")[:300]
    return f"exit status {done.returncode}"


class Checks:
    def __init__(self, programs, seeds):
        self.tests = [[p, "-q", "--test-threads=1"] for p in programs["tests"]]
        self.sim = [programs["sim"], "--seeds", str(seeds), "--threads", "1", "--stop-after", "1"]
        self.limits = (300.0, 1800.0)

    def unit(self, number):
        return next((w for t in self.tests if (w := run(t, number, self.limits[0]))), None)

    def simulate(self, number):
        return run(self.sim, number, self.limits[1])

    def baseline(self):
        """Without a mutation nothing is found. Sets the limits."""
        began = time.monotonic()
        if wrong := self.unit(0):
            sys.exit(f"without a mutation a unit test fails: {wrong}")
        units = time.monotonic() - began
        if wrong := self.simulate(0):
            sys.exit(f"without a mutation the simulator finds: {wrong}")
        took = time.monotonic() - began - units
        self.limits = (30 + 10 * units, 60 + 5 * took)
        print(f"without a mutation all is well: unit tests {units:.0f} s, simulator {took:.0f} s", flush=True)

    def judge(self, m, both):
        found = {"unit": self.unit(m["number"]), "sim": None}
        if both or not found["unit"]:
            found["sim"] = self.simulate(m["number"])
        return found


def verdict(found):
    return "unit tests" if found["unit"] else "simulator" if found["sim"] else "SURVIVED"


def table(mutants, results):
    for m in mutants:
        found = results[m["id"]]
        what = verdict(found)
        if what == "SURVIVED" and "equivalent" in m:
            what = "equivalent"
        how = found["unit"] or found["sim"] or m.get("equivalent") or m.get("open") or m["rule"]
        print(f"{m['id']:<44} {what:<11} {how[:120]}")
    counts = {}
    for m in mutants:
        what = verdict(results[m["id"]])
        counts[what] = counts.get(what, 0) + 1
    left = [m for m in mutants if verdict(results[m["id"]]) == "SURVIVED"]
    survivors = [m for m in left if "equivalent" not in m]
    viable = len(mutants) - (len(left) - len(survivors))
    caught = len(mutants) - len(left)
    print(f"\n{len(mutants)} mutations: {counts.get('unit tests', 0)} caught by unit tests, "
          f"{counts.get('simulator', 0)} by the simulator; {len(left) - len(survivors)} change nothing that "
          f"matters, {len(survivors)} survive: {caught} of {viable} ({100 * caught / max(viable, 1):.1f}%)")
    for m in mutants:
        if "equivalent" in m and m not in left:
            print(f"{m['id']} is caught, and the list says that it cannot be")
        if "open" in m and m not in left:
            print(f"{m['id']} is caught by now: take its `open` off the list")
    # A known gap is no failure of this run, but counts as one that survives.
    return [m["id"] for m in survivors if "open" not in m]


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--only", help="ids, with commas between them")
    args.add_argument("--list", action="store_true", help="check and print the lists, build nothing")
    args.add_argument("--json", help="write the results to this file")
    args.add_argument("--both", action="store_true", help="simulate also what the unit tests catch")
    args.add_argument("--seeds", type=int, default=1000)
    args.add_argument("--jobs", type=int, default=2)
    args = args.parse_args()
    mutants, bad = load()
    made, more = mutate(mutants)
    if bad := bad + more:
        sys.exit("the lists of mutations are not right:\n  " + "\n  ".join(bad))
    if args.list:
        for m in mutants:
            print(f"{m['number']:>3} {m['id']:<44} {m['rule']}" + (" (argued)" if "equivalent" in m else ""))
        return
    chosen = mutants
    if args.only:
        names = args.only.split(",")
        if unknown := set(names) - {m["id"] for m in mutants}:
            sys.exit(f"no such mutation: {', '.join(sorted(unknown))}")
        chosen = [m for m in mutants if m["id"] in names]
    copy(made)
    checks = Checks(build(), args.seeds)
    checks.baseline()
    results, began = {}, time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        runs = {pool.submit(checks.judge, m, args.both): m for m in chosen}
        for done in concurrent.futures.as_completed(runs):
            m, results[runs[done]["id"]] = runs[done], done.result()
            spent = time.monotonic() - began
            print(f"[{len(results)}/{len(chosen)} {spent:4.0f} s] {m['id']}: {verdict(results[m['id']])}", flush=True)
    if args.json:
        rows = [{k: m[k] for k in ("id", "file", "rule", "equivalent") if k in m} | results[m["id"]] for m in chosen]
        Path(args.json).write_text(json.dumps(rows, indent=1))
    print()
    if table(chosen, results):
        sys.exit(1)


if __name__ == "__main__":
    main()
