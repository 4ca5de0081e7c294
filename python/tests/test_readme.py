"""The README's Python, as it is printed."""

import re
from pathlib import Path

from conftest import threads, until


def test_the_quickstart(shared, capsys):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    worker, client, compat = re.findall(r"```python\n(.*?)```", text, re.S)
    names = {}
    for block in (worker, client, compat):
        exec(block.replace("http://127.0.0.1:7117", shared.url), names)
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == ["3", "[11, 12, 13]", "{'counted': 300}"]
    assert "submitted" in out[3]
    until(lambda: not threads())
