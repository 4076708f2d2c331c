"""Values come back equal in value and type, or are refused with their path."""

import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from collections import OrderedDict, namedtuple
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskqueue.errors import CannotOpen, InvalidSetting, PayloadTooDeep, PayloadTooLarge, PayloadTypeError
from taskqueue.payload import Limits, canonical, decode, encode

bounded = settings(max_examples=200, deadline=None, derandomize=True, database=None)

BERLIN = ZoneInfo("Europe/Berlin")
any_text = st.text(st.characters(exclude_categories=()), max_size=20)
zones = st.sampled_from([None, UTC, BERLIN, ZoneInfo("America/New_York"), timezone(timedelta(hours=5, minutes=30))])
folds = st.integers(0, 1)
hashable_atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    any_text,
    st.binary(max_size=20),
    st.builds(lambda at, fold: at.replace(fold=fold), st.datetimes(timezones=zones, allow_imaginary=True), folds),
    st.dates(),
    st.builds(lambda at, fold: at.replace(fold=fold), st.times(timezones=zones), folds),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False, allow_infinity=False),
)
hashables = st.recursive(
    hashable_atoms,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
keys = any_text | st.sampled_from(["$", "$$", "$tuple", "$bytes", "$set", "$$uuid", "$unknown"])
values = st.recursive(
    hashables,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(keys, inner, min_size=1, max_size=1),
        st.sets(hashables, max_size=3),
    ),
    max_leaves=15,
)


def shape(value: Any) -> Any:
    """Return ``value`` with the type of everything in it and what equality overlooks."""
    kind = type(value)
    if kind is dict:
        return kind, [(shape(key), shape(item)) for key, item in value.items()]
    if kind in {list, tuple}:
        return kind, [shape(item) for item in value]
    if kind in {set, frozenset}:
        return kind, sorted(repr(shape(item)) for item in value)
    if kind in {datetime, time}:
        return kind, value.replace(tzinfo=None), value.fold, value.utcoffset(), getattr(value.tzinfo, "key", None)
    return kind, repr(value)


@bounded
@given(values)
def test_every_value_of_the_closed_list_comes_back_equal_in_value_and_type(value: Any) -> None:
    back = decode(encode(value))
    assert back == value
    assert shape(back) == shape(value)


@bounded
@given(st.recursive(st.none() | st.integers() | any_text, lambda inner: st.dictionaries(keys, inner, max_size=2)))
def test_dicts_that_look_like_tags_come_back_beside_real_tags(value: Any) -> None:
    for whole in (value, [value, (1,)], {"$tuple": value, "b": b"x"}, {"$set": (value,)}):
        assert shape(decode(encode(whole))) == shape(whole)


@pytest.mark.parametrize(
    "value",
    [
        "\ud83d\ude00",  # two surrogates, which JSON's escapes would join
        "\ud800",
        "a\0b",
        "\u2028 \x7f \x1b",
        10**4299,
        -(10**18),
        -0.0,
        5e-324,
        1.7976931348623157e308,
        Decimal("1.00"),
        Decimal("-0"),
        Decimal("1E+999999"),
        datetime.min,  # noqa: DTZ901
        datetime.max,  # noqa: DTZ901
        datetime.max.replace(tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-1, microseconds=-7))),
        timedelta.min,
        timedelta.max,
        {"": {"": [[], {}, (), set(), frozenset()]}},
        pytest.param({frozenset({1, ("a", b"b")}), "x"}, id="a set in a set"),
        {"true": True, "one": 1, "float": 1.0},
    ],
    ids=repr,
)
def test_values_at_the_edges_come_back(value: Any) -> None:
    back = decode(encode(value))
    assert back == value
    assert shape(back) == shape(value)


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("hour", ["2026-10-25T02:30", "2026-03-29T02:30", "2026-06-01T12:00"])
def test_a_zoned_datetime_keeps_zone_fold_and_offset_in_repeated_and_skipped_hours(hour: str, fold: int) -> None:
    at = datetime.fromisoformat(hour).replace(tzinfo=BERLIN, fold=fold)
    back = decode(encode(at))
    assert back == at
    assert back.tzinfo is BERLIN
    assert (back.fold, back.utcoffset()) == (fold, at.utcoffset())


