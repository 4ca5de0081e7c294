"""Once this is imported, ``duckdb_api.distributed_testing.worker_reconnection`` is
:mod:`outlast.worker_reconnection`: workers of the replaced system run with their imports as they
are. A package ``duckdb_api`` that is installed keeps everything else it has."""

from __future__ import annotations

import importlib
import sys
import types

from .. import worker_reconnection


def _install() -> None:
    parent = None
    for name in ("duckdb_api", "duckdb_api.distributed_testing"):
        try:
            package = importlib.import_module(name)
        except ImportError:
            package = types.ModuleType(name, __doc__)
            package.__path__ = []
            sys.modules[name] = package
        if parent is not None:
            setattr(parent, name.rpartition(".")[2], package)
        parent = package
    sys.modules[f"{parent.__name__}.worker_reconnection"] = worker_reconnection
    parent.worker_reconnection = worker_reconnection  # type: ignore[attr-defined]


_install()
