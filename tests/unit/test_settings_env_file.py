"""The forms of a ``.env`` file."""

from __future__ import annotations

import pytest

from taskqueue.configuration import parse_env_text
from taskqueue.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=x", "x"),
        ("A=x\r\n", "x"),
        ("A = x\n", "x"),
        ("export A=x\n", "x"),
        ("A='x y'\n", "x y"),
        ('A="x y"\n', "x y"),
        ('A="x\\ny"\n', "x\ny"),
        ("A='x\\ny'\n", "x\\ny"),
        ('A="one\ntwo"\n', "one\ntwo"),
        ("A=x # a comment\n", "x"),
        ("A='x' # a comment\n", "x"),
        ("A=x#y\n", "x#y"),
        ("A='x # y'\n", "x # y"),
        ("A=\n", ""),
        ("A= # only a comment\n", ""),
        ("A=$HOME ${HOME}\n", "$HOME ${HOME}"),
        ("A=b=c\n", "b=c"),
        ("A=1\nA=2\n", "2"),
        ("# A=1\n\n\nA=2\n", "2"),
    ],
)
def test_a_documented_form_is_read(text: str, value: str) -> None:
    assert parse_env_text(text) == {"A": value}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\nhunter2\n", 2),
        ("A=1\n\n\n  hunter2 = \n hunter2 hunter2\n", 5),
        ("A=1\r\n\r\nhunter2 x\r\n", 3),
        ("A='hunter2\n", 1),
        ('A="hunter2" x\n', 1),
        ("A: hunter2\n", 1),
        ("=hunter2\n", 1),
        ("export hunter2\n", 1),
    ],
)
def test_a_malformed_line_is_refused_by_its_number_without_its_value(text: str, line: int) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        parse_env_text(text)
    assert str(refusal.value) == f".env line {line}: expected NAME=value or a # comment"
    assert refusal.value.__cause__ is None
