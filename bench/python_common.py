"""What the Python benchmarks share."""

import contextlib
import os
import shutil
import socket
import subprocess
import time


def command():
    """The `outlast` command: $OUTLAST_BIN, else the one on the PATH."""
    found = os.environ.get("OUTLAST_BIN") or shutil.which("outlast")
    if not found:
        raise SystemExit("no outlast command: pip install ./python, or set OUTLAST_BIN")
    return found


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def coordinator(folder):
    """A coordinator of its own with its data in this folder; its address."""
    port = free_port()
    args = [command(), "coordinator", "--listen", f"127.0.0.1:{port}", "--data-dir", str(folder),
            "--no-keys"]
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        else:
            raise SystemExit("the coordinator did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
