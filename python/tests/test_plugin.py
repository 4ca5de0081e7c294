"""The plugin's contract."""

import datetime
import sys
import threading
import time

import outlast
import pytest
from outlast.worker_reconnection import (
    ConnectionState,
    ConnectionStats,
    WorkerReconnectionManager,
    WorkerReconnectionPlugin,
    create_worker_reconnection_plugin,
)

from conftest import free_port, threads, until


class Base:
    def __init__(self, url, **given):
        self.coordinator_url = url
        self.worker_id = f"w-{time.monotonic_ns()}"
        self.__dict__.update(given)


@pytest.fixture
def plugged(shared):
    """Starts a worker around a function, and gives (plugin, submit)."""
    made = []

    def plug(execute=None, **given):
        worker = Base(shared.url, **given)
        # Other tests' workers are stopped; this label-free fleet has one member at a time.
        if execute is not None:
            worker.execute_task = lambda task_id, config: execute(plugin, task_id, config)
        plugin = create_worker_reconnection_plugin(worker)
        made.append(plugin)
        until(plugin.is_connected)
        client = shared.client()
        return plugin, lambda **config: client.submit_call("execute_task", **config)

    yield plug
    for plugin in made:
        plugin.stop()
    until(lambda: not threads(), what="the end of all threads")


def test_a_result(plugged):
    plugin, submit = plugged(lambda p, task_id, config: {"id": task_id, **config})
    task = submit(x=[1, None])
    assert task.result(120) == {"id": task.id, "x": [1, None]}
    assert plugin.worker.reconnection_plugin is plugin


@pytest.mark.parametrize("word", ["running", "in_progress"])
def test_a_result_that_comes_later(plugged, word):
    begun = threading.Event()

    def execute(p, task_id, config):
        begun.set()
        return {"status": word}

    plugin, submit = plugged(execute)
    task = submit()
    assert begun.wait(30)
    time.sleep(1)
    assert task.info()["state"] == "assigned"
    plugin.submit_task_result(task.id, {"n": 1})
    assert task.result(60) == {"n": 1}
    failed = submit()
    until(lambda: failed.info()["state"] == "assigned", 60, "the second task")
    until(lambda: submits(plugin, failed.id), 60, "the failure")
    fails(failed, "boom")


def submits(plugin, task_id):
    try:
        plugin.submit_task_result(task_id, None, error="boom")
        return True
    except outlast.TaskNotRunning:
        return False


def test_a_task_whose_result_would_come_later_can_be_cancelled(plugged):
    _, submit = plugged(lambda p, task_id, config: {"status": "running"})
    task = submit()
    until(lambda: task.info()["state"] == "assigned", 60, "the task")
    task.cancel()
    until(lambda: task.info()["state"] == "cancelled", 60, "the cancel")


def test_a_result_with_more_than_a_status_is_a_result(plugged):
    _, submit = plugged(lambda p, task_id, config: config["answer"])
    for answer in ({"status": "running", "port": 80}, {"status": "completed"}):
        assert submit(answer=answer).result(60) == answer


def fails(task, *patterns):
    with pytest.raises(outlast.TaskFailed) as failed:
        task.result(15)
    for pattern in patterns:
        assert pattern in str(failed.value)
    return failed.value


def test_an_executor_that_raises(plugged):
    def execute(p, task_id, config):
        {}["missing"]

    _, submit = plugged(execute)
    error = fails(submit(), "KeyError: 'missing'", "in execute")
    assert set(error.result["value"]) == {"message", "traceback"}
    assert error.message == "KeyError: 'missing'"
    assert error.remote_traceback.count("File ") == 2  # the lambda and the function: ours are not shown


def test_sys_exit_ends_the_task_and_not_the_worker(plugged):
    def execute(p, task_id, config):
        if config["exit"]:
            sys.exit(3)
        return {}

    _, submit = plugged(execute)
    fails(submit(exit=True), "the task called sys.exit(3)")
    assert submit(exit=False).result(120) == {}


def test_results_that_cannot_be_serialised(plugged):
    kinds = {"lambda": lambda: 0, "lock": threading.Lock(), "large": "x" * (1 << 20)}
    _, submit = plugged(lambda p, task_id, config: {"it": kinds[config["kind"]]})
    fails(submit(kind="lambda"), "SerializationError", "not JSON", "cannot be pickled")
    fails(submit(kind="lock"), "cannot be pickled")
    fails(submit(kind="large"), "bytes of JSON, more than 1048576")


