"""Encoding of calls: the function and its arguments.

A call is ``{"function": NAME, "args": DOCUMENT}``. A document is the JSON object of the keyword
arguments; with positional ones ``{"$args": […], "$kwargs": {…}}``; with arguments that JSON cannot
represent ``{"$pickle": base64 of pickle((args, kwargs))}``. With ``$python`` in it, the name is not that
of a registered function but ``module:qualname``, to be imported by the worker (``"import"``), or the
document contains the function as ``$function``: base64 of the bytes of cloudpickle, made by the Python
version in ``$python``, such as ``"3.11"``.
"""

from __future__ import annotations

import base64
import functools
import importlib
import inspect
import json
import sys
import types
from typing import Any, Callable, Mapping, Optional, Sequence, Union

from . import _data
from .errors import ConfigurationError, InvalidData, OutlastError, SerializationError

ARGS, KWARGS, PICKLE, EACH = "$args", "$kwargs", "$pickle", "$each"
PYTHON, FUNCTION = "$python", "$function"
WAYS = ("auto", "import", "cloudpickle")
#: The version that bytecode depends on.
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
#: Capability, with VERSION, of workers that run functions by path or by value.
CAPABILITY = "python_functions"
# Size of a task in bytes of JSON; the coordinator accepts no more.
_LONGEST = 256 << 10


def cloudpickle() -> Any:
    try:
        return importlib.import_module("cloudpickle")
    except ImportError as e:
        raise ConfigurationError(
            f"functions are sent by value with cloudpickle, which cannot be imported ({e}):"
            " pip install cloudpickle"
        ) from e


def way(ways: Any) -> str:
    """
    :raises ConfigurationError: if the value is unknown.
    """
    if ways not in WAYS:
        raise ConfigurationError(f"functions must be one of {', '.join(WAYS)}, not {ways!r}")
    return str(ways)


def find(module: Any, qualname: str) -> Any:
    """
    :raises AttributeError: with the missing name.
    """
    return functools.reduce(getattr, qualname.split("."), module)


def importable(function: Any) -> bool:
    """Reports whether the function can be found by its path, from another process too."""
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not module or module in ("__main__", "__mp_main__") or "<" in qualname:
        return False
    try:
        return find(sys.modules[module], qualname) is function
    except (KeyError, AttributeError):
        return False


class Function:
    """A function to be sent to a worker."""

    def __init__(
        self, function: Union[str, Callable[..., Any]], ways: str, allow_pickle: bool
    ) -> None:
        self._allow_pickle = allow_pickle
        self._extra: dict[str, Any] = {}
        self.requires: dict[str, str] = {}
        self._dumps: Optional[Callable[..., bytes]] = None
        self.code = ""
        if isinstance(function, str):
            self.name, self._exact = function, False
            return
        if not callable(function):
            raise TypeError(
                f"what is called must be a name or a function, not {type(function).__name__}"
            )
        module = getattr(function, "__module__", None) or type(function).__module__
        named = getattr(function, "__qualname__", None) or type(function).__qualname__
        self.name, self._exact = f"{module}:{named}", True
        self.code = fingerprint(function)
        if ways == "import" or (ways == "auto" and importable(function)):
            if not importable(function):
                raise InvalidData(
                    f"{self.name} cannot be imported by a worker: only top-level functions of a"
                    " module can, and workers do not have this program's __main__. Move it to a module,"
                    " or use functions=\"cloudpickle\""
                )
            self._extra = {PYTHON: "import"}
            self.requires = {CAPABILITY: "*"}
            return
        if not allow_pickle:
            raise SerializationError(
                f"{self.name} can only be sent with cloudpickle, and pickles are turned off"
                " (allow_pickle)"
            )
        self._dumps = cloudpickle().dumps
        try:
            data = self._dumps(function, protocol=5)
        except Exception as e:
            raise SerializationError(f"{self.name} cannot be sent by value: {e}") from e
        self._extra = {PYTHON: VERSION, FUNCTION: base64.b64encode(data).decode("ascii")}
        self.requires = {CAPABILITY: VERSION}

    @property
    def travels_by_path(self) -> bool:
        return self._dumps is None and self._exact

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any], each: bool = False) -> str:
        """The JSON text of the document. With ``each``, the single argument is a list of tuples of
        arguments, and the result is the list of the function's results.

        :raises SerializationError: if the arguments can be neither JSON nor a pickle.
        """
        extra = {**self._extra, EACH: True} if each else self._extra
        document: Any
        if not args and not extra:
            document = dict(kwargs)
        else:
            document = {ARGS: list(args), **({KWARGS: dict(kwargs)} if kwargs else {}), **extra}
        plain = [list(map(list, args[0]))] if each else list(args)
        if each:
            document[ARGS] = plain
        why: Exception
        try:
            # A name may refer to a function in any language. A Python function gets its arguments
            # unchanged, or a pickle of them.
            if not self._exact:
                _data.check_plain([plain, dict(kwargs)])
                return _sized(_dump(document))
            if _data.travels([plain, dict(kwargs)]):
                return _sized(_dump(document))
            why = TypeError("the arguments are not exactly JSON")
        except RecursionError as e:
            raise _data._too_deep(e) from e
        except (TypeError, ValueError) as e:
            why = e
        if not self._allow_pickle:
            try:
                _data.check_plain([plain, dict(kwargs)])
                return _sized(_dump(document))
            except (TypeError, ValueError) as e:
                raise SerializationError(
                    f"{e}, and pickles are turned off (allow_pickle)"
                ) from e
        data = self._pickled((args, dict(kwargs)), why)
        return _sized(_dump({PICKLE: base64.b64encode(data).decode("ascii"), **extra}))

    def _pickled(self, value: Any, why: Exception) -> bytes:
        import pickle

        try:
            if self._dumps is None:
                try:
                    return pickle.dumps(value, protocol=5)
                except Exception:
                    # A class of a __main__ that workers do not have.
                    return cloudpickle().dumps(value, protocol=5)
            return self._dumps(value, protocol=5)
        except Exception as e:
            raise SerializationError(f"{why}, and they cannot be pickled: {e}") from e


