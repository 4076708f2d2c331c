"""Job ids."""

from __future__ import annotations

import itertools
import os
import threading
import time
from typing import Any
from uuid import UUID, uuid4

import pytest

from taskqueue.errors import UsageError
from taskqueue.ids import new_id, parse_id


def test_an_id_is_a_uuid_of_version_seven() -> None:
    made = new_id()
    assert made.version == 7
    assert made.bytes[6] >> 4 == 7
    assert made.bytes[8] >> 6 == 0b10


def test_an_id_tells_its_time_to_the_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id().int >> 80
    assert before <= made <= time.time_ns() // 1_000_000


def test_ids_of_a_process_rise_strictly() -> None:
    made = [new_id() for _ in range(50_000)]
    assert all(earlier < later for earlier, later in itertools.pairwise(made))


def test_ids_made_in_threads_are_all_different() -> None:
    made: list[UUID] = []
    threads = [threading.Thread(target=lambda: made.extend(new_id() for _ in range(5_000))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(set(made)) == 20_000


def test_a_clock_set_back_does_not_bring_ids_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    assert new_id() > before


def test_a_fork_does_not_go_on_from_the_ids_of_its_parent() -> None:
    reader, writer = os.pipe()
    new_id()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"".join(new_id().bytes for _ in range(100)))
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    theirs = {data[at : at + 16] for at in range(0, len(data), 16)}
    assert len(theirs) == 100
    assert not theirs & {new_id().bytes for _ in range(100)}


@pytest.mark.parametrize(
    "form", [str, lambda made: made.bytes, lambda made: made, lambda made: made.hex, lambda made: f"{{{made}}}"]
)
def test_an_id_is_read_in_each_usual_form(form: Any) -> None:
    made = uuid4()
    assert parse_id(form(made)) == made


@pytest.mark.parametrize("wrong", ["", "17", "not-an-id", b"short", 17, None, "x" * 10_000])
def test_what_is_no_id_is_refused_with_an_example(wrong: Any) -> None:
    with pytest.raises(UsageError, match="is not a job id: expected a UUID such as") as caught:
        parse_id(wrong)
    assert len(str(caught.value)) < 250
