"""Devices that a task names in its own words, such as ``device: cuda`` in its arguments.

Only what is said is collected here; which workers have a device is judged by the core.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Optional

#: Names whose values are names of devices.
_NAMING = {
    "device", "devices", "device_type", "device_types", "target_device", "compute_device",
    "hardware", "hardware_type", "hardware_types", "hardware_class", "hardware_classes",
    "required_hardware", "accelerator", "accelerators", "browser", "browsers",
}  # fmt: skip
#: Devices that a name asks for by being true.
_FLAGS = {"gpu", "cuda", "rocm", "mps", "xpu", "tpu", "npu", "webgpu", "webnn"}
_PREFIXES = ("use_", "requires_", "require_", "needs_", "need_", "with_")
_COUNTS = {"gpus", "num_gpus", "n_gpus", "gpu_count"}
#: Where demands on a worker stand, whatever they name.
_DEMANDS = {
    "requirements", "requires", "hardware_requirements", "required_hardware", "resources",
}  # fmt: skip
#: Where a task keeps its settings.
_AROUND = _DEMANDS | {
    "args", "arguments", "kwargs", "params", "parameters", "config", "task_config", "configuration",
    "model_config", "context", "options", "settings", "call", "browser", "task", "spec", "input",
    "inputs", "payload", "data",
}  # fmt: skip
_COMMANDS = {"args", "arguments", "argv", "command"}
_OPTIONS = ("--device", "--accelerator", "--hardware", "--browser")
#: Levels of settings that are looked into, names of each, and devices of all.
_DEPTH, _MOST, _ALL = 4, 256, 32


def of_config(config: Optional[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The devices that a config of the caller's own asks for: ``device``, where that stands (``from``), and
    whether it ``must`` be a demand on the worker."""
    return _all(_walk(config, "task", False)) if config is not None else []


def of_spec(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The devices that a task of the coordinator asks for beside its ``requires``, which the
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
    """The devices that a report names around the failure, but for the task and where that ran."""
    around = _AROUND - {"task", "task_config"}
    named = {k: v for k, v in info.items() if k in around or k == "device"}
    return _all(_walk(named, "error_info", False))


def without_devices(requires: Mapping[str, Any]) -> dict[str, Any]:
    """Demands of a caller's own, but for those that :func:`of_config` reads: workers have many
    words for a device."""

    def is_device(name: str, value: Any) -> bool:
        if name in _NAMING:
            return not isinstance(value, str) or not value.strip().startswith(("!", "<", ">", "*"))
        return _flag(name) is not None and value in (True, "*", "true")

    return {k: v for k, v in requires.items() if not is_device(str(k), v)}


def first(asked: list[dict[str, Any]]) -> Optional[str]:
    """The device that is named first."""
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
        # A model, where it is demanded.
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
