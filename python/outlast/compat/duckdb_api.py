"""Provides ``duckdb_api.distributed_testing.worker_reconnection`` as
:mod:`outlast.worker_reconnection` once it is imported, so that workers of the replaced system run with
their imports unchanged. An installed package ``duckdb_api`` keeps everything else."""

from __future__ import annotations

import importlib
import sys
import types

from .. import worker_reconnection


def _package(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = types.ModuleType(name, __doc__)
        package.__path__ = []
        sys.modules[name] = package
        return package


def _install() -> None:
    parent = _package("duckdb_api")
    package = _package("duckdb_api.distributed_testing")
    setattr(parent, "distributed_testing", package)
    setattr(package, "worker_reconnection", worker_reconnection)
    sys.modules["duckdb_api.distributed_testing.worker_reconnection"] = worker_reconnection


_install()