@pytest.mark.parametrize("zone", ["Nowhere/Atlantis", "../../etc/passwd", "America", "", "\0"])
def test_a_datetime_of_a_zone_that_this_machine_lacks_keeps_its_instant(zone: str) -> None:
    data = b"t" + json.dumps({"$datetime": ["2026-10-25T02:30:00+01:00", 1, zone]}).encode()
    assert decode(data) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


def test_a_datetime_whose_zone_has_other_rules_here_keeps_its_instant() -> None:
    data = b"t" + json.dumps({"$datetime": ["2026-06-01T12:00:00+09:00", 0, "Europe/Berlin"]}).encode()
    assert decode(data) == datetime(2026, 6, 1, 3, 0, tzinfo=UTC)


class SummerTime(tzinfo):
    """Another library's zone, without a name that could be stored."""

    def utcoffset(self, at: datetime | None) -> timedelta:
        return timedelta(hours=1 if at is not None and at.fold else 2)

    def dst(self, at: datetime | None) -> None:
        return None

    def tzname(self, at: datetime | None) -> str:
        return "summer"


def test_a_datetime_of_another_zone_class_keeps_its_offset_or_is_refused() -> None:
    plain = datetime(2026, 6, 1, 12, tzinfo=SummerTime())

    class Fixed(SummerTime):
        def utcoffset(self, at: datetime | None) -> timedelta:
            return timedelta(hours=2)

    fixed = datetime(2026, 6, 1, 12, tzinfo=Fixed())
    back = decode(encode(fixed))
    assert back == fixed
    assert back.utcoffset() == timedelta(hours=2)
    with pytest.raises(PayloadTypeError, match=r"payload\[0\] is a datetime with a .*SummerTime"):
        encode([plain])


def zone_from_file(key: str | None) -> ZoneInfo:
    # A zone of +02:00, and of +01:00 from 2026-10-25T01:00Z: the format of RFC 8536.
    change = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp())
    counts = struct.pack(">6l", 0, 0, 0, 1, 2, 10)
    types = struct.pack(">lbblbb", 7200, 0, 0, 3600, 0, 5) + b"CEST\0CET\0\0"
    first = b"TZif2" + bytes(15) + counts + struct.pack(">lB", change, 1) + types
    second = b"TZif2" + bytes(15) + counts + struct.pack(">qB", change, 1) + types
    return ZoneInfo.from_file(io.BytesIO(first + second + b"\n\n"), key=key)


@pytest.mark.parametrize("key", [None, "Nowhere/Atlantis", "Europe/Berlin", "../x"])
def test_a_zone_that_its_key_does_not_find_keeps_its_offset_or_is_refused(key: str | None) -> None:
    zone = zone_from_file(key)
    noon = datetime(2026, 6, 1, 12, tzinfo=zone)
    assert decode(encode(noon)) == noon
    for value in (datetime(2026, 10, 25, 2, 30, tzinfo=zone), time(12, tzinfo=zone)):
        with pytest.raises(PayloadTypeError, match=r"zoneinfo\.ZoneInfo"):
            encode(value)


Point = namedtuple("Point", "x y")  # noqa: PYI024  # the untyped kind is what people have


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Name(StrEnum):
    ADA = "ada"


class Text(str):
    __slots__ = ()


class Number(float):
    __slots__ = ()