def test_without_pickle(plugged):
    def execute(p, task_id, config):
        if config["what"] == "result":
            return {1, 2}
        p.create_checkpoint(task_id, {"t": (1,)})

    _, submit = plugged(execute, allow_pickle=False)
    fails(submit(what="result"), "set is not JSON", "turned off")
    fails(submit(what="checkpoint"), "not exactly JSON", "turned off")


def test_no_executor(plugged):
    _, submit = plugged()
    fails(submit(), "Base has no execute_task(task_id, task_config) method")


def test_a_submitted_result_decides(plugged):
    def execute(p, task_id, config):
        if config["fail"]:
            p.submit_task_result(task_id, {}, {"message": "broken", "traceback": "line 1"})
        else:
            p.submit_task_result(task_id, {"a": 1})
            with pytest.raises(outlast.InvalidData):
                p.submit_task_result(task_id, {"a": 2})
        return {"ignored": True}

    _, submit = plugged(execute)
    assert submit(fail=False).result(120) == {"a": 1}
    assert fails(submit(fail=True), "broken").remote_traceback == "line 1"


def test_checkpoints_and_state(plugged):
    def execute(p, task_id, config):
        assert p.get_latest_checkpoint(task_id) is None
        first = p.create_checkpoint(task_id, {"n": 1})
        second = p.create_checkpoint(task_id, {"n": 2, "t": (1,)})
        assert isinstance(first, str) and first != second
        assert p.get_latest_checkpoint(task_id) == {"n": 2, "t": (1,)}
        p.update_task_state(task_id, {"a": 1, "b": 2})
        p.update_task_state(task_id, {"b": None, "c": float("nan"), "progress": 0.25})
        return {}

    _, submit = plugged(execute)
    task = submit()
    assert task.result(120) == {}
    state = until(lambda: task.state()["version"] >= 2 and task.state())
    assert state["state"] == {"a": 1, "c": "nan", "progress": 0.25} and state["progress"] == 0.25


def test_several_threads_of_a_task(plugged):
    def execute(p, task_id, config):
        made, errors = [], []

        def work(n):
            try:
                for i in range(5):
                    p.update_task_state(task_id, {f"t{n}": i})
                    made.append(p.create_checkpoint(task_id, {"n": n, "i": i}))
            except BaseException as e:
                errors.append(repr(e))

        all_ = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        [t.start() for t in all_]
        [t.join() for t in all_]
        return {"different": len(set(made)), "errors": errors}

    _, submit = plugged(execute)
    assert submit().result(120) == {"different": 30, "errors": []}


def test_a_task_that_does_not_run(plugged):
    plugin, _ = plugged(lambda *_: {})
    for call in (
        lambda: plugin.create_checkpoint("nope", {}),
        lambda: plugin.get_latest_checkpoint("nope"),
        lambda: plugin.update_task_state("nope", {}),
        lambda: plugin.submit_task_result("nope", {}),
    ):
        with pytest.raises(outlast.TaskNotRunning, match="does not run a task 'nope'"):
            call()


def test_cancel_reaches_a_guide_like_loop(plugged):
    ended = []

    def execute(p, task_id, config):
        try:
            while True:
                p.update_task_state(task_id, {"alive": True})
                time.sleep(0.01)
        finally:
            ended.append(task_id)

    _, submit = plugged(execute)
    task = submit()
    until(lambda: task.info()["started_at"])
    task.cancel()
    with pytest.raises(outlast.TaskCancelled):
        task.result(120)
    until(lambda: ended == [task.id])


def test_stop_with_a_task_that_never_returns(plugged):
    running = threading.Event()

    def execute(p, task_id, config):
        running.set()
        while True:
            time.sleep(0.01)

    plugin, submit = plugged(execute)
    task = submit()
    assert running.wait(10)
    began = time.monotonic()
    plugin.stop(timeout=2)
    assert time.monotonic() - began < 30
    until(lambda: not threads())
    assert plugin.reconnection_manager.connection_state is ConnectionState.SHUTDOWN
    task.cancel()


def test_a_time_limit(plugged, shared):
    def execute(p, task_id, config):
        while True:
            time.sleep(0.01)

    plugged(execute)
    task = shared.client().submit_call("execute_task", spec={"timeout": 0.3})
    assert fails(task, "longer than its time limit of 0.3 s").result["outcome"] == "timed_out"


