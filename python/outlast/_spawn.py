"""Start parameters of the processes that run a worker's tasks, and the lookup of their functions."""

from __future__ import annotations

import base64
import inspect
import json
import os
import sys
from typing import Any, Callable, Optional

from . import _calls
from .errors import ConfigurationError, OutlastError

# The modules of the first line are imported before a foreign folder is on the path.
_BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; import json, socket, struct, threading;"
    " sys.path.insert(0, {here!r}); from outlast._child import main; main()"
)


def command() -> list[str]:
    """The command line of such a process.

    :raises ConfigurationError: if this program is not an interpreter that could be started again.
    """
    if not sys.executable:
        raise ConfigurationError(
            'no Python interpreter is known that could run tasks; use isolation="thread"'
        )
    import subprocess

    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [sys.executable, *flags, "-c", _BOOT.format(here=here)]


def boot(allow_pickle: bool, interval: float, main: Optional[dict[str, Any]]) -> str:
    """The first message to the process."""
    cwd = os.getcwd()
    told = {
        "parent": os.getpid(),
        "path": [os.path.abspath(p) if p else cwd for p in sys.path],
        "argv": list(getattr(sys, "argv", [])),
        "main": main,
        "allow_pickle": allow_pickle,
        "checkpoint_interval": interval,
    }
    return json.dumps(told)


def _main() -> Optional[dict[str, Any]]:
    """The script that this process runs, if it can be imported (that of an interactive session cannot)."""
    module = sys.modules.get("__main__")
    spec = getattr(module, "__spec__", None)
    # `python -m package.module`; a folder's own __main__ is an ordinary file.
    name = getattr(spec, "name", None)
    path = getattr(module, "__file__", None)
    if name and name != "__main__":
        return {"module": name, "path": path}
    if not path or not os.path.isfile(path):
        return None
    return {"path": os.path.abspath(path)}


def _how(function: Callable[..., Any]) -> str:
    if _calls.importable(function):
        return "module"
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    plain = inspect.unwrap(function)
    # A method has a path, too, but would be found without its object.
    code = plain.__code__ if inspect.isfunction(plain) else None
    main = _main()
    if module == "__main__" and "<" not in qualname and main is not None and code is not None:
        # Interactive code and code run with exec are not in the file.
        if os.path.abspath(code.co_filename) == os.path.abspath(main["path"] or ""):
            return "main"
    if module and module != "__main__" and "<" not in qualname:
        # Its module may bind the name to something else, but registers the function when it is imported.
        known = getattr(sys.modules.get(module), "__file__", None)
        if known is not None and code is not None and code.co_filename == known:
            return "module"
    return "value"


def check(name: str, function: Callable[..., Any]) -> None:
    """
    :raises ConfigurationError: if no other process can load the function.
    """
    if _how(function) == "value":
        try:
            _calls.cloudpickle()
        except ConfigurationError as e:
            raise ConfigurationError(
                f"the task function {name!r} is not at the top of a file that another process could"
                f' import. {e}; or use isolation="thread"'
            ) from e


def main_for(functions: list[Callable[..., Any]]) -> Optional[dict[str, Any]]:
    """The script, if any of the functions is in it."""
    return _main() if any(_how(f) == "main" for f in functions) else None


def definition(name: str, function: Callable[..., Any]) -> str:
    """The description of a function for such a process.

    :raises OutlastError: if the function cannot be sent.
    """
    how = _how(function)
    if how == "value":
        try:
            data = _calls.cloudpickle().dumps(function, protocol=5)
        except Exception as e:
            raise OutlastError(f"the function {name!r} cannot be sent to a process: {e}") from e
        return json.dumps({"how": how, "data": base64.b64encode(data).decode("ascii")})
    module, qualname = function.__module__, function.__qualname__
    return json.dumps({"how": how, "module": module, "qualname": qualname, "main": _main()})
