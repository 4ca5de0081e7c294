"""Progress where people look: bars, task state, tables."""

import io
import sys
import time

import outlast
import pytest
from outlast import _tables
from outlast.progress import tqdm, trange

from conftest import until


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def worker(shared, tmp_path):
    worker = outlast.Worker(shared.url, name=f"bars-{time.monotonic_ns()}", state_dir=tmp_path / "w")
    with worker:
        yield worker


def test_a_loop_reports_and_the_state_shows_it(shared, worker):
    @worker.task
    def train(steps):
        with outlast.tqdm(total=steps, desc="train: ", unit="batch", report=0.05) as bar:
            for n in range(steps):
                for _ in outlast.trange(3, desc="inner", leave=False):
                    pass
                bar.set_postfix(loss=1 / (n + 1))
                bar.update()
                time.sleep(0.002)
        return bar.n

    client = shared.client()
    task = client.submit_call("train", 200)
    seen = until(lambda: 0 < (task.state()["progress"] or 0) < 1 and task.state(), what="a report")
    assert seen["state"]["train"]["total"] == 200 and seen["state"]["train"]["unit"] == "batch"
    assert task.result(120) == 200
    end = until(lambda: (s := task.state())["progress"] == 1.0 and s, what="the last report")
    assert end["state"]["train"]["n"] == 200 and end["state"]["train"]["rate"] > 0
    assert end["state"]["train"]["postfix"] == {"loss": 0.005}
    assert "inner" not in end["state"]
    # Limited: 200 steps of some 2 ms are 8 reports of 50 ms, and what inner bars say.
    assert end["version"] < 700


def test_reports_are_rare(shared, worker):
    @worker.task
    def quick(steps):
        for _ in outlast.tqdm(range(steps)):
            pass

    task = shared.client().submit_call("quick", 200_000)
    task.result(120)
    state = until(lambda: (s := task.state())["progress"] == 1.0 and s)
    assert state["state"]["progress"]["n"] == 200_000 and state["version"] < 20


def test_a_cancel_ends_a_loop_with_a_bar(shared, worker):
    @worker.task
    def endless():
        for _ in outlast.tqdm(iter(int, 1), report=0.05):
            time.sleep(0.005)

    task = shared.client().submit_call("endless")
    until(lambda: task.state()["version"] > 1)
    assert task.state()["progress"] is None  # nobody knows the total
    task.cancel()
    with pytest.raises(outlast.TaskCancelled):
        task.result(120)


def test_a_terminal_shows_a_bar():
    out = Terminal()
    bar = tqdm(range(3), desc="here", file=out, mininterval=0)
    assert list(bar) == [0, 1, 2] and len(bar) == 3
    assert "here: 100%" in out.getvalue() and "3/3" in out.getvalue()
    out = Terminal()
    with tqdm(total=10, file=out, unit="B", initial=2, postfix={"a": 1}, leave=False) as bar:
        bar.update(3)
        bar.set_postfix({"b": 2}, c=3)
        bar.set_postfix_str("x")
        bar.set_description("now")
        bar.n = 7
        bar.refresh()
        assert bar.format_dict["n"] == 7 and bar.format_dict["postfix"] == "x"
        bar.reset(5)
        assert (bar.n, bar.total) == (0, 5)
    bar.close()
    assert "7/10" in out.getvalue() and "now" in out.getvalue()


def test_nothing_is_drawn_where_nobody_looks():
    for file, disable in ((io.StringIO(), False), (io.StringIO(), None), (Terminal(), True)):
        assert list(tqdm("ab", file=file, disable=disable)) == ["a", "b"]
        assert file.getvalue() == ""


def test_without_tqdm_loops_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert list(trange(2, 5)) == [2, 3, 4]
    assert list(tqdm(iter("ab"), file=Terminal())) == ["a", "b"]
    with pytest.raises(TypeError, match="no iterable"):
        list(tqdm(total=3))
    tqdm.write("a line", file=(out := io.StringIO()))
    assert out.getvalue() == "a line\n"


def test_map_and_waits_show_a_bar_if_asked(shared, worker, monkeypatch):
    @worker.task
    def same(n):
        return n

    client = shared.client()
    monkeypatch.setattr(sys, "stderr", out := Terminal())
    assert list(client.map("same", range(20), progress="squares")) == list(range(20))
    tasks = [client.submit_call("same", n) for n in range(5)]
    ends = client.wait_all(tasks, 20, progress=True)
    assert [end["value"] for end in ends] == list(range(5))
    assert "squares: 100%" in out.getvalue() and "20/20" in out.getvalue() and "5/5" in out.getvalue()
    monkeypatch.setattr(sys, "stderr", out := Terminal())
    assert list(client.map("same", range(3))) == [0, 1, 2] and out.getvalue() == ""


def test_wait_all_gives_up_in_time(shared, worker):
    @worker.task
    def slow():
        time.sleep(1)

    client = shared.client()
    tasks = [client.submit_call("slow")]
    with pytest.raises(TimeoutError, match="not all tasks have ended within 0.2 s"):
        client.wait_all(tasks, 0.2)
    assert client.wait_all(tasks, 20)[0]["state"] == "succeeded"


def test_tables_are_escaped_and_bounded():
    evil = "<script>alert(1)</script>"
    html = _tables.table([{"id": evil, "state": "a&b", "progress": 0.25, "nobody": 1}], "task")
    assert evil not in html and "&lt;script&gt;" in html and "a&amp;b" in html
    assert "<progress" in html and "25%" in html and "nobody" not in html
    many = _tables.Rows([{"id": f"t{n}", "state": "x" * 500} for n in range(150)], "task")
    assert many == list(many) and "and 50 more" in many._repr_html_()
    assert many._repr_html_().count("<tr>") == 101 and "x" * 200 not in many._repr_html_()
    assert _tables.Rows([], "worker")._repr_html_().startswith("<table>")
    assert evil not in _tables.document({evil: evil})


def test_what_a_client_gives_draws_itself(shared, worker):
    @worker.task
    def same(n):
        return n

    client = shared.client()
    task = client.submit_call("same", 1, spec={"id": f"shown-{time.time_ns()}"})
    task.result(120)
    assert task.id in task._repr_html_() and "succeeded" in task._repr_html_()
    tasks = client.tasks("succeeded")
    assert task.id in tasks._repr_html_()
    assert next(tasks)["id"] == task.id and next(tasks)  # still an iterator, from the first on
    workers = client.workers()
    assert worker.name in workers._repr_html_() and isinstance(workers, list)
    assert "succeeded" in task.history()._repr_html_()
    assert client.checkpoints(task)._repr_html_()
