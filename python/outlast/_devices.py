"""Devices that a task names in its settings, such as ``device: cuda`` in its arguments.

This module only collects names; the core decides which workers have a device.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Optional

#: Names whose values are names of devices.
_NAMING = {
    "device", "devices", "device_type", "device_types", "target_device", "compute_device",
    "hardware", "hardware_type", "hardware_types", "hardware_class", "hardware_classes",
    "required_hardware", "accelerator", "accelerators", "browser", "browsers",
}  # fmt: skip
#: Names of settings that request a device if they are true.
_FLAGS = {"gpu", "cuda", "rocm", "mps", "xpu", "tpu", "npu", "webgpu", "webnn"}
_PREFIXES = ("use_", "requires_", "require_", "needs_", "need_", "with_")
_COUNTS = {"gpus", "num_gpus", "n_gpus", "gpu_count"}
#: Settings that hold demands on a worker, whatever their keys.
_DEMANDS = {
    "requirements", "requires", "hardware_requirements", "required_hardware", "resources",
}  # fmt: skip
#: Settings that hold the configuration of a task.
_AROUND = _DEMANDS | {
    "args", "arguments", "kwargs", "params", "parameters", "config", "task_config", "configuration",
    "model_config", "context", "options", "settings", "call", "browser", "task", "spec", "input",
    "inputs", "payload", "data",
}  # fmt: skip
_COMMANDS = {"args", "arguments", "argv", "command"}
_OPTIONS = ("--device", "--accelerator", "--hardware", "--browser")
#: Levels of settings that are searched, names per level, and devices in total.
_DEPTH, _MOST, _ALL = 4, 256, 32


def of_config(config: Optional[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The devices that a caller's own config requests: ``device``, its place (``from``), and whether it is a
    demand on the worker (``must``)."""
    return _all(_walk(config, "task", False)) if config is not None else []


def of_spec(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The devices that a task of the coordinator requests in addition to its ``requires``, which the
    coordinator reads."""
    found: list[dict[str, Any]] = []
    for kind in ("call", "browser"):
        inner = spec.get(kind)
        if isinstance(inner, Mapping) and isinstance(inner.get("args"), Mapping):
            found += _walk(inner["args"], f"{kind}.args", False)
    labels = spec.get("labels")
    found += _walk(labels, "labels", False)
    line = spec.get("command") or str(spec.get("shell") or "").split()
    return _all(iter([*found, *_options(line, "the command")]))


def of_report(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The devices that a report names, outside of the task and of the place where it ran."""
    around = _AROUND - {"task", "task_config"}
    named = {k: v for k, v in info.items() if k in around or k == "device"}
    return _all(_walk(named, "error_info", False))


def without_devices(requires: Mapping[str, Any]) -> dict[str, Any]:
    """Demands of a caller's own config, except those that :func:`of_config` reads, since workers name
    devices in many ways."""

    def is_device(name: str, value: Any) -> bool:
        if name in _NAMING:
            return not isinstance(value, str) or not value.strip().startswith(("!", "<", ">", "*"))
        return _flag(name) is not None and value in (True, "*", "true")

    return {k: v for k, v in requires.items() if not is_device(str(k), v)}


def first(asked: list[dict[str, Any]]) -> Optional[str]:
    """The first device that is named."""
    return asked[0]["device"] if asked else None


def _all(found: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one, _ in zip(found, range(_ALL))]


def _flag(name: str) -> Optional[str]:
    for prefix in _PREFIXES:
        name = name[len(prefix) :] if name.startswith(prefix) else name
    return name if name in _FLAGS else None


def _walk(given: Any, path: str, must: bool, depth: int = _DEPTH) -> Iterator[dict[str, Any]]:
    if depth == 0 or not isinstance(given, Mapping):
        return
    for key, value in list(given.items())[:_MOST]:
        name, at = str(key).lower(), f"{path}.{key}"
        demanded = must or name in _DEMANDS
        if name in _AROUND and isinstance(value, Mapping):
            yield from _walk(value, at, demanded, depth - 1)
        elif name in _NAMING:
            yield from _named(value, at, demanded)
        elif name in _COMMANDS and isinstance(value, (list, tuple)):
            yield from _options(value, at)
        elif name in _DEMANDS and isinstance(value, (str, list, tuple, set)):
            yield from _named(value, at, False)
        elif name in _COUNTS:
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                yield {"device": f"gpu:{value - 1}", "from": at, "must": demanded}
        elif (device := _flag(name)) is not None and _is_set(value, demanded):
            yield {"device": device, "from": at, "must": demanded}


def _is_set(value: Any, demanded: bool) -> bool:
    if isinstance(value, str):
        # A model name, where a demand is expected.
        said = value.strip().lower()
        return said in ("true", "yes", "on", "*", "required") or (
            demanded and said not in ("", "0", "no", "none", "false", "off")
        )
    return bool(value) and isinstance(value, (bool, int, float, Mapping))


def _named(value: Any, at: str, must: bool) -> Iterator[dict[str, Any]]:
    if isinstance(value, (list, tuple, set, frozenset)):
        for item in list(value)[:_MOST]:
            yield from _named(item, at, must)
    elif isinstance(value, Mapping):
        for key in ("type", "name", "kind", "class", "device"):
            yield from _named(value.get(key), at, must)
    elif isinstance(value, str) or type(value).__name__ == "device":
        text = str(value).strip()
        if text and not text.startswith(("!", "<", ">")):
            yield {"device": text[:200], "from": at, "must": must}


def _options(line: Any, at: str) -> Iterator[dict[str, Any]]:
    words = [w for w in list(line)[:_MOST] if isinstance(w, str)]
    for n, said in enumerate(words):
        option, sign, value = said.partition("=")
        if option in _OPTIONS and (sign or n + 1 < len(words)):
            text = value if sign else words[n + 1]
            yield {"device": text[:200], "from": f"{option} in {at}", "must": False}
