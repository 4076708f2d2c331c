"""Log lines: one each, nothing in them that moves a cursor, JSON where it is asked for."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from taskqueue.node.logs import JsonFormatter, TextFormatter, clean, configure_logging

EVIL = "a\x1b]0;title\x07b\x1b[31mred\x9b2Jc\r\nforged line\u2028another\x00\x7f"
FORBIDDEN = [*map(chr, range(32)), "\x7f", *map(chr, range(0x80, 0xA0)), "\u2028", "\u2029", "\u202e", "\u2066"]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("taskqueue")
    kept = (made.handlers[:], made.level, made.propagate)
    yield made
    made.handlers[:], made.propagate = kept[0], kept[2]
    made.setLevel(kept[1])


def record(message: str, *args: Any, exception: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    info = (type(exception), exception, exception.__traceback__) if exception is not None else None
    made = logging.LogRecord("taskqueue.job", logging.INFO, "file.py", 1, message, args, info)
    made.__dict__.update(extra)
    return made


def failure(message: str) -> BaseException:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


@pytest.mark.parametrize("character", FORBIDDEN)
def test_no_control_character_reaches_the_log(character: str) -> None:
    if character == "\t":
        assert clean("a\tb") == "a\tb"
    else:
        assert character not in clean(f"a{character}b")


def test_line_ends_become_spaces_so_that_no_line_can_be_forged() -> None:
    assert clean("one\r\ntwo") == "one  two"


def test_a_long_message_is_cut() -> None:
    assert len(clean("x" * 100_000)) == 8_192


def test_a_text_line_names_time_level_logger_and_message() -> None:
    line = TextFormatter().format(record("worker %d is ready", 7))
    assert line.endswith("Z INFO taskqueue.job: worker 7 is ready")


def test_a_text_line_of_a_job_names_the_job() -> None:
    line = TextFormatter().format(record("sent", job_id="id-1", job_class="Mail", queue="mails", attempt=2))
    assert line.endswith("sent job_id=id-1 job_class=Mail queue=mails attempt=2")


def test_evil_text_stays_on_one_line() -> None:
    assert len(TextFormatter().format(record(EVIL, job_class=EVIL)).splitlines()) == 1


def test_a_traceback_follows_its_line_without_control_characters() -> None:
    text = TextFormatter().format(record("failed", exception=failure(EVIL)))
    assert "Traceback" in text
    assert not [character for character in FORBIDDEN if character not in "\t\n" and character in text]


def test_a_json_line_is_one_object_on_one_line() -> None:
    line = JsonFormatter().format(record(EVIL, exception=failure(EVIL), job_id="id-1", job_class=EVIL))
    entry = json.loads(line)
    assert "\n" not in line
    assert list(entry) == ["at", "level", "logger", "message", "job_id", "job_class", "exception"]
    assert (entry["level"], entry["logger"], entry["job_id"]) == ("info", "taskqueue.job", "id-1")


def test_a_json_line_survives_values_that_json_does_not_know() -> None:
    assert json.loads(JsonFormatter().format(record("x", job_id=object)))["job_id"]


@pytest.mark.parametrize(("level", "shown"), [("debug", 3), ("info", 2), ("error", 1)])
def test_the_level_decides_what_is_logged(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, level: str, shown: int
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    configure_logging(level, "text")
    child = logging.getLogger("taskqueue.node")
    child.debug("one")
    child.info("two")
    child.error("three")
    assert len(out.getvalue().splitlines()) == shown


def test_the_log_goes_to_standard_error_once_however_often_it_is_configured(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    configure_logging("info", "json")
    configure_logging("info", "json")
    logger.info("hello")
    assert [json.loads(line)["message"] for line in out.getvalue().splitlines()] == ["hello"]
    assert capsys.readouterr().out == ""
