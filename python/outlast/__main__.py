"""``python -m outlast``: the ``outlast`` command that came with this package."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path


def find_command() -> str:
    """The path of the ``outlast`` command of this installation.

    :raises FileNotFoundError: if it is in none of the installation folders.
    """
    name = "outlast" + (sysconfig.get_config_var("EXE") or "")
    user = sysconfig.get_preferred_scheme("user") if sys.version_info >= (3, 10) else "posix_user"
    places = [
        Path(sysconfig.get_path("scripts")),
        Path(sysconfig.get_path("scripts", scheme=user)),
        # `pip install --target` puts it next to the package.
        Path(__file__).resolve().parent.parent / "bin",
    ]
    for place in places:
        if os.access(place / name, os.X_OK):
            return str(place / name)
    tried = ", ".join(map(str, places))
    raise FileNotFoundError(f"no {name} command in {tried}; reinstall the package")


def main() -> None:
    """Replaces this process by the command, so that signals, the terminal and the exit code are its own."""
    try:
        command = find_command()
    except FileNotFoundError as e:
        raise SystemExit(f"outlast: {e}") from None
    os.execv(command, ["outlast", *sys.argv[1:]])


if __name__ == "__main__":
    main()
