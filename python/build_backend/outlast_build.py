"""maturin, and beside the extension the `outlast` command in the wheel's scripts.

maturin puts either an extension module or a program into a wheel, not both. This builds the
program with cargo first and lays it where maturin takes the wheel's data from. It is the real
program, not a Python entry point: it starts in milliseconds, and a worker starts itself again as
the keeper of its commands.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Optional

import maturin
from maturin import (  # noqa: F401
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

_PYTHON = Path(__file__).resolve().parent.parent
# The folder that maturin takes data from if it is there, named after the module.
_SCRIPTS = _PYTHON / "outlast._outlast.data" / "scripts"

Settings = Optional[dict[str, Any]]


def _command() -> None:
    workspace = _PYTHON.parent
    if not (workspace / "crates" / "outlast-cli" / "Cargo.toml").is_file():
        raise SystemExit("outlast is built in its repository: `pip install ./python` there")
    call = ["cargo", "build", "--release", "--locked", "-p", "outlast-cli", "--message-format=json"]
    done = subprocess.run(call, cwd=workspace, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit("cargo could not build the outlast command; its message is above")
    built = None
    for line in done.stdout.splitlines():
        said = json.loads(line)
        if said.get("target", {}).get("name") == "outlast" and said.get("executable"):
            built = said["executable"]
    if built is None:
        raise SystemExit("cargo did not say where the outlast command is")
    shutil.rmtree(_SCRIPTS.parent, ignore_errors=True)
    _SCRIPTS.mkdir(parents=True)
    target = _SCRIPTS / "outlast"
    strip = shutil.which("strip")
    if strip is None or subprocess.run([strip, "-o", target, built], check=False).returncode != 0:
        shutil.copyfile(built, target)
    os.chmod(target, 0o755)


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: Optional[str] = None
) -> str:
    """A wheel with the extension and the command."""
    _command()
    try:
        return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)
    finally:
        shutil.rmtree(_SCRIPTS.parent, ignore_errors=True)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: Optional[str] = None
) -> str:
    """The same with the Python sources where they are."""
    _command()
    try:
        return maturin.build_editable(wheel_directory, config_settings, metadata_directory)
    finally:
        shutil.rmtree(_SCRIPTS.parent, ignore_errors=True)


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Refuses: an archive of this folder lacks the crates that the command is made of."""
    raise SystemExit(
        "outlast has no source archive: build a wheel in its repository"
        " (`pip wheel ./python`, or `python -m build --wheel python`)"
    )
