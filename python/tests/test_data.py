"""What becomes of values."""

import json
import math
import pickle

import pytest
from outlast import _data
from outlast.errors import SerializationError


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
        with pytest.raises(SerializationError, match="cannot be read here"):
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
