"""What becomes of values."""

import functools
import json
import math
import pickle

import pytest
from outlast import _calls, _data
from outlast.errors import SerializationError, TaskFailed


class Point:
    def __init__(self, at):
        self.at = at

    def move(self):
        return self.at

    __call__ = move


def there_and_back(value, allow=True):
    parts, meta = _data.to_checkpoint(value, allow)
    data = b"".join(parts)
    return _data.from_checkpoint(data, meta, allow), meta["codec"], data


@pytest.mark.parametrize(
    "value",
    [None, True, 0, 10**40, -1.5, "ü\ud800", [], {}, {"a": [1, {"b": None}], "": "x" * 100}],
)
def test_json_stays_json(value):
    back, codec, data = there_and_back(value, allow=False)
    assert back == value and codec == "json"
    assert json.loads(data.decode("utf-8", "surrogatepass")) == value


@pytest.mark.parametrize("value", [(1, 2), {1: "a"}, {"a": (1,)}, b"bytes", {1, 2}, 1j, math.inf])
def test_what_json_would_change_is_pickled(value):
    back, codec, _ = there_and_back(value)
    assert back == value and type(back) is type(value) and codec == "pickle5"
    with pytest.raises(SerializationError, match="turned off"):
        _data.to_checkpoint(value, False)


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**63) - 1, "caf\udce9", {"caf\udce9": 1}, {"$pickle5": "x"}, eval("[" * 150 + "]" * 150)],
)
def test_results_that_others_would_change_are_pickled(value):
    text = _data.to_result(value, True, exact=True)
    assert text.isascii() and _data.from_result(json.loads(text), True) == value
    if value != {"$pickle5": "x"}:
        with pytest.raises(SerializationError, match="turned off"):
            _data.to_result([value], False)


def test_results_of_64_bits_are_plain():
    assert _data.to_result([2**64 - 1, -(2**63), "é"], True, exact=True) == (
        '[18446744073709551615, -9223372036854775808, "\\u00e9"]'
    )


def test_state_is_shown_whatever_it_is():
    shown = json.loads(_data.to_state({"name": "caf\udce9", "big": 2**70, "nan": math.nan}))
    assert shown["name"] == "caf\\udce9" and shown["nan"] == "nan"


def test_what_a_function_does_is_told_apart():
    def closure(rate):
        return lambda: rate

    def again(n):
        return again(n - 1) if n else 0

    makers = [
        lambda rate: functools.partial(pow, rate),
        lambda rate: Point(rate).move,
        lambda rate: Point(rate),
        closure,
        lambda rate: lambda given=rate: given,
    ]
    for make in makers:
        one, same, other = (_calls.fingerprint(make(rate)) for rate in (0.1, 0.1, 0.9))
        assert one == same != other and one
    assert _calls.fingerprint(again) == _calls.fingerprint(again)
    assert _calls.fingerprint(abs) == ""


def test_failures_travel():
    error = pickle.loads(pickle.dumps(TaskFailed("t", "why", "trace", {"a": 1})))
    assert (error.task_id, error.message, error.remote_traceback) == ("t", "why", "trace")
    assert str(error) == str(TaskFailed("t", "why", "trace")) and error.result == {"a": 1}


def test_a_pickle_is_not_loaded_where_that_is_turned_off():
    parts, meta = _data.to_checkpoint((1,), True)
    with pytest.raises(SerializationError, match="turned off"):
        _data.from_checkpoint(b"".join(parts), meta, False)


def test_a_result_that_cannot_be_parsed_is_its_text():
    end = '{"id":"t","state":"succeeded","stdout":",\\"value\\":1","value":%s}'
    assert _data.read_end(end % '{"x":"\\ud800","y":1e400}')["value"] == {"x": "\ud800", "y": math.inf}
    for text in ["[" * 100_000 + "]" * 100_000, '{"n":' + "7" * 5_000 + "}"]:
        try:
            json.loads(text)
            continue  # this Python reads it
        except (ValueError, RecursionError):
            pass
        read = _data.read_end(end % text)
        assert (read["id"], read["value"], read["stdout"]) == ("t", text, ',"value":1')
        with pytest.raises(SerializationError, match="cannot be parsed here"):
            _data.from_result(read["value"], True)


class Buffer:
    """Something with data out of band, as an array."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Buffer, (pickle.PickleBuffer(self.data),)


def test_buffers_lie_in_the_frame_as_they_are():
    first, second = bytearray(b"A" * 100_000), bytearray(b"B" * 777)
    value = {"one": Buffer(first), "two": [Buffer(second)], "n": 3}
    back, codec, data = there_and_back(value)
    assert codec == "pickle5" and back["n"] == 3
    assert back["one"].data == first and back["two"][0].data == second
    assert data.index(first) % 64 == 0 and data.index(second) % 64 == 0
    back["one"].data[0] = 0  # it can be written to


def test_numpy():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1000, dtype="f4").reshape(10, 100)
    back, _, data = there_and_back({"w": array, "t": array.T, "s": array[:, ::3]})
    assert (back["w"] == array).all() and (back["t"] == array.T).all()
    assert (back["s"] == array[:, ::3]).all()
    assert array.tobytes() in data
    back["w"][0, 0] = 5
    assert _data.to_result({"loss": numpy.float32(0.5), "n": numpy.int64(3)}, False) == (
        '{"loss": 0.5, "n": 3}'
    )
    result = json.loads(_data.to_result(array, True))
    assert (_data.from_result(result, True) == array).all()
    assert _data.from_result(result, False) == result


def test_results():
    assert _data.to_result({"a": (1, 2)}, False) == '{"a": [1, 2]}'
    value = {"a": {1, 2}, "nan": math.inf}
    assert _data.from_result(json.loads(_data.to_result(value, True)), True) == value
    with pytest.raises(SerializationError, match="set is not JSON.*turned off"):
        _data.to_result({1}, False)
    with pytest.raises(SerializationError, match="not JSON.*cannot be pickled"):
        _data.to_result(lambda: 0, True)


def test_state_is_for_people():
    shown = json.loads(_data.to_state({"loss": math.nan, "at": {1: (2,)}, "who": object}))
    assert shown["loss"] == "nan" and shown["at"] == {"1": [2]} and "object" in shown["who"]
    with pytest.raises(SerializationError, match="must be a dict"):
        _data.to_state([1])


def test_what_contains_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(SerializationError, match="nested"):
        _data.to_checkpoint(loop, False)


def test_what_came_by_value_goes_back_so():
    pytest.importorskip("cloudpickle")
    text = _data.to_result(lambda: 7, True, exact=True)
    assert _data.from_result(json.loads(text), True)() == 7