def test_a_task_that_hangs_in_c_is_named(shared):
    hang = threading.Event()  # a wait without a timeout
    manager = WorkerReconnectionManager("hangs", shared.url, task_executor=lambda *_: hang.wait())
    manager.start()
    task = shared.client().submit_call("execute_task")
    until(lambda: manager._runner.running())
    with pytest.raises(outlast.OutlastError, match=f"{task.id} did not end within 1 s"):
        manager.stop(timeout=1)
    with pytest.raises(outlast.StoppedError):
        manager.force_reconnect()
    hang.set()
    until(lambda: not threads())
    manager.start()
    assert task.result(120) is True  # what it returned in the end was kept
    manager.stop()


def test_use_after_stop_and_start_again(plugged):
    plugin, submit = plugged(lambda *_: {"again": True})
    manager = plugin.reconnection_manager
    plugin.stop()
    plugin.stop()
    assert not plugin.is_connected()
    assert plugin.get_connection_stats().successful_connections == 1
    for call in (
        plugin.force_reconnect,
        manager.reset_connection_stats,
        lambda: plugin.create_checkpoint("x", {}),
        lambda: plugin.update_task_state("x", {}),
    ):
        with pytest.raises(outlast.StoppedError, match="has been stopped"):
            call()
    plugin.start()
    plugin.start()
    assert submit().result(120) == {"again": True}


def test_statistics(plugged):
    plugin, _ = plugged(lambda *_: {}, reconnection_config={"heartbeat_interval": 0.1})
    manager = plugin.reconnection_manager
    stats = until(lambda: (s := plugin.get_connection_stats()).latency_samples and s)
    assert stats.average_latency >= 0 and stats.connection_success_rate == 1.0
    assert abs(datetime.datetime.now() - stats.last_connected) < datetime.timedelta(seconds=30)
    assert stats.last_disconnected is None and stats.connected_time > 0
    plugin.force_reconnect()
    until(lambda: plugin.is_connected() and plugin.get_connection_stats().connection_attempts == 2)
    assert plugin.get_connection_stats().last_disconnected is not None
    manager.reset_connection_stats()
    stats = plugin.get_connection_stats()
    assert stats.connection_attempts == 0 and stats.connected_time < 1 and manager.is_healthy()
    assert manager.get_connection_state() is ConnectionState.CONNECTED


def test_statistics_by_themselves():
    stats = ConnectionStats()
    assert (stats.average_latency, stats.connection_stability, stats.connection_success_rate) == (0.0, 1.0, 1.0)
    for n in range(150):
        stats.add_latency_sample(n)
    assert len(stats.latency_samples) == 100 and stats.latency_samples[0] == 50
    stats = ConnectionStats(connected_time=3, disconnected_time=1, connection_attempts=4, successful_connections=1)
    assert stats.connection_stability == 0.75 and stats.connection_success_rate == 0.25
    assert [s.name for s in ConnectionState] == "CONNECTED CONNECTING DISCONNECTED FAILED SHUTDOWN".split()


@pytest.mark.parametrize(
    "config, says",
    [
        ({"heartbeat_intervall": 3}, "did you mean 'heartbeat_interval'"),
        ({"max_reconnect_attempt": 3}, "did you mean 'max_reconnect_attempts'"),
        ({"heartbeat_interval": "3"}, "heartbeat_interval must be a number, not '3'"),
        ({"heartbeat_interval": 0}, "above 0"),
        ({"heartbeat_interval": float("nan")}, "above 0"),
        ({"heartbeat_interval": 20}, "heartbeat_timeout"),
        ({"ws_ping_timeout": 0}, "ws_ping_timeout must be above 0"),
        ({"reconnect_jitter": 2}, "from 0 to 1"),
        ({"max_reconnect_attempts": 1.5}, "a whole number"),
        ({"max_reconnect_attempts": True}, "a number"),
        ({"max_reconnect_delay": 0.1}, "less than"),
        ([1], "must be a dict"),
    ],
)
def test_bad_configuration(config, says):
    with pytest.raises(outlast.ConfigurationError, match=says.replace("(", r"\(")):
        WorkerReconnectionPlugin(Base("http://127.0.0.1:1", reconnection_config=config))


