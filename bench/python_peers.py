"""No-op tasks a second: Outlast, Dask and Ray, in turns in one run on one machine.

Not part of CI. Needs an environment outside the repository:

    python3 -m venv ~/peers && . ~/peers/bin/activate
    pip install ./python 'dask[distributed]' ray
    python bench/python_peers.py

Each maps the same function over numbers on two slots in processes of their own and takes all results;
starting up is not counted, and a tenth of the tasks are run before, to warm up. Outlast writes every
task and every result to disk, synced, at both sides; the others keep them in memory. Whoever is not
installed is left out.
"""

import argparse
import contextlib
import importlib
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from python_common import coordinator  # noqa: E402

SLOTS = 2


def noop(n):
    return n


@contextlib.contextmanager
def outlast():
    import outlast as package

    with tempfile.TemporaryDirectory(prefix="peers-", dir=".") as folder:
        with coordinator(Path(folder) / "coordinator") as url:
            serve = [sys.executable, __file__, "--serve", url, str(Path(folder) / "worker")]
            worker = subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            try:
                assert worker.stdout.readline() == b"ready\n"
                client = package.Client(url)
                yield lambda numbers: list(client.map("noop", numbers))
            finally:
                worker.stdin.close()
                worker.wait(30)


def serve(url, folder):
    import outlast as package

    worker = package.Worker(url, name="peers", slots=SLOTS, state_dir=folder)
    worker.task(noop)
    with worker:
        while not worker.connected:
            time.sleep(0.01)
        print("ready", flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def dask():
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=SLOTS, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            yield lambda numbers: client.gather(client.map(noop, numbers, pure=False))


@contextlib.contextmanager
def ray():
    import ray as package

    package.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        remote = package.remote(noop)
        yield lambda numbers: package.get([remote.remote(n) for n in numbers])
    finally:
        package.shutdown()


PEERS = {"Outlast": ("outlast", outlast), "Dask": ("distributed", dask), "Ray": ("ray", ray)}


def once(name, tasks):
    with PEERS[name][1]() as run:
        run(range(tasks // 10))
        began = time.perf_counter()
        found = run(range(tasks))
        took = time.perf_counter() - began
    assert list(found) == list(range(tasks))
    return tasks / took


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(*given.serve)
    if given.once:
        return print("rate", once(given.once, given.tasks))
    rates = {name: [] for name, (module, _) in PEERS.items() if importlib.util.find_spec(module)}
    for _ in range(given.rounds):
        for name in rates:
            call = [sys.executable, __file__, "--once", name, "--tasks", str(given.tasks)]
            out = subprocess.run(call, capture_output=True, text=True, timeout=300)
            told = [line.split()[1] for line in out.stdout.splitlines() if line.startswith("rate ")]
            if not told:
                raise SystemExit(f"{name} failed:\n{out.stdout}{out.stderr}")
            rates[name].append(float(told[0]))
    load = os.getloadavg()[0]
    print(f"{given.tasks} no-op tasks, {SLOTS} slots, {given.rounds} rounds in turns, Python"
          f" {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}\n")  # fmt: skip
    print("| | version | tasks/s, median (least to most) | Outlast's, of that |\n|---|---|---|---|")
    ours = statistics.median(rates["Outlast"]) if "Outlast" in rates else float("nan")
    for name, seen in rates.items():
        middle = statistics.median(seen)
        print(f"| {name} | {importlib.import_module(PEERS[name][0]).__version__} | {middle:,.0f} ({min(seen):,.0f} to"
              f" {max(seen):,.0f}) | {ours / middle:.1f} × |")  # fmt: skip
    return None


if __name__ == "__main__":
    sys.exit(main())