def _dump(document: Any) -> str:
    return json.dumps(document, allow_nan=False, default=_data._foreign)


def _sized(text: str) -> str:
    if len(text) >= _LONGEST:
        raise InvalidData(
            f"the function and its arguments have {len(text)} bytes, and a task must have fewer than"
            f" {_LONGEST}: keep large data in files, or let the function load it"
        )
    return text


def fingerprint(function: Any) -> str:
    """A digest that changes with the function's behaviour: its code, its defaults, its closure, and
    the objects that a partial or a method is bound to; empty if the name identifies the function."""
    import hashlib

    told = _told(function, {})
    return "" if isinstance(told, str) else hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _told(value: Any, seen: dict[int, Any]) -> Any:
    """A representation of a value that is the same whenever the value is constructed the same way."""
    if isinstance(value, (type, types.BuiltinFunctionType, types.ModuleType)):
        owner = getattr(value, "__self__", None)
        named = f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', value.__name__)}"
        bound = owner is not None and not isinstance(owner, types.ModuleType)
        return [named, _told(owner, seen)] if bound else named
    if type(value) not in (list, tuple, dict) and _data.travels(value):
        return repr(value)
    if id(value) in seen:
        return "again"
    seen[id(value)] = value

    def all_of(values: Any) -> list[Any]:
        return [_told(item, seen) for item in values]

    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *all_of(value)]
    if type(value) is dict:
        return ["dict", *all_of(value.keys()), *all_of(value.values())]
    if isinstance(value, functools.partial):
        return ["partial", *all_of((value.func, value.args, value.keywords))]
    if isinstance(value, types.MethodType):
        return ["method", *all_of((value.__func__, value.__self__))]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_set(cell)]
        more = (value.__defaults__, value.__kwdefaults__, getattr(value, "__wrapped__", None))
        return ["function", _code(value.__code__), *all_of((*more, cells))]
    call = getattr(type(value), "__call__", None)
    return ["object", _told(call, seen) if callable(value) else None, _dumped(value)]


def _is_set(cell: Any) -> bool:
    try:
        cell.cell_contents  # raises if the cell is empty
    except ValueError:
        return False
    return True


def _code(code: types.CodeType) -> Any:
    consts = [_code(c) if inspect.iscode(c) else _stable(c) for c in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), consts]


def _dumped(value: Any) -> str:
    import hashlib
    import uuid

    for by in _data.picklers():
        try:
            return hashlib.sha256(by.dumps(value, protocol=5)).hexdigest()
        except Exception:
            continue
    # It cannot be distinguished from others: then it is run again rather than mistaken for one.
    return uuid.uuid4().hex