@dataclass
class Item:
    price: int


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (Colour.RED, r"\.value"),
        (Size.LARGE, r"\.value"),
        (Name.ADA, r"\.value"),
        (Point(1, 2), "plain tuple"),
        (OrderedDict(a=1), "plain dict"),
        (Text("x"), "plain str"),
        (Number(1), "plain float"),
        (Item(1), r"dataclasses\.asdict"),
        pytest.param(object(), "pass an id", id="a plain object"),
        (len, "builtin_function_or_method"),
        (bytearray(b"x"), "bytearray"),
        (1j, "complex"),
        (range(3), "range"),
        (float("nan"), "only finite numbers"),
        (float("inf"), "only finite numbers"),
        (float("-inf"), "only finite numbers"),
        (Decimal("NaN"), "only finite numbers"),
        (Decimal("Infinity"), "only finite numbers"),
        ({1: "a"}, "key of type int"),
        ({1: "a", "1": "b"}, "key of type int"),
        ({None: 1}, "key of type NoneType"),
        ({Name.ADA: 1}, "key of type .*Name"),
        ({Text("x"): 1}, "key of type .*Text"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_would_not_come_back_equal_is_refused_with_its_path(value: Any, sentence: str) -> None:
    with pytest.raises(PayloadTypeError, match=rf"^payload\.items\[3\]\.price (is|has) .*{sentence}") as caught:
        encode({"items": [0, 1, 2, {"price": value}]})
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"unit price": {1j}}, r"payload\['unit price'\]\{\.\.\.\}"),
        ((0, [1j]), r"payload\[1\]\[0\]"),
        ({"k" * 500: 1j}, r"payload\['k{40}'\.\.\.\]"),
        ({"\n\x1b": 1j}, r"payload\['\\n\\x1b'\]"),
        (1j, "payload"),
    ],
)
def test_a_path_is_readable_and_short(value: Any, path: str) -> None:
    with pytest.raises(PayloadTypeError, match=rf"^{path} is of type complex"):
        encode(value)


def test_a_refusal_names_the_root_and_never_the_value() -> None:
    secret = Text("hunter2")
    with pytest.raises(PayloadTypeError) as caught:
        encode({"password": secret}, root="result")
    assert str(caught.value).startswith("result.password")
    assert "hunter2" not in str(caught.value)


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize("deepest", [1, 2, 9, 10, 64, 256])
def test_the_deepest_allowed_value_passes_and_one_more_level_does_not(deepest: int) -> None:
    limits = Limits(max_depth=deepest)
    for depth in (deepest - 1, deepest):
        assert decode(encode(nested(depth), limits), limits) == nested(depth)
    with pytest.raises(PayloadTooDeep, match=f"more than {deepest} levels"):
        encode(nested(deepest + 1), limits)


def test_depth_is_counted_alike_with_and_without_tags() -> None:
    limits = Limits(max_depth=3)
    allowed: list[Any] = [[[[1]]], [[(1,)]], [{"a": {b"x"}}], ((("a",),),)]
    for value in allowed:
        assert decode(encode(value, limits), limits) == value
    refused: list[Any] = [[[[[]]]], [[[()]]], [{"a": (frozenset(),)}]]
    for value in refused:
        with pytest.raises(PayloadTooDeep):
            encode(value, limits)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["a"] = [loop, loop, loop]
    with pytest.raises(PayloadTooDeep, match="contains itself"):
        encode(loop)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("tag", [[], [b""]])
def test_shared_parts_that_would_unfold_without_end_are_refused_at_once(tag: list[bytes]) -> None:
    value: list[Any] = tag
    for _ in range(60):
        value = [value, value]
    with pytest.raises(PayloadTooLarge):
        encode(value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "part",
    ["x" * 100_000, {"x" * 100_000: 1}, b"x" * 100_000, {"x" * 100_000: b""}, ("x" * 100_000,), 10**4200],
    ids=["text", "key", "bytes", "key beside a tag", "text beside a tag", "integer"],
)
def test_one_large_part_that_occurs_often_is_refused_before_it_is_written_out(part: Any) -> None:
    value = [part] * (20_000 if type(part) is int else 1_000)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge, match="at least"):
            encode(value)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_one_byte_above_the_limit_is_refused_with_both_sizes() -> None:
    limits = Limits(max_bytes=1000)
    assert len(encode("x" * 997, limits)) == 1000
    with pytest.raises(PayloadTooLarge, match=r"has 1,001 bytes and the limit is 1,000"):
        encode("x" * 998, limits)
    with pytest.raises(PayloadTooLarge, match=r"1,000"):
        encode(b"x" * 998, limits)


def test_more_items_than_allowed_are_refused() -> None:
    limits = Limits(max_items=10)
    assert decode(encode([0] * 10, limits), limits) == [0] * 10
    for value in ([0] * 11, [[0] * 5, [0] * 5], {str(key): 0 for key in range(11)}, [()] * 11):
        with pytest.raises(PayloadTooLarge, match="more than 10 items"):
            encode(value, limits)


def test_an_integer_of_too_many_digits_is_refused() -> None:
    assert decode(encode([10**4299])) == [10**4299]
    for value in (10**4300, -(10**4300)):
        with pytest.raises(PayloadTooLarge, match=r"payload\[0\] is an integer of more than 4,300 digits"):
            encode([value])


