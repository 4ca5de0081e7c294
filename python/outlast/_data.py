"""Encoding of values as bytes.

**Checkpoints**: values that JSON restores exactly (dicts with text keys, lists, text, numbers except NaN and
infinity, booleans, None) are JSON text, which ``outlast task fetch`` shows. Everything else is pickled with
protocol 5 into one frame: ``OLPK1``, a line feed, two padding bytes; little-endian u64s: the number of
buffers, the length of the pickle, the length of each buffer; the pickle; the buffers. Each part begins at a
multiple of 64, so that unchanged data looks the same to the chunker, wherever it lies.

**Results** are JSON, with NumPy's numbers as numbers; a value that JSON cannot represent is an object with
the single member ``$pickle5``: base64 of such a frame.

The coordinator never unpickles. Loading a pickle runs code from it: turn pickles off
(``allow_pickle=False``) if the other side is not trusted.
"""

from __future__ import annotations

import base64
import json
import math
import struct
import sys
from collections.abc import Mapping
from typing import Any, Union

from .documents import TaskResult
from .errors import SerializationError

_MAGIC = b"OLPK1\n\0\0"
_ALIGN = 64
_MARK = "$pickle5"


# Depth up to which other JSON readers accept nested lists and dicts.
_DEEPEST = 100


def _exact(value: Any, elsewhere: bool = False, depth: int = _DEEPEST) -> bool:
    """Reports whether JSON restores the value exactly.

    :param elsewhere: even if it passes through programs whose integers have 64 bits, whose text has no halves
        of surrogate pairs, and that limit the depth; keys with a dollar sign are reserved there.
    """
    kind = type(value)
    if kind is str:
        return not elsewhere or _is_text(value)
    if kind is int:
        return not elsewhere or _is_short(value)
    if kind is bool or value is None:
        return True
    if kind is float:
        return math.isfinite(value)
    if elsewhere and depth == 0:
        return False
    if kind is list:
        return all(_exact(item, elsewhere, depth - 1) for item in value)
    if kind is dict:
        return all(
            type(key) is str
            and (not elsewhere or (key[:1] != "$" and _is_text(key)))
            and _exact(item, elsewhere, depth - 1)
            for key, item in value.items()
        )
    return False


def travels(value: Any) -> bool:
    """Reports whether JSON restores the value exactly after it passed through other programs."""
    return _exact(value, elsewhere=True)


def _is_text(value: str) -> bool:
    """Reports whether the text has no half of a surrogate pair, as file names may have."""
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _is_short(value: int) -> bool:
    """Reports whether the integer has at most 64 bits."""
    return -(2**63) <= value < 2**64


def _bends(value: Any, depth: int = _DEEPEST) -> str:
    """The part of a JSON value that other programs may not preserve, if there is one."""
    if isinstance(value, str):
        return "" if _is_text(value) else "half a surrogate pair"
    if isinstance(value, int):
        return "" if _is_short(value) else "an integer of more than 64 bits"
    if isinstance(value, (list, tuple, dict)):
        if depth == 0:
            return f"more than {_DEEPEST} levels"
        both = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        return next(filter(None, (_bends(item, depth - 1) for item in both)), "")
    return ""


def check_plain(value: Any) -> None:
    """
    :raises ValueError: if JSON text of the value would be refused or rounded by other programs.
    """
    bends = _bends(value)
    if bends:
        raise ValueError(f"it has {bends}, which not every JSON reader preserves")


def picklers() -> list[Any]:
    """The available picklers, the plainest first; cloudpickle only if it is already imported."""
    import pickle

    by_value = sys.modules.get("cloudpickle")
    return [pickle] if by_value is None else [pickle, by_value]


def _frame(value: Any, by_value: bool = False) -> list[Any]:
    """The parts of a frame. The buffers are those of the value itself, not copies.

    :param by_value: also pickle classes and functions of a ``__main__`` that came by value.
    """
    import pickle

    for by in picklers() if by_value else [pickle]:
        buffers: list[pickle.PickleBuffer] = []
        try:
            head = by.dumps(value, protocol=5, buffer_callback=buffers.append)
            raw = [buffer.raw() for buffer in buffers]
            break
        except Exception as e:
            why = e
    else:
        raise SerializationError(f"it cannot be pickled: {why}") from why
    lengths = [part.nbytes for part in raw]
    table = struct.pack(f"<{2 + len(raw)}Q", len(raw), len(head), *lengths)
    parts: list[Any] = []
    for part in [_MAGIC + table, head, *raw]:
        parts.append(part)
        parts.append(bytes(-len(part) % _ALIGN))
    return parts


