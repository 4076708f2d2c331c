"""Options declared once: conversion, bounds, layers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import pytest

from taskqueue.conversion import Expected
from taskqueue.errors import InvalidOption, InvalidSetting, SettingsConflict, UnknownSetting, UsageError
from taskqueue.options import (
    NO_FLAG,
    Layer,
    convert,
    convert_all,
    flag_layer,
    option,
    option_table,
    options_of,
    resolve,
)
from taskqueue.quantities import format_size, parse_duration, parse_size


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def _even(value: object) -> int:
    if value == "even":
        return 2
    raise Expected("even")


@dataclass(frozen=True, slots=True)
class Sample:
    workers: int = option(1, help="Workers.", minimum=1, maximum=256, env=("WORKERS",), hint="pause instead")
    memory: int = option(1024, help="Memory.", unit="bytes", minimum=0, bare_units={"--memory": "MB"})
    timeout: float | None = option(60.0, help="Timeout.", unit="seconds", minimum=0.5)
    ratio: float = option(0.5, help="Ratio.", minimum=0, maximum=1)
    once: bool = option(False, help="Once.")
    colour: Colour = option(Colour.RED, help="Colour.")
    form: str = option("text", help="Form.", choices=("text", "json"))
    tags: tuple[str, ...] = option((), help="Tags.", maximum=2)
    label: str | None = option(None, help="Label.", minimum=1, maximum=5)
    even: int = option(0, help="Even.", parse=_even)
    key: str | None = option(None, help="Key.", secret=True, minimum=4, rivals=("key_file",))
    key_file: str | None = option(None, help="Key file.", flag=NO_FLAG, rivals=("key",))

    def __post_init__(self) -> None:
        if self.workers > 100 and self.once:
            raise SettingsConflict("too many for once", "workers", "once")


def convert_one(name: str, value: object, source: str = "", **options: object) -> object:
    return convert(option_table(Sample)[name], value, source, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("workers", "4", 4),
        ("workers", " 4 ", 4),
        ("workers", 256, 256),
        ("memory", "50MB", 52_428_800),
        ("memory", 7, 7),
        ("timeout", "5m", 300.0),
        ("timeout", 2, 2.0),
        ("timeout", timedelta(seconds=3), 3.0),
        ("timeout", "none", None),
        ("ratio", "0.25", 0.25),
        ("ratio", 1, 1.0),
        ("once", "yes", True),
        ("once", "OFF", False),
        ("once", False, False),
        ("colour", "BLUE", Colour.BLUE),
        ("colour", Colour.BLUE, Colour.BLUE),
        ("form", "JSON", "json"),
        ("tags", "a, b", ("a", "b")),
        ("tags", ["a"], ("a",)),
        ("tags", "", ()),
        ("label", "none", "none"),
        ("even", "even", 2),
    ],
)
def test_text_and_typed_values_become_the_declared_type(name: str, given: object, expected: object) -> None:
    converted = convert_one(name, given)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("workers", 0),
        ("workers", 257),
        ("workers", True),
        ("workers", 1.0),
        ("workers", "1.5"),
        ("workers", "1_0"),
        ("workers", "\u0663"),
        ("workers", ""),
        ("workers", None),
        ("workers", [1]),
        ("workers", "9" * 5000),
        ("memory", "5XB"),
        ("memory", "-1"),
        ("memory", True),
        ("timeout", "0.4"),
        ("timeout", "nan"),
        ("timeout", float("inf")),
        ("timeout", float("nan")),
        ("timeout", True),
        ("timeout", "5 parsecs"),
        ("ratio", "nan"),
        ("ratio", "inf"),
        ("ratio", True),
        ("ratio", 1.01),
        ("once", 1),
        ("once", "perhaps"),
        ("colour", "green"),
        ("colour", 1),
        ("form", "xml"),
        ("tags", 5),
        ("tags", [1]),
        ("tags", ["a", "b", "c"]),
        ("label", ""),
        ("label", "abcdef"),
        ("label", 3),
        ("even", "odd"),
    ],
)
def test_a_wrong_type_or_a_value_out_of_bounds_is_refused(name: str, given: object) -> None:
    with pytest.raises(InvalidOption, match=rf"^{name} must be "):
        convert_one(name, given)


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        (
            "workers",
            "abc",
            "here: workers must be a whole number from 1 to 256, got 'abc'; pause instead",
        ),
        (
            "timeout",
            "-1",
            "here: timeout must be seconds, or such as 30s, 5m, 2h or 30d, from 0.5 up, or none, got '-1'",
        ),
        ("form", "jsn", "here: form must be one of text, json, got 'jsn'; did you mean json?"),
        ("colour", "blu", "here: colour must be one of red, blue, got 'blu'; did you mean blue?"),
        ("tags", 5, "here: tags must be a list of text of at most 2 elements, got 5"),
        ("label", "", "here: label must be text of 1 to 5 characters, got ''"),
        ("even", "odd", "here: even must be even, got 'odd'"),
    ],
)
def test_a_refusal_names_source_option_expectation_and_value(name: str, given: object, sentence: str) -> None:
    with pytest.raises(InvalidSetting) as refusal:
        convert_one(name, given, "here", error=InvalidSetting)
    assert str(refusal.value) == sentence


def test_a_secret_is_in_no_refusal() -> None:
    with pytest.raises(InvalidOption) as refusal:
        convert_one("key", "abc")
    assert str(refusal.value) == "key must be text of at least 4 characters, got a value that is not shown"
    assert refusal.value.__cause__ is None


def test_a_secret_is_in_no_representation() -> None:
    assert "hidden" not in repr(Sample(key="hidden"))


def test_a_long_value_is_cut_in_the_refusal() -> None:
    with pytest.raises(InvalidOption) as refusal:
        convert_one("workers", "x" * 100_000)
    assert len(str(refusal.value)) < 250


def test_an_unknown_keyword_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidOption, match=r"^Sample\(\): there is no option 'worker'; did you mean workers\?$"):
        convert_all(Sample, {"worker": 3}, "Sample()")


def test_keywords_that_are_none_are_left_out_and_0_and_false_are_not() -> None:
    assert convert_all(Sample, {"label": None, "memory": 0, "once": False}) == {"memory": 0, "once": False}


def test_the_first_layer_that_gives_a_value_wins() -> None:
    layers = [Layer("first", {"workers": None}), Layer("second", {"workers": 2}), Layer("third", {"workers": 3})]
    found = resolve(Sample, layers)
    assert (found.value.workers, found.sources["workers"]) == (2, "second")


def test_what_no_layer_gives_is_the_default() -> None:
    found = resolve(Sample, [])
    assert found.value == Sample()
    assert set(found.sources.values()) == {"default"}


@pytest.mark.parametrize(("strong", "weak"), [(False, True), (True, False)])
def test_false_and_true_in_a_stronger_layer_both_beat_the_other(strong: bool, weak: bool) -> None:
    assert resolve(Sample, [Layer("a", {"once": strong}), Layer("b", {"once": weak})]).value.once is strong


def test_zero_in_a_stronger_layer_beats_a_number() -> None:
    assert resolve(Sample, [Layer("a", {"memory": 0}), Layer("b", {"memory": 5})]).value.memory == 0


def test_a_lifted_limit_beats_a_number_in_a_weaker_layer_and_the_default() -> None:
    assert resolve(Sample, [Layer("a", {"timeout": "none"}), Layer("b", {"timeout": 5})]).value.timeout is None


def test_an_empty_list_is_a_value() -> None:
    assert resolve(Sample, [Layer("a", {"tags": ()}), Layer("b", {"tags": ("x",)})]).value.tags == ()


def test_an_unknown_key_of_a_layer_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownSetting, match=r"^file: there is no option 'wrokers'; did you mean workers\?$"):
        resolve(Sample, [Layer("file", {"wrokers": 1})])


def test_a_layer_may_let_unknown_keys_pass() -> None:
    assert resolve(Sample, [Layer("class", {"other": 1}, refuse_unknown=False)]).value == Sample()


def test_a_bad_value_is_an_error_of_its_own_layer() -> None:
    flags = flag_layer(Sample, {"workers": "0"})
    with pytest.raises(
        UsageError, match=r"^--workers: workers must be a whole number from 1 to 256, got '0'"
    ) as refusal:
        resolve(Sample, [flags, Layer("environment", {"workers": "2"})])
    assert refusal.value.exit_code == 2
    with pytest.raises(InvalidSetting) as other:
        resolve(Sample, [flag_layer(Sample, {}), Layer("environment", {"workers": "0"})])
    assert other.value.exit_code == 78


def test_a_bare_number_counts_in_the_unit_of_its_carrier() -> None:
    assert resolve(Sample, [flag_layer(Sample, {"memory": "100"})]).value.memory == 100 * 1024**2
    assert resolve(Sample, [flag_layer(Sample, {"memory": "100KB"})]).value.memory == 100 * 1024
    assert resolve(Sample, [Layer("environment", {"memory": "100"})]).value.memory == 100


def test_a_rival_in_a_stronger_layer_hides_an_option_in_weaker_ones() -> None:
    found = resolve(Sample, [Layer("a", {"key_file": "/k"}), Layer("b", {"key": "weaker"})])
    assert (found.value.key, found.value.key_file, found.sources["key"]) == (None, "/k", "default")


def test_a_rival_in_the_same_layer_hides_nothing() -> None:
    found = resolve(Sample, [Layer("a", {"key_file": "/k", "key": "same"})])
    assert (found.value.key, found.value.key_file) == ("same", "/k")


def test_a_conflict_is_the_error_of_the_strongest_layer_that_has_part_in_it() -> None:
    with pytest.raises(UsageError, match=r"^too many for once$"):
        resolve(Sample, [flag_layer(Sample, {"once": True, "memory": 1}), Layer("file", {"workers": 200})])
    with pytest.raises(InvalidSetting, match=r"^too many for once$"):
        resolve(Sample, [flag_layer(Sample, {"memory": 1}), Layer("file", {"workers": 200, "once": True})])


def test_flags_follow_from_names_and_a_secret_has_none() -> None:
    flags = {each.name: each.flag for each in options_of(Sample)}
    assert (flags["workers"], flags["once"], flags["key"], flags["key_file"]) == ("--workers", "--once", "", "")


def test_a_type_that_nobody_can_parse_is_refused_at_its_declaration() -> None:
    @dataclass(frozen=True)
    class Odd:
        thing: complex = option(0j, help="Odd.")

    with pytest.raises(TypeError, match="needs a parser of its own"):
        options_of(Odd)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("100m", 100 * 1024**2), ("64MiB", 64 * 1024**2), ("100GB", 100 * 1024**3), ("1.5 kb", 1536), ("7b", 7)],
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 52_428_800, 1024**3, 1024**3 + 1024])
def test_a_size_that_was_written_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("1.5", 1.5),
        (".5", 0.5),
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("30d", 2_592_000),
    ],
)
def test_durations_are_read_with_their_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_options_load_no_third_party_module() -> None:
    foreign = "{'pydantic', 'typer', 'dotenv', 'sqlalchemy'}"
    code = f"import sys, taskqueue.options; print([m for m in sys.modules if m.split('.')[0] in {foreign}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
