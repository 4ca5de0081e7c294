"""Functions and arguments that travel, and what comes back."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import outlast
import pytest
from outlast import TaskContext

from conftest import until


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return (self.x, self.y) == (other.x, other.y)

    def norm(self, power=2):
        return abs(self.x) ** power + abs(self.y) ** power


class Odd(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} is odd")
        self.first, self.second = first, second


class Rebuilt(Exception):
    def __reduce__(self):
        return _no_way, ()


def _no_way():
    raise RuntimeError("this exception cannot be rebuilt")


def same(*args, **kwargs):
    return args, kwargs


def kinds(*args):
    return [type(a).__name__ for a in args]


def with_context(task: TaskContext, n):
    task.checkpoint(n)
    return task.attempt, task.restore()


def raises(error):
    raise error


not_a_function = 5


@pytest.fixture(scope="module", params=["process", "thread"])
def worker(request, shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("travel")
    worker = outlast.Worker(
        shared.url, name="travel", state_dir=folder, slots=2, isolation=request.param
    )
    worker.task(name="named")(kinds)
    with worker:
        until(lambda: worker.connected)
        yield worker


VALUES = [1, "x", None, [1.5, {"a": True}], (1, 2), {1: "a"}, b"raw", {3}, 1j, float("inf")]


def test_arguments_and_results_are_what_they_were(shared, worker):
    client = shared.client()
    args, kwargs = client.submit_call(same, *VALUES, p=Point(1, 2), q=[(1,)]).result(120)
    assert list(args) == VALUES and kwargs == {"p": Point(1, 2), "q": [(1,)]}
    assert client.submit_call(same).result(120) == ((), {})
    assert client.submit_call(divmod, 7, 2).result(120) == (3, 1)
    assert client.submit_call(Point.norm, Point(3, 4), power=2).result(120) == 25
    assert client.submit_call(Point, 3, 4).result(120) == Point(3, 4)
    assert client.submit_call(with_context, 4).result(120) == (1, 4)
    assert list(client.map(divmod, range(5), kwargs={}, timeout=120, return_exceptions=True))[0].message
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1000.0)
    assert (client.submit_call(numpy.cumsum, array).result(120) == numpy.cumsum(array)).all()


def order(*args, **kwargs):
    return [list(kwargs), list(args[0]), list(args[0]["z"])]


def test_the_order_of_names_is_kept(shared, worker):
    client = shared.client()
    call = ({"z": {"y": 1, "b": 2}, "a": 3},)
    assert client.submit_call(order, *call, q=1, c=2).result(120) == [["q", "c"], ["z", "a"], ["y", "b"]]
    # Another order is no other task.
    one = {"id": f"ordered-{time.time_ns()}", "call": {"function": "named", "args": {"b": 1, "a": 2}}}
    other = {**one, "call": {"function": "named", "args": {"a": 2, "b": 1}}}
    assert client.submit(one).new and not client.submit(other).new


def test_a_name_gets_json_where_that_is_possible(shared, worker):
    client = shared.client()
    assert client.submit_call("named", 1, (2, 3), "x").result(120) == ["int", "list", "str"]
    assert client.submit_call("named", 1, {2}, (3,)).result(120) == ["int", "set", "tuple"]


def test_by_value(shared, worker):
    client = shared.client(functions="cloudpickle")
    factor = 3

    def inner(n, depth=0):
        return inner(n, depth + 1) if depth < 2 else (n * factor, os.getpid() != here)

    here = os.getpid()
    away = worker.isolation == "process"
    assert client.submit_call(inner, 5).result(120) == (15, away)
    assert list(client.map(lambda n: n + factor, range(10))) == list(range(3, 13))
    # In the arguments, too.
    assert client.submit_call(lambda f, n: f(n), lambda n: n - 1, 7).result(120) == 6
    # What can be imported also travels so if that is wanted.
    assert "$function" in str(client.info(client.submit_call(same, 1))["spec"]["call"]["args"])
    assert "$function" not in str(shared.client().info(shared.client().submit_call(same, 1)))


def test_functions_that_cannot_be_had(shared, worker):
    client = shared.client()

    def call(function, *args, **python):
        args = {"$python": "import", "$args": list(args), **python}
        with pytest.raises(outlast.TaskFailed) as failed:
            client.submit({"call": {"function": function, "args": args}}).result(120)
        return failed.value.message

    assert "cannot import 'no_such_module'" in call("no_such_module:f")
    assert "no test_functions:missing" in call("test_functions:missing")
    assert "is not a function but int" in call("test_functions:not_a_function")
    value = {"$function": "AAAA"}
    assert "from Python 2.7" in call("x:y", **{**value, "$python": "2.7"})
    here = "%d.%d" % sys.version_info[:2]
    assert "cannot be unpickled" in call("x:y", **{**value, "$python": here})
    with pytest.raises(outlast.InvalidData, match="cannot be imported by a worker"):
        shared.client(functions="import").submit_call(lambda: 0)
    with pytest.raises(outlast.SerializationError, match="cannot be sent by value"):
        lock = threading.Lock()
        client.submit_call(lambda: lock)
    with pytest.raises(outlast.ConfigurationError, match="one of auto, import, cloudpickle"):
        shared.client(functions="pickle")
    with pytest.raises(outlast.InvalidData, match="keep large data in files"):
        client.submit_call(same, "x" * 300_000)
    with pytest.raises(TypeError, match="a name or a function"):
        client.submit_call(5)


def test_exceptions_arrive_as_exceptions(shared, worker):
    client = shared.client()

    def cause(error, client=client):
        with pytest.raises(outlast.TaskFailed) as failed:
            client.submit_call(raises, error).result(120)
        assert "in raises" in failed.value.remote_traceback
        return failed.value.__cause__

    found = cause(KeyError("it"))
    assert type(found) is KeyError and found.args == ("it",)
    with pytest.raises(outlast.TaskFailed) as failed:
        client.submit_call(divmod, 1, 0).result(120)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    # An exception that cannot be pickled, or not be loaded again, is reported as text.
    assert cause(OSError(2, "no such file")).errno == 2
    with pytest.raises(outlast.TaskFailed, match="1 is odd"):
        client.submit_call(_raise_odd).result(120)
    with pytest.raises(outlast.TaskFailed, match="Rebuilt: text") as failed:
        client.submit_call(_raise_rebuilt).result(120)
    assert failed.value.__cause__ is None
    assert shared.client(allow_pickle=False)._cause("gASVAA==") is None
    with pytest.raises(outlast.TaskFailed) as failed:
        shared.client(allow_pickle=False).submit_call(divmod, 1, 0).result(120)
    assert failed.value.__cause__ is None and "ZeroDivisionError" in str(failed.value)


def _raise_odd():
    raise Odd(1, 2)


def _raise_rebuilt():
    raise Rebuilt("text")


def test_who_takes_no_pickles(shared, tmp_path):
    strict = outlast.Worker(
        shared.url, name="strict", state_dir=tmp_path / "s", allow_pickle=False, capabilities=["strict"]
    )
    strict.task(name="strict_kinds")(kinds)
    spec = {"requires": {"strict": "*"}}
    with strict:
        client, careful = shared.client(), shared.client(allow_pickle=False)

        def refused(*call, by=client):
            with pytest.raises(outlast.TaskFailed) as failed:
                by.submit_call(*call, spec=spec).result(120)
            return str(failed.value)

        assert "accepts no pickles (allow_pickle=False), and the arguments" in refused("strict_kinds", {1})
        assert "accepts no pickles (allow_pickle=False), and the function" in refused(lambda: 0)
        assert "set is not JSON, and pickles are turned off" in refused(set, [1])
        # What needs none goes well, as far as JSON goes.
        assert client.submit_call("strict_kinds", 1, spec=spec).result(120) == ["int"]
        assert client.submit_call(divmod, 7, 2, spec=spec).result(120) == [3, 1]
        assert careful.submit_call(kinds, (1,), spec=spec).result(120) == ["list"]
        with pytest.raises(outlast.SerializationError, match="can only be sent with cloudpickle"):
            careful.submit_call(lambda: 0)
        with pytest.raises(outlast.TaskFailed) as failed:
            client.submit_call(divmod, 1, 0, spec=spec).result(120)
        assert failed.value.__cause__ is None


def test_a_careful_client_leaves_a_pickle_as_it_is(shared, worker):
    task = shared.client().submit_call(set, [1])
    assert task.result(120) == {1}
    assert shared.client(allow_pickle=False).result(task).keys() == {"$pickle5"}


def test_functions_wait_for_a_worker_that_can_run_them(shared, coordinator, tmp_path):
    """A worker of the plugin does not get them."""
    from outlast.worker_reconnection import WorkerReconnectionManager

    manager = WorkerReconnectionManager(
        "plain", coordinator.url, task_executor=lambda task_id, config: str(config)
    )
    manager.start()
    try:
        client = coordinator.client()
        task = client.submit_call(divmod, 7, 2)
        assert client.submit_call("anything", a={1}).result(120) == "{'a': {1}}"
        assert task.info()["state"] == "pending" and "python_functions" in str(client.explain(task))
        with outlast.Worker(coordinator.url, name="able", state_dir=tmp_path / "able"):
            assert task.result(120) == (3, 1)
        direct = {"function": "x:y", "args": {"$python": "import"}}
        with pytest.raises(outlast.TaskFailed, match="only runs its execute_task"):
            client.submit({"call": direct}).result(120)
    finally:
        manager.stop()


def test_map_streams(shared, worker, tmp_path):
    client = shared.client()
    taken = []

    def items():
        for n in range(3000):
            taken.append(n)
            yield n

    results = client.map(abs, items(), window=200, timeout=60)
    assert len(taken) <= 200
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(taken) <= 260
    assert list(results) == list(range(10, 3000))
    assert list(client.map(abs, [])) == []
    mixed = list(client.map(_odd_ones_fail, range(6), return_exceptions=True, timeout=120))
    assert [type(m).__name__ for m in mixed] == ["int", "TaskFailed"] * 3
    results = client.map(_odd_ones_fail, range(6))
    assert next(results) == 0
    with pytest.raises(outlast.TaskFailed, match="odd"):
        next(results)
    slow = client.map(_wait_for, [str(tmp_path / "now")], timeout=0.2, spec={"kill_grace": 0.1})
    with pytest.raises(TimeoutError, match="within 0.2 s"):
        next(slow)
    (tmp_path / "now").touch()
    with pytest.raises(ValueError):
        client.map(abs, [1], window=0)


def _odd_ones_fail(n):
    if n % 2:
        raise ValueError("odd")
    return n


def _wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    return os.path.basename(path)


def test_as_completed(shared, worker, tmp_path):
    client = shared.client()
    slow = client.submit_call(_wait_for, str(tmp_path / "slow"))
    quick = [client.submit_call(abs, -n) for n in range(20)]
    coming = client.as_completed([slow, *quick], timeout=120)
    first = [next(coming) for _ in range(20)]
    assert {t.id for t in first} == {t.id for t in quick} and all(t in quick for t in first)
    assert sorted(t.result(0) for t in first) == list(range(20))
    (tmp_path / "slow").touch()
    assert next(coming) is slow and slow.result(0) == "slow"
    assert list(coming) == [] and list(client.as_completed([])) == []
    # Ids will do, and those that are over are there at once.
    assert {t.id for t in client.as_completed([t.id for t in quick], 20)} == {t.id for t in quick}
    never = client.submit_call(_wait_for, str(tmp_path / "never"), spec={"kill_grace": 0.1})
    with pytest.raises(TimeoutError):
        list(client.as_completed([never], timeout=0.2))
    never.cancel()
    assert next(client.as_completed([never], 20)) is never
    with pytest.raises(outlast.NotFound, match="no task nobody"):
        list(client.as_completed(["nobody"], 20))


def test_following_survives_a_restart(coordinator, tmp_path):
    client = coordinator.client()
    tasks = [client.submit_call(_wait_for, str(tmp_path / "go")) for _ in range(4)]
    with outlast.Worker(
        coordinator.url, name="w", state_dir=tmp_path / "w", slots=4,
        config={"initial_reconnect_delay": 0.1, "max_reconnect_delay": 0.3},
    ):  # fmt: skip
        until(lambda: all(t.info()["started_at"] for t in tasks))
        coming = client.as_completed(tasks, timeout=60)
        threading.Timer(0.5, coordinator.kill).start()
        threading.Timer(1.0, (tmp_path / "go").touch).start()
        threading.Timer(1.5, coordinator.start).start()
        assert [t.result(0) for t in coming] == ["go"] * 4


SESSION = """
import outlast, sys
worker = outlast.Worker(sys.argv[1], name="one", state_dir=sys.argv[2])
client = outlast.Client(sys.argv[1])
base = 40
def add(n):
    return n + base
