"""Settings of a worker: defaults, validation and paths."""

from __future__ import annotations

import difflib
import math
import os
import re
import urllib.parse
from pathlib import Path
from typing import Any, Mapping, Optional

from .errors import ConfigurationError


def api_key(given: Optional[str]) -> Optional[str]:
    """The given key, or the one in the environment, or in the file that the environment names.

    :raises ConfigurationError: if that file cannot be read.
    """
    key = given or os.environ.get("OUTLAST_API_KEY")
    path = os.environ.get("OUTLAST_API_KEY_FILE")
    if key or not path:
        return key or None
    try:
        key = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as e:
        raise ConfigurationError(f"the API key's file {path}: {e}") from e
    if not key or key.split() != [key]:
        raise ConfigurationError(f"the API key's file {path} must hold one key and nothing else")
    return key


# In seconds unless stated otherwise. Names and defaults are those of the replaced system.
DEFAULTS: dict[str, Any] = {
    "heartbeat_interval": 5.0,
    "heartbeat_timeout": 15.0,
    "initial_reconnect_delay": 1.0,
    "max_reconnect_delay": 60.0,
    "reconnect_jitter": 0.2,  # share
    "max_reconnect_attempts": 0,  # 0: no limit
    "checkpoint_interval": 300,
    "connection_health_threshold": 0.7,  # share
    "message_retry_count": 3,
    "ws_ping_interval": 30,
    "ws_ping_timeout": 10,
    "state_sync_batch_size": 100,  # records
}
_COUNTS = {"max_reconnect_attempts", "message_retry_count", "state_sync_batch_size"}
_SHARES = {"reconnect_jitter", "connection_health_threshold"}
_POSITIVE = {"heartbeat_interval", "heartbeat_timeout"}
# Settings that the Rust worker reads.
PASSED = (
    "heartbeat_interval",
    "heartbeat_timeout",
    "initial_reconnect_delay",
    "max_reconnect_delay",
    "reconnect_jitter",
    "max_reconnect_attempts",
    "ws_ping_interval",
    "ws_ping_timeout",
)
_LONGEST = 365 * 86400


def merged(given: Optional[Mapping[str, Any]], base: Mapping[str, Any] = DEFAULTS) -> dict[str, Any]:
    """``base`` with the given settings, validated.

    :raises ConfigurationError: for an unknown key or an invalid value.
    """
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        kind = type(given).__name__
        raise ConfigurationError(f"the configuration must be a dict, not {kind}")
    config = dict(base)
    for key, value in given.items():
        if key not in DEFAULTS:
            raise ConfigurationError(f"unknown configuration key {key!r}{_nearest(key)}")
        config[key] = _checked(key, value)
    if config["max_reconnect_delay"] < config["initial_reconnect_delay"]:
        raise ConfigurationError(
            f"max_reconnect_delay ({config['max_reconnect_delay']}) is less than"
            f" initial_reconnect_delay ({config['initial_reconnect_delay']})"
        )
    if config["heartbeat_timeout"] <= config["heartbeat_interval"]:
        raise ConfigurationError(
            f"heartbeat_timeout ({config['heartbeat_timeout']}) must be more than"
            f" heartbeat_interval ({config['heartbeat_interval']})"
        )
    if config["ws_ping_interval"] and not config["ws_ping_timeout"]:
        raise ConfigurationError(
            "ws_ping_timeout must be above 0; a ws_ping_interval of 0 sends no pings"
        )
    return config


_PINS = ("heartbeat", "batch", "compression", "checkpoints", "telemetry", "all")


def pins() -> str:
    """Settings that do not adapt to the link: the words of ``OUTLAST_PIN``, validated.

    :raises ConfigurationError: for an unknown word.
    """
    words = [w.strip() for w in os.environ.get("OUTLAST_PIN", "").split(",") if w.strip()]
    for word in words:
        if word not in (*_PINS, "none"):
            raise ConfigurationError(
                f"OUTLAST_PIN: {word!r} cannot be pinned; use {', '.join(_PINS)}"
            )
    return ",".join(words)


def _nearest(key: Any) -> str:
    close = difflib.get_close_matches(str(key), DEFAULTS, n=1, cutoff=0.0)
    return f"; did you mean {close[0]!r}?" if close else ""


def _checked(key: str, value: Any) -> Any:
    def bad(must: str) -> ConfigurationError:
        return ConfigurationError(f"{key} must be {must}, not {value!r}")

    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad("a number")
    if key in _COUNTS:
        if not math.isfinite(value) or value != int(value) or not 0 <= value < 2**32:
            raise bad("a whole number of at least 0")
        return int(value)
    if key in _SHARES:
        if not 0 <= value <= 1:
            raise bad("from 0 to 1")
    elif key in _POSITIVE:
        if not 0 < value <= _LONGEST:
            raise bad("a number of seconds above 0, up to a year")
    elif not 0 <= value <= _LONGEST:
        raise bad("a number of seconds from 0 up to a year")
    return value


_WORKER_PATH = re.compile(r"/api/v\d+/worker/[^/]+/ws$")
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def address(url: Any) -> str:
    """A coordinator's address in the form that the Rust side accepts, which validates its other parts."""
    if not isinstance(url, str) or not url.strip():
        raise ConfigurationError(
            f"coordinator_url must be an address such as http://host:7117, not {url!r}"
        )
    return _WORKER_PATH.sub("", url.strip().rstrip("/")).rstrip("/")


def worker_name(name: Any) -> str:
    """
    :raises ConfigurationError: if no coordinator would accept it.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a worker id; use 1 to 128 of A-Z a-z 0-9 . _ : -"
        )
    return name


def state_folder(name: str) -> Path:
    """The default folder of a worker: under ``$XDG_STATE_HOME``, else ``~/.local/state``."""
    home = os.environ.get("XDG_STATE_HOME", "")
    # The standard requires that a relative one is ignored.
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    return base / "outlast" / "workers" / urllib.parse.quote(name, safe="")


def capabilities(given: Any) -> dict[str, Any]:
    """
    :raises ConfigurationError: if they are not a JSON object.
    """
    if given is None:
        return {}
    if isinstance(given, (list, tuple, set, frozenset)):
        return {str(name): True for name in given}
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"capabilities must be a dict, not {type(given).__name__}")
    return dict(given)