def test_defaults_and_configure():
    manager = WorkerReconnectionManager("w", "http://127.0.0.1:1")
    assert manager.config == {
        "heartbeat_interval": 5.0, "heartbeat_timeout": 15.0, "initial_reconnect_delay": 1.0,
        "max_reconnect_delay": 60.0, "reconnect_jitter": 0.2, "max_reconnect_attempts": 0,
        "checkpoint_interval": 300, "connection_health_threshold": 0.7, "message_retry_count": 3,
        "ws_ping_interval": 30, "ws_ping_timeout": 10, "state_sync_batch_size": 100,
    }  # fmt: skip
    manager.configure({"reconnect_jitter": 0})
    manager.configure({"heartbeat_timeout": 20})
    assert manager.config["reconnect_jitter"] == 0 and manager.config["heartbeat_timeout"] == 20
    manager.config["nonsense"] = 1
    with pytest.raises(outlast.ConfigurationError, match="nonsense"):
        manager.start()


@pytest.mark.parametrize("name", ["", "a/b", "ü", "x" * 129, 7])
def test_bad_worker_ids(name):
    with pytest.raises(outlast.ConfigurationError, match="not a worker id"):
        WorkerReconnectionManager(name, "http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["", None, 5, "ftp://x", "http://", "http://h:0", "http://u@h"])
def test_bad_addresses(url, tmp_path):
    with pytest.raises(outlast.ConfigurationError):
        WorkerReconnectionManager("w", url, state_dir=tmp_path).start()


def test_no_address():
    with pytest.raises(outlast.ConfigurationError, match="object has no coordinator_url"):
        create_worker_reconnection_plugin(object())


@pytest.mark.parametrize("form", ["http://{}", "http://{}/", "ws://{}", "{}", "{}/", "ws://{}/api/v1/worker/w/ws",
                                  "{}/api/v2/worker/other/ws/"])  # fmt: skip
def test_all_forms_of_the_address(shared, form, tmp_path):
    manager = WorkerReconnectionManager("forms", form.format(f"127.0.0.1:{shared.port}"), state_dir=tmp_path)
    manager.start()
    try:
        until(manager.is_connected)
    finally:
        manager.stop()


def test_unreachable_until_failed_and_forced(processes, tmp_path, coordinator):
    coordinator.kill()
    manager = WorkerReconnectionManager("w", coordinator.url, task_executor=lambda *_: {"ok": 1})
    manager.configure({"initial_reconnect_delay": 0.05, "max_reconnect_delay": 0.1, "max_reconnect_attempts": 2})
    manager.start()
    until(lambda: manager.connection_state is ConnectionState.FAILED)
    assert "cannot reach" in manager.connection_reason
    time.sleep(0.3)
    assert manager.connection_state is ConnectionState.FAILED
    coordinator.start()
    manager.force_reconnect()
    until(manager.is_connected)
    assert coordinator.client().submit_call("execute_task").result(120) == {"ok": 1}
    stats = manager.get_connection_stats()
    assert stats.failed_connections >= 2 and stats.connection_success_rate < 1
    manager.stop()


def test_a_wrong_key(processes, tmp_path):
    import subprocess

    from conftest import Coordinator, binary

    coordinator = Coordinator(processes, tmp_path / "c")
    made = subprocess.run(
        [binary(), "keys", "--data-dir", tmp_path / "c", "add", "admin", "--role", "operate"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    coordinator.kill()  # it would notice the first key, but only within a second
    coordinator.start()
    manager = WorkerReconnectionManager("w", coordinator.url, api_key="wrong")
    manager.start()
    until(lambda: "401" in manager.connection_reason)
    assert not manager.is_connected()
    manager.stop()
    with pytest.raises(outlast.Refused) as refused:
        coordinator.client(api_key="wrong").counts()
    assert refused.value.status == 401
    key = next(w for w in made.stdout.split() if w.startswith("olk_"))
    assert coordinator.client(api_key=key).workers() == []


def test_two_processes_may_not_share_a_folder(shared, tmp_path):
    first = WorkerReconnectionManager("a", shared.url, state_dir=tmp_path / "s")
    second = WorkerReconnectionManager("b", shared.url, state_dir=tmp_path / "s")
    first.start()
    with pytest.raises(outlast.StateFolderError):
        second.start()
    first.stop()
    second.start()
    second.stop()
    with pytest.raises(outlast.StateFolderError):
        WorkerReconnectionManager("c", shared.url, state_dir="/proc/nowhere").start()


def test_the_state_folder_is_told(tmp_path, caplog):
    caplog.set_level("INFO", "outlast")
    manager = WorkerReconnectionManager("w:1", f"127.0.0.1:{free_port()}")
    manager.start()
    manager.stop()
    folder = tmp_path / "state" / "outlast" / "workers" / "w%3A1"
    assert (folder / "worker.db").exists()
    assert f"kept in {folder}" in caplog.text