worker.start()
print(client.submit_call(add, 2).result(120))
print(list(client.map(add, [1, 2], timeout=120)))
_ = worker.task(add)
print(client.submit_call("add", 3).result(120))
with outlast.Executor(client, session="one") as pool:
    print(pool.submit(add, 4).result(120))
class Mine(Exception):
    pass
def bad():
    raise Mine("x")
try:
    client.submit_call(bad).result(120)
except outlast.TaskFailed as e:
    print(type(e.__cause__).__name__)
worker.stop()
"""


@pytest.mark.parametrize("how", ["-c", "line by line"])
def test_a_session(coordinator, tmp_path, how):
    args = [coordinator.url, tmp_path / "state"]
    if how == "-c":
        command, given = [sys.executable, "-c", SESSION, *args], None
    else:
        # A block ends with an empty line there.
        given = re.sub(r"(\n +.*)\n(?![ e\n])", r"\1\n\n", SESSION)
        command = [sys.executable, "-i", "-", *args]
    out = subprocess.run(command, input=given, text=True, capture_output=True, cwd=tmp_path, timeout=60)
    assert out.stdout.split("\n")[:5] == ["42", "[41, 42]", "43", "44", "Mine"], out.stderr


def test_the_readme(shared, worker, capsys):
    import concurrent.futures
    import math

    text = (Path(__file__).parents[1] / "README.md").read_text()
    names = {
        "client": shared.client(), "outlast": outlast, "os": os, "math": math, "radii": [1, 2],
        "concurrent": concurrent, "train": abs, "rates": [-0.25, -0.5],
    }  # fmt: skip
    blocks = re.findall(r"```py\n(.*?)```", text, re.S)
    assert len(blocks) == 2
    for block in blocks:
        block = block.replace("http://127.0.0.1:7117", shared.url)
        exec(block.replace("sweep-3", f"sweep-{time.time_ns()}"), names)
    out = capsys.readouterr().out.split()
    assert out[:2] == [str(math.pi), str(math.pi * 4)]
    assert {"120", "6", "0.25", "0.5"} <= set(out[2:])