def _stable(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


# On the worker.


def wants_context(function: Callable[..., Any]) -> Optional[str]:
    """The name of the function's parameter that is annotated as TaskContext."""
    from .context import TaskContext

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    for parameter in parameters:
        note = parameter.annotation
        if note is TaskContext:
            return parameter.name
        if isinstance(note, str) and note.rpartition(".")[2] == "TaskContext":
            return parameter.name
    return None


@functools.lru_cache(maxsize=64)
def _imported(path: str) -> tuple[Callable[..., Any], Optional[str]]:
    module, _, qualname = path.partition(":")
    try:
        function = find(importlib.import_module(module), qualname)
    except ImportError as e:
        raise OutlastError(f"this worker cannot import {module!r} for {path}: {e}") from e
    except AttributeError as e:
        raise OutlastError(f"this worker has {module!r}, but no {path}: {e}") from e
    if not callable(function):
        raise OutlastError(f"{path} is not a function but {type(function).__name__}")
    return function, wants_context(function)


@functools.lru_cache(maxsize=64)
def loaded(data: str) -> tuple[Callable[..., Any], Optional[str]]:
    """Decodes a function from base64 of the bytes of cloudpickle."""
    cloudpickle()
    function = _load(data, "the function")
    return function, wants_context(function)


def _load(data: str, what: str) -> Any:
    try:
        return unpickled(data)
    except Exception as e:
        raise OutlastError(f"{what} cannot be unpickled here: {type(e).__name__}: {e}") from e


def unpickled(data: str) -> Any:
    """Decodes base64 of a pickle."""
    import pickle

    # In the processes of its tasks, a worker's script has this name.
    sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
    return pickle.loads(base64.b64decode(data))


def is_python(document: Any) -> bool:
    """Reports whether the call contains its function, by path or by value."""
    return isinstance(document, dict) and PYTHON in document


def _refuse(what: str) -> OutlastError:
    return OutlastError(f"this worker accepts no pickles (allow_pickle=False), and {what} one")


def brought(
    name: str, document: Mapping[str, Any], allow_pickle: bool
) -> tuple[Callable[..., Any], Optional[str]]:
    """The function of a call that contains it.

    :raises OutlastError: if the function cannot be loaded here.
    """
    made_by = document[PYTHON]
    if FUNCTION not in document:
        return _imported(name)
    if not allow_pickle:
        raise _refuse("the function came as")
    if made_by != VERSION:
        raise OutlastError(
            f"the function was sent by value from Python {made_by}, and this worker runs {VERSION}:"
            " use the same, or send it by its import path"
        )
    return loaded(document[FUNCTION])


def taken_apart(document: Any, allow_pickle: bool) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call."""
    if not isinstance(document, dict):
        return ([] if document is None else [document]), {}
    if PICKLE in document:
        if not allow_pickle:
            raise _refuse("the arguments came as")
        args, kwargs = _load(document[PICKLE], "the arguments")
        return list(args), kwargs
    if ARGS in document or PYTHON in document:
        return list(document.get(ARGS, ())), dict(document.get(KWARGS, {}))
    return [], document


def config(document: Any, allow_pickle: bool) -> Any:
    """The arguments for a function that takes the whole document.

    :raises OutlastError: if the call contains a function.
    """
    if is_python(document):
        raise OutlastError(
            "this worker only runs its execute_task; functions by path or by value need an"
            " outlast.Worker"
        )
    if isinstance(document, dict) and PICKLE in document:
        args, kwargs = taken_apart(document, allow_pickle)
        return {ARGS: args, **({KWARGS: kwargs} if kwargs else {})} if args else kwargs
    return document


def invoke(
    function: Callable[..., Any], wanted: Optional[str], context: Any, allow_pickle: bool
) -> Any:
    """Calls the function with the arguments of the task."""
    document = context.args
    args, kwargs = taken_apart(document, allow_pickle)
    if is_python(document) and EACH in document:
        return [_call(function, wanted, context, list(each), kwargs) for each in args[0]]
    return _call(function, wanted, context, args, kwargs)


def _call(
    function: Callable[..., Any],
    wanted: Optional[str],
    context: Any,
    args: list[Any],
    kwargs: dict[str, Any],
) -> Any:
    if wanted is None:
        return function(*args, **kwargs)
    if args and next(iter(inspect.signature(function).parameters)) == wanted:
        return function(context, *args, **kwargs)
    return function(*args, **{**kwargs, wanted: context})