def _unframe(data: Union[bytes, bytearray]) -> Any:
    import pickle

    if data[: len(_MAGIC)] != _MAGIC:
        raise SerializationError("the checkpoint's data is damaged or was made by another program")
    # Arrays created over it are writable.
    view = memoryview(data if isinstance(data, bytearray) else bytearray(data))
    count, length = struct.unpack_from("<2Q", view, len(_MAGIC))
    lengths = struct.unpack_from(f"<{count}Q", view, len(_MAGIC) + 16)
    at = len(_MAGIC) + 16 + 8 * count
    parts = []
    for size in (length, *lengths):
        at += -at % _ALIGN
        parts.append(view[at : at + size])
        at += size
    return pickle.loads(parts[0], buffers=parts[1:])


def _too_deep(e: RecursionError) -> SerializationError:
    return SerializationError(f"it is nested too deeply or contains itself: {e}")


def to_checkpoint(value: Any, allow_pickle: bool) -> tuple[list[Any], dict[str, Any]]:
    """The bytes of a checkpoint in parts, each with the buffer interface, and its metadata. The parts may
    be the value's own memory: it must not change until they are stored."""
    try:
        if _exact(value):
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            return [text.encode("utf-8", "surrogatepass")], {"codec": "json"}
        if not allow_pickle:
            raise SerializationError(
                "the checkpoint is not exactly JSON, and pickles are turned off (allow_pickle)"
            )
        return _frame(value), {"codec": "pickle5"}
    except RecursionError as e:
        raise _too_deep(e) from e


def from_checkpoint(
    data: Union[bytes, bytearray], meta: dict[str, Any], allow_pickle: bool
) -> Any:
    """Decodes the value. It may refer to the memory of ``data``, which must not change then.

    :raises SerializationError: if it is a pickle that is not allowed, or damaged.
    """
    codec = meta.get("codec")
    if codec == "pickle5":
        if not allow_pickle:
            raise SerializationError(
                "the checkpoint is a pickle, and pickles are turned off (allow_pickle)"
            )
        return _unframe(data)
    if codec == "json":
        return json.loads(data.decode("utf-8", "surrogatepass"))
    # Made by another program: returned as bytes.
    return bytes(data)


def _foreign(value: Any) -> Any:
    """NumPy's numbers as numbers, without importing NumPy."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def to_result(value: Any, allow_pickle: bool, exact: bool = False) -> str:
    """The JSON text of a result; with ``exact``, a pickle of every value that JSON would change."""
    try:
        if not (exact and allow_pickle):
            check_plain(value)
        elif not travels(value):
            raise TypeError("it is not exactly JSON")
        return json.dumps(value, ensure_ascii=True, allow_nan=False, default=_foreign)
    except RecursionError as e:
        raise _too_deep(e) from e
    except (TypeError, ValueError) as e:
        if not allow_pickle:
            raise SerializationError(f"{e}, and pickles are turned off (allow_pickle)") from e
        why = e
    try:
        return json.dumps({_MARK: base64.b64encode(b"".join(_frame(value, exact))).decode("ascii")})
    except SerializationError as e:
        raise SerializationError(f"{why}, and {e}") from e


class Unreadable(str):
    """The JSON text of a value that Python's parser refuses, and the reason."""

    why: str = ""


def is_unknown(end: TaskResult) -> bool:
    """True if the coordinator has no such task; the document then has no other field."""
    return str(end["state"]) == "unknown"


def read_end(text: str) -> TaskResult:
    """The end of a task. Workers in other languages may return values that Python cannot parse (nested too
    deep, or an integer of too many digits): such a value becomes its text, :class:`Unreadable`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        # It is the last member, and the only one of its name outside of a text.
        head, found, value = text.partition(',"value":')
        if not found:
            raise
        end: TaskResult = json.loads(head + "}")
        end["value"] = Unreadable(value[:-1])
        end["value"].why = str(e)
        return end


def from_result(value: Any, allow_pickle: bool) -> Any:
    if isinstance(value, Unreadable):
        raise SerializationError(
            f"the result is JSON that cannot be parsed here: {value.why}; `wait` returns its text"
        )
    if isinstance(value, dict) and value.keys() == {_MARK} and allow_pickle:
        return _unframe(base64.b64decode(value[_MARK]))
    return value


def clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _shown(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {clean(str(key)): _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_shown(item) for item in value]
    if isinstance(value, str):
        return clean(value)
    if value is None or isinstance(value, (int, float)):
        return value
    try:
        return _shown(_foreign(value))
    except TypeError:
        return clean(repr(value)[:1000])


def to_state(updates: Any) -> str:
    """The JSON text of a state update. State is meant for display: values that are not JSON become
    text."""
    if not isinstance(updates, Mapping):
        kind = type(updates).__name__
        raise SerializationError(f"a state update must be a dict, not {kind}")
    updates = dict(updates)
    try:
        check_plain(updates)
        return json.dumps(updates, allow_nan=False, default=_foreign)
    except RecursionError as e:
        raise _too_deep(e) from e
    except (TypeError, ValueError):
        try:
            return json.dumps(_shown(updates))
        except RecursionError as e:
            raise _too_deep(e) from e
