"""Large checkpoints, which are read where they lie: in this process and in a task's."""

import threading

import outlast
import pytest

from conftest import until

numpy = pytest.importorskip("numpy")


def arrays():
    data = numpy.arange(300_000, dtype="f8")
    return {
        "rows": data,
        "columns": data.reshape(300, 1000).T,
        "read only": numpy.frombuffer(data.tobytes()),
        "every third": data[::3],
        "none": numpy.zeros(0),
        "text": "x" * 100_000,
    }


def same(a, b):
    return a.keys() == b.keys() and all(numpy.array_equal(a[k], b[k]) for k in a)


def large(fall_back):
    """What is asked of the worker, and whether what comes back is what was kept."""
    import outlast._child

    asked, ask = [], outlast._child.Raw._ask

    def spy(self, op, **more):
        if fall_back and op == "checkpoint_memory":
            more["parts"] = [[0, 1]]  # an address that nobody may read
        asked.append(op)
        return ask(self, op, **more)

    outlast._child.Raw._ask = spy
    task = outlast.current_task()
    try:
        task.checkpoint(arrays())
        good = same(task.restore(), arrays())
        task.restore()["rows"][0] = 7  # it can be written to
        task.checkpoint((1, 2))
        return good and task.restore() == (1, 2), asked
    finally:
        outlast._child.Raw._ask = ask


@pytest.mark.parametrize("fall_back", [False, True])
def test_in_a_process_of_its_own(shared, tmp_path, fall_back):
    worker = outlast.Worker(shared.url, name=f"memory-{fall_back}", state_dir=tmp_path / "w")
    worker.task(large)
    with worker:
        good, asked = shared.client().submit_call("large", fall_back).result(120)
    assert good
    first = ["checkpoint_memory", "checkpoint"] if fall_back else ["checkpoint_memory"]
    assert asked == [*first, "restore", "restore", "checkpoint", "restore"]


def test_in_this_process(shared, tmp_path):
    worker = outlast.Worker(
        shared.url, name="memory-here", state_dir=tmp_path / "w", isolation="thread"
    )

    @worker.task
    def here(task: outlast.TaskContext):
        task.checkpoint(arrays())
        good = same(task.restore(), arrays())
        task.restore()["rows"][0] = 7
        return good

    with worker:
        assert shared.client().submit_call("here").result(120) is True


def test_an_array_that_changes_meanwhile_harms_only_itself(shared, tmp_path):
    """It may be torn, as the documentation says, but the store is not damaged by it."""
    worker = outlast.Worker(
        shared.url, name="memory-torn", state_dir=tmp_path / "w", isolation="thread"
    )

    @worker.task
    def torn(task: outlast.TaskContext):
        data, over = numpy.zeros(4_000_000), threading.Event()

        def change():
            while not over.is_set():
                data[:] += 1

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(5):
                task.checkpoint(data)
                assert task.restore().shape == data.shape  # every chunk is what its name says
        finally:
            over.set()
            thread.join()
        task.checkpoint(data)
        return bool((task.restore() == data).all())

    client = shared.client()
    with worker:
        task = client.submit_call("torn")
        assert task.result(60) is True
        until(lambda: len(client.checkpoints(task)) == 6, 120, "the upload")
