"""What the rest of the house relies on: one object that seals and opens."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from taskqueue.errors import CannotOpen, PayloadTooDeep, PayloadTooLarge, PayloadTypeError
from taskqueue.ids import new_id
from taskqueue.payload import Codec, KeyRing, Limits, Purpose, generate_key, parse_key, parse_key_ring

RING = KeyRing(parse_key(generate_key(), key_id="k2"), [parse_key(generate_key(), key_id="k1")])
CLASS = "app.jobs.SendEmail"

modes = pytest.mark.parametrize("ring", [RING, None], ids=["sealed", "clear"])


@modes
@pytest.mark.parametrize(
    "value",
    [
        None,
        {"to": "a@example.org"},
        {"at": datetime(2026, 1, 1, tzinfo=UTC), "ids": {new_id()}},
        "\ud800\0",
        ["x"] * 5000,
    ],
    ids=lambda value: repr(value)[:30],
)
@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_sealed_value_opens_again(ring: KeyRing | None, value: Any, purpose: Purpose) -> None:
    codec, job = Codec(ring), new_id()
    blob = codec.seal(value, purpose, job, CLASS)
    assert type(blob) is bytes
    assert codec.open(blob, purpose, job, CLASS) == value
    assert Codec(ring).open(blob, purpose, job, CLASS) == value


def test_a_job_id_may_be_given_as_uuid_or_bytes_and_the_blob_as_any_buffer() -> None:
    codec, job = Codec(RING), new_id()
    blob = codec.seal(1, Purpose.RESULT, job, CLASS)
    for given in (blob, bytearray(blob), memoryview(blob)):
        assert codec.open(given, Purpose.RESULT, job.bytes, CLASS) == 1
    assert (
        codec.open(codec.seal(2, Purpose.RESULT, job.bytes, CLASS), Purpose.RESULT, UUID(bytes=job.bytes), CLASS) == 2
    )


def test_a_large_payload_is_compressed_unless_the_codec_or_the_call_says_no() -> None:
    value, job = {"text": "all work and no play " * 500}, new_id()
    small = len(Codec(RING).seal(value, Purpose.PAYLOAD, job, CLASS))
    assert small < 500
    assert len(Codec(RING).seal(value, Purpose.PAYLOAD, job, CLASS, compress=False)) > 10_000
    uncompressed = Codec(RING, compress=False).seal(value, Purpose.PAYLOAD, job, CLASS)
    assert len(uncompressed) > 10_000
    assert Codec(RING).open(uncompressed, Purpose.PAYLOAD, job, CLASS) == value


def test_nothing_of_a_payload_can_be_read_in_its_sealed_form() -> None:
    canary = "<img src=x onerror=1>"
    for value in ({canary: canary}, {"text": canary * 500}):
        blob = Codec(RING).seal(value, Purpose.PAYLOAD, new_id(), CLASS)
        assert b"onerror" not in blob
        assert CLASS.encode() not in blob


@pytest.mark.parametrize(
    ("value", "error"),
    [({"a": object()}, PayloadTypeError), ("x" * 2000, PayloadTooLarge), ([[[[1]]]], PayloadTooDeep)],
)
def test_a_refusal_begins_with_the_purpose(value: Any, error: type[Exception]) -> None:
    codec = Codec(RING, limits=Limits(max_bytes=1000, max_depth=3))
    with pytest.raises(error, match=r"^result"):
        codec.seal(value, Purpose.RESULT, new_id(), CLASS)


def test_what_was_sealed_under_wider_limits_still_opens() -> None:
    job = new_id()
    blob = Codec(RING).seal({"a": [["x" * 5000]]}, Purpose.PAYLOAD, job, CLASS)
    narrow = Codec(RING, limits=Limits(max_bytes=100, max_depth=1))
    assert narrow.open(blob, Purpose.PAYLOAD, job, CLASS) == {"a": [["x" * 5000]]}


def test_the_codec_knows_its_keys() -> None:
    codec = Codec(RING)
    assert (codec.active_key_id, codec.key_ids) == ("k2", ("k2", "k1"))
    assert codec.can_open("k1")
    assert not codec.can_open("k3")
    assert not codec.can_open("clear")
    clear = Codec(None)
    assert (clear.active_key_id, clear.key_ids) == ("clear", ("clear",))
    assert not clear.can_open("k1")


def test_rotation_opens_what_the_former_key_sealed() -> None:
    old, new, job = generate_key(), generate_key(), new_id()
    blob = Codec(parse_key_ring(old)).seal(1, Purpose.PAYLOAD, job, CLASS)
    assert Codec(parse_key_ring(f"{new},{old}")).open(blob, Purpose.PAYLOAD, job, CLASS) == 1
    with pytest.raises(CannotOpen):
        Codec(parse_key_ring(new)).open(blob, Purpose.PAYLOAD, job, CLASS)


def test_importing_the_package_loads_no_database_web_or_terminal_library() -> None:
    code = (
        "import sys, taskqueue.payload.codec, taskqueue.payload.keys\n"
        "print([name for name in ('sqlalchemy', 'alembic', 'typer', 'rich', 'fastapi') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.stdout.strip() == "[]"
