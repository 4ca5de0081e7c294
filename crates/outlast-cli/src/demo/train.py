"""A training run like any other: its samples grow, and with them the memory that a batch takes.

Usage: train.py OUTLAST LEDGER. Its batch size is a knob; it goes on from its checkpoint."""

import os, resource, subprocess, sys, time

STEPS, ROOM, SAMPLE = 100, 128 << 20, 36 << 10

outlast, ledger = sys.argv[1:]
batch = int(os.environ["OUTLAST_KNOB_BATCH_SIZE"])


def limit(bytes_):
    resource.setrlimit(resource.RLIMIT_AS, (bytes_, resource.RLIM_INFINITY))


def train(step):
    """Needs a batch of samples at once; a machine with little memory has no room for more."""
    with open("/proc/self/statm") as used:
        limit(int(used.read().split()[0]) * resource.getpagesize() + ROOM)
    try:
        samples = [bytearray(SAMPLE * step) for _ in range(batch)]
        return sum(map(len, samples))
    finally:
        limit(resource.RLIM_INFINITY)


step = 0
code = subprocess.run([outlast, "task", "restore", "point"], stdout=subprocess.DEVNULL).returncode
if code == 0:
    with open("point") as point:
        step = int(point.read())
elif code != 3:
    sys.exit(f"restore failed: {code}")
while step < STEPS:
    train(step + 1)
    step += 1
    time.sleep(0.03)
    with open(ledger, "a") as line:
        line.write(f"{os.environ['OUTLAST_ATTEMPT']} {batch} {step}\n")
    if step % 10 == 0:
        with open("point", "w") as point:
            point.write(str(step))
        subprocess.run([outlast, "task", "checkpoint", "point"], stdout=subprocess.DEVNULL, check=True)
print(f"trained {STEPS} steps, the last ones with batches of {batch}")