@pytest.mark.parametrize(
    "bounds", [{"max_bytes": 0}, {"max_depth": 257}, {"max_depth": 0}, {"max_items": -1}, {"max_digits": 5000}]
)
def test_limits_that_could_not_be_kept_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(bounds))):
        Limits(**bounds)


def test_plain_json_is_stored_as_plain_json() -> None:
    value = {"to": "a@example.org", "n": [1, 2.5, None, True], "$tuple": {"$x": 1}}
    data = encode(value)
    assert data[:1] == b"j"
    assert json.loads(data[1:]) == value


def test_equal_sets_and_reordered_dicts_have_equal_canonical_bytes() -> None:
    first = {"a": {"x", "y", "z", ("t",)}, "b": [{"p": 1, "q": 2}]}
    second = {"b": [{"q": 2, "p": 1}], "a": {("t",), "z", "y", "x"}}
    assert canonical(first) == canonical(second)
    assert canonical({"a": 1}) != canonical({"a": True})
    assert canonical({"a": (1,)}) != canonical({"a": [1]})


def test_equal_sets_have_equal_bytes_in_every_process() -> None:
    code = "from taskqueue.payload import encode; print(encode([set('abcdefgh'), {('x', 1), 'y', None}]).hex())"
    written = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONPATH": ".", "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2", "3")
    }
    assert len(written) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"j",
        b"x1",
        b"1",
        b"j1 ",
        b"j1}",
        b"j[1",
        b"jNaN",
        b"t[Infinity]",
        b"\xffj1",
        b'j"\xff"',
        b"j" + b"[" * 100_000,
        b"t" + b'{"$tuple":[' * 100_000,
        b"j" + b"[" * 65 + b"]" * 65,
        b"t" + b'{"$tuple":[' * 65 + b"]}" * 65,
        b"j" + b"9" * 5000,
        b't{"$unknown":1}',
        b't{"$":1}',
        b't{"$tuple":"ab"}',
        b't{"$set":[[]]}',
        b't{"$set":{"a":1}}',
        b't{"$bytes":"a"}',
        b't{"$bytes":"\xc3\xa4==="}',
        b't{"$bytes":1}',
        b't{"$decimal":"x"}',
        b't{"$decimal":[0,[1],0]}',
        b't{"$decimal":1}',
        b't{"$uuid":"x"}',
        b't{"$uuid":5}',
        b't{"$date":"2026-13-01"}',
        b't{"$date":null}',
        b't{"$datetime":["2026-01-01",2,null]}',
        b't{"$datetime":[1]}',
        b't{"$time":["12:00",0,"Nowhere/Atlantis"]}',
        b't{"$timedelta":[999999999999,0,0]}',
        b't{"$timedelta":["1",0,0]}',
        b't{"$timedelta":5}',
    ],
    ids=lambda data: repr(data[:30]),
)
@pytest.mark.timeout(5)
def test_malformed_bytes_end_in_cannot_open(data: bytes) -> None:
    with pytest.raises(CannotOpen) as caught:
        decode(data)
    assert caught.value.__cause__ is None


def test_more_bytes_than_the_limit_are_not_read() -> None:
    with pytest.raises(CannotOpen):
        decode(b"j" + b" " * 100, Limits(max_bytes=100))


@bounded
@given(st.binary(max_size=60) | st.builds(bytes.__add__, st.sampled_from([b"j", b"t"]), st.binary(max_size=60)))
def test_random_bytes_decode_to_a_value_or_cannot_open(data: bytes) -> None:
    with suppress(CannotOpen):
        decode(data)


@bounded
@given(values, st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_encodings_decode_to_a_value_or_cannot_open(value: Any, position: int, byte: int) -> None:
    data = bytearray(encode(value))
    data[position % len(data)] = byte
    with suppress(CannotOpen):
        decode(bytes(data))


def test_ids_and_times_of_everyday_payloads_come_back() -> None:
    value = {
        "id": UUID("01900000-0000-7000-8000-000000000001"),
        "on": date(2026, 11, 23),
        "at": time(2, 30, tzinfo=BERLIN),
        "within": timedelta(minutes=5),
    }
    assert shape(decode(encode(value))) == shape(value)
