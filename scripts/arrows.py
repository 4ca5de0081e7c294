"""Checks that the crates depend on each other only as ARCHITECTURE.md says."""
import json, subprocess, sys

# What each crate may use. The core must never learn of stores, sockets or shells.
ALLOWED = {
    "outlast-wire": set(),
    "outlast-core": {"outlast-wire"},
    "outlast-sqlite": set(),
    "outlast-store": {"outlast-sqlite", "outlast-wire", "outlast-core"},
    "outlast-net": {"outlast-wire"},
    "outlast-spawn": set(),
    "outlast-browser": set(),
    "outlast-blob": {"outlast-sqlite"},
    "outlast-chaos": set(),
    "outlast-worker": {"outlast-blob", "outlast-spawn", "outlast-wire", "outlast-core", "outlast-store", "outlast-net"},
    "outlast-coordinator": {"outlast-blob", "outlast-wire", "outlast-core", "outlast-store", "outlast-net"},
    "outlast": {"outlast-wire", "outlast-core", "outlast-worker"},
    "outlast-torture": {"outlast", "outlast-chaos", "outlast-wire"},
    "outlast-fuzz": {"outlast-blob", "outlast-coordinator", "outlast-core", "outlast-wire", "outlast-worker"},
    "outlast-python": {"outlast", "outlast-core", "outlast-worker"},
    "outlast-sim": {"outlast-wire", "outlast-core", "outlast-store"},
}
PURE = {"outlast-core": {"tokio", "rusqlite", "axum", "mio", "libc", "nix"}}

meta = json.loads(subprocess.check_output(
    ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"]))
bad = []
for package in meta["packages"]:
    name = package["name"]
    deps = {d["name"] for d in package["dependencies"] if d["kind"] is None}
    if name in ALLOWED:
        ours = {d for d in deps if d.startswith("outlast")}
        bad += [f"{name} -> {d}" for d in sorted(ours - ALLOWED[name])]
    bad += [f"{name} -> {d}" for d in sorted(deps & PURE.get(name, set()))]
if bad:
    sys.exit("dependency arrows that ARCHITECTURE.md forbids:\n  " + "\n  ".join(bad))
print(f"{len(meta['packages'])} crates, all arrows allowed")
