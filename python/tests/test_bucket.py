"""Checkpoints in an S3-class bucket: a real server, real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from conftest import Coordinator, binary, free_port, listens, until

TASK = """
set -e
if outlast task restore saved; then
    cat saved/data > restored
    outlast task artifact restored
else
    mkdir saved
    head -c 3000000 /dev/urandom > saved/data
    outlast task checkpoint saved >&2
    sleep 60
fi
"""


def s3():
    return boto3.client("s3", config=Config(proxies={}))


@pytest.fixture
def bucket(processes, monkeypatch):
    """The address of an empty bucket."""
    port = free_port()
    server = Path(sys.executable).with_name("moto_server")
    processes.start(server, "-H", "127.0.0.1", "-p", port)
    until(lambda: listens(port), 60, what="the S3 server")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        # It leads nowhere, and is not for servers of this machine.
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    s3().create_bucket(Bucket="checkpoints")
    return "s3://checkpoints/fleet"


def packs(prefix):
    found = s3().list_objects_v2(Bucket="checkpoints", Prefix=prefix)
    return [entry["Key"] for entry in found.get("Contents", [])]


def kill_all_of(worker, folder):
    """A worker with its keeper, as when a machine is lost."""
    found = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True).stdout
    for pid in map(int, found.split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    worker.wait()


def outlast(*args, ok=True):
    done = subprocess.run([binary(), *map(str, args)], capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout if ok else done.stderr


def test_checkpoints_outlive_their_worker_and_the_coordinator(bucket, processes, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(binary()).parent), prepend=":")
    data = tmp_path / "coordinator"
    coordinator = Coordinator(processes, data, "--blob-store", bucket)
    monkeypatch.setenv("OUTLAST_COORDINATOR", coordinator.url)

    def worker(name):
        return processes.start(binary(), "worker", "--name", name, "--state-dir", tmp_path / name)

    first = worker("first")
    client = coordinator.client()
    task = client.submit({"shell": TASK, "reconnect_window": 1})
    until(lambda: client.checkpoints(task), 30, what="the checkpoint")
    assert packs("fleet/packs/") and not (data / "blobs" / "packs").exists()
    outlast("task", "fetch", task.id, "-o", tmp_path / "fetched")

    # Worker and coordinator die; the bucket has the data.
    kill_all_of(first, tmp_path / "first")
    coordinator.kill()
    wrong = outlast("coordinator", "--listen", f"127.0.0.1:{free_port()}", "--data-dir", data, ok=False)
    assert f"start it with --blob-store {bucket}" in wrong
    coordinator.start()
    worker("second")
    end = task.wait(60)
    assert end["state"] == "succeeded" and end["attempt"] == 2, end
    # Its result is visible before what it kept has arrived.
    fetch = ("task", "fetch", task.id, "--artifact", "restored", "-o", tmp_path / "restored")
    deadline = time.monotonic() + 60
    while subprocess.run([binary(), *map(str, fetch)], capture_output=True, timeout=120).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (tmp_path / "restored").read_bytes() == (tmp_path / "fetched" / "data").read_bytes()

    # A backup has it all; what is restored from it may lie in a bucket again, not the same place.
    outlast("backup", tmp_path / "backup", "--data-dir", data)
    taken = outlast("restore", tmp_path / "backup", "--data-dir", tmp_path / "new", "--blob-store", bucket, ok=False)
    assert "give another prefix" in taken
    coordinator.kill()
    s3().delete_object(Bucket="checkpoints", Key=packs("fleet/packs/")[0])
    other = "s3://checkpoints/restored"
    outlast("restore", tmp_path / "backup", "--data-dir", tmp_path / "new", "--blob-store", other)
    restored = Coordinator(processes, tmp_path / "new", "--blob-store", other)
    monkeypatch.setenv("OUTLAST_COORDINATOR", restored.url)
    outlast("task", "fetch", task.id, "-o", tmp_path / "again")
    assert (tmp_path / "again" / "data").read_bytes() == (tmp_path / "fetched" / "data").read_bytes()


def test_a_bucket_that_cannot_be_used_is_said(processes, tmp_path, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ALLOW_HTTP": "true",
        # It leads nowhere, and is not for servers of this machine.
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    start = ("coordinator", "--listen", f"127.0.0.1:{free_port()}", "--data-dir", tmp_path / "data")
    assert "give a bucket as s3://BUCKET/PREFIX" in outlast(*start, "--blob-store", "bucket", ok=False)
    said = outlast(*start, "--blob-store", "s3://nowhere", ok=False)
    assert "s3://nowhere" in said, said
