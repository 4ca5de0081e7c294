"""How long a NumPy checkpoint takes, beside ``numpy.save`` with fsync, on one disk in one run.

    pip install ./python numpy
    python bench/python_checkpoint.py [--mb 100] [--repeat 5] [--folder .]

Each repetition times first one and then the other, in turns, with fresh data, after the upload of
the one before has ended. Neither's files are removed meanwhile: who writes into pages that were just
freed is quicker. Exits with 1 if a median ratio is above 1.5.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy
import outlast

sys.path.insert(0, str(Path(__file__).resolve().parent))
from python_common import coordinator  # noqa: E402


def arrays(kind, size, repeat):
    """Fresh arrays of float64 of so many bytes."""
    make = numpy.random.default_rng(7)
    count = size // 8
    weights = make.standard_normal(count)
    for n in range(repeat):
        if kind == "random bits":
            yield numpy.frombuffer(make.bytes(size), dtype="f8")
        elif kind == "weights":
            yield make.standard_normal(count) * 0.02
        elif kind == "float32 in float64":
            yield make.standard_normal(count, dtype="f4").astype("f8")
        elif kind == "nine in ten are zero":
            yield make.standard_normal(count) * (make.random(count) < 0.1)
        else:  # one row in a hundred changes from one to the next
            weights = weights.copy()
            rows = weights[: count // 1000 * 1000].reshape(-1, 1000)
            first = make.integers(0, len(rows) - len(rows) // 100)
            rows[first : first + len(rows) // 100] += 1e-3
            yield weights


KINDS = ["random bits", "weights", "float32 in float64", "nine in ten are zero", "1% changed"]


def saved(array, path):
    with open(path, "wb") as file:
        numpy.save(file, array)
        file.flush()
        os.fsync(file.fileno())


def touch():
    """A virtual machine is given its memory when it first uses it, which costs several times what a
    write does, and would befall one or the other by chance: all free memory is used once."""
    free = {line.split()[0]: int(line.split()[1]) for line in open("/proc/meminfo")}["MemFree:"] * 1024
    for _ in range(min(free // 2**30, 16) - 1):
        yield numpy.ones(2**27)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--mb", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", default=".", help="on the disk to measure")
    parser.add_argument("--isolation", default="process", help="where the task runs: process or thread")
    given = parser.parse_args()
    list(touch())
    folder = Path(tempfile.mkdtemp(prefix="checkpoint-bench-", dir=given.folder))
    try:
        with coordinator(folder / "coordinator") as url:
            return measure(url, folder, given)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def delivered(client, task, count):
    end = time.monotonic() + 120
    while len(client.checkpoints(task)) < count:
        assert time.monotonic() < end, "the upload did not end"
        time.sleep(0.05)
    os.sync()


def run(url, folder, mb, repeat, kind):
    """The task: seconds of each, in pairs."""
    task, client, times = outlast.current_task(), outlast.Client(url), []
    for n, array in enumerate(arrays(kind, mb * 1_000_000, repeat + 1)):
        path = Path(folder) / f"{kind}-{n}.npy"
        os.sync()
        pair = {}
        for what in ("save", "checkpoint") if n % 2 else ("checkpoint", "save"):
            began = time.perf_counter()
            if what == "save":
                saved(array, path)
            else:
                task.checkpoint(array)
            pair[what] = time.perf_counter() - began
            if what == "checkpoint":
                delivered(client, task.task_id, n + 1)
        times.append(pair)
    assert numpy.array_equal(task.restore().view("u8"), array.view("u8"))
    return times[1:]  # the first warms up


def measure(url, folder, given):
    worker = outlast.Worker(
        url, name="bench", state_dir=folder / "worker", isolation=given.isolation
    )
    worker.task(run)
    client = outlast.Client(url)
    worst = 0.0
    print(f"{given.mb} MB, {given.repeat} repetitions, median (least to most)\n")
    print(f"{'data':22} {'numpy.save + fsync':>26} {'checkpoint':>26} {'ratio':>20}")
    with worker:
        for kind in KINDS:
            call = (url, str(folder), given.mb, given.repeat, kind)
            pairs = client.submit_call("run", *call).result(600)
            save, made = ([p[k] for p in pairs] for k in ("save", "checkpoint"))
            ratios = [b / a for a, b in zip(save, made)]
            worst = max(worst, statistics.median(ratios))
            cells = [
                f"{statistics.median(values) * scale:.{digits}f} {unit}"
                f" ({min(values) * scale:.{digits}f}–{max(values) * scale:.{digits}f})"
                for values, scale, digits, unit in (
                    (save, 1000, 0, "ms"), (made, 1000, 0, "ms"), (ratios, 1, 2, "×"),
                )
            ]  # fmt: skip
            print(f"{kind:22} {cells[0]:>26} {cells[1]:>26} {cells[2]:>20}", flush=True)
    print(f"\nworst median ratio {worst:.2f}, aimed at: 1.5 or less")
    return 0 if worst <= 1.5 else 1


if __name__ == "__main__":
    sys.exit(main())
