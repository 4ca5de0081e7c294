"""The README's Python, as it is printed: block by block, and pasted line by line."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import threads, until

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_quickstart(shared, capsys):
    worker, client, aio, progress, compat = BLOCKS
    names = {}
    for block in (worker, client, aio, progress, compat):
        exec(block.replace("http://127.0.0.1:7117", shared.url), names)
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == ["3", "[11, 12, 13]", "{'counted': 300}"]
    assert "submitted" in out[3]
    assert out[4:] == ["3", "0", "1", "2", "True succeeded", "500 1.0", "45"]
    until(lambda: not threads())


def test_pasted_line_by_line(coordinator, tmp_path):
    """As into an interactive interpreter: every statement by itself, functions without a file."""
    lines = "\n".join(BLOCKS).replace("http://127.0.0.1:7117", coordinator.url)
    done = subprocess.run(
        [sys.executable, "-i"], input=lines, text=True, capture_output=True, timeout=60, cwd=tmp_path
    )
    told = re.sub(r"(>>> |\.\.\. )+", "", done.stderr)
    assert "Traceback" not in told and "Error" not in told, told
    out = done.stdout.splitlines()
    assert out[:3] == ["3", "[11, 12, 13]", "{'counted': 300}"]
    assert out[4:] == ["3", "0", "1", "2", "True succeeded", "500 1.0", "45"]
    assert done.returncode == 0


def test_the_command_came_with_the_package(tmp_path):
    import outlast
    from outlast.__main__ import find_command

    command = find_command()
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["outlast", outlast.__version__]
    module = [sys.executable, "-m", "outlast"]
    run = dict(capture_output=True, text=True, cwd=tmp_path)
    assert subprocess.run([*module, "--version"], **run).stdout == said
    wrong = subprocess.run([*module, "nonsense"], **run)
    assert wrong.returncode == 2 and "nonsense" in wrong.stderr
