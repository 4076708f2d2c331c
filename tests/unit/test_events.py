"""What happened, told to who listens."""

from __future__ import annotations

import logging

import pytest

from taskqueue.errors import UsageError
from taskqueue.events import EVENT_NAMES, Event, EventName, Events


def test_a_listener_hears_the_events_that_it_asked_for() -> None:
    events, heard = Events(), list[Event]()
    events.on("done", heard.append)
    done = Event("done", queue="mails")
    events.emit(done)
    events.emit(Event("failed"))
    assert heard == [done]


def test_a_listener_to_every_event_hears_each_once() -> None:
    events, heard = Events(), list[str]()
    events.on("*", lambda event: heard.append(event.name))
    for name in EVENT_NAMES:
        events.emit(Event(name))  # type: ignore[arg-type]
    assert heard == list(EVENT_NAMES)


def test_listeners_are_told_in_the_order_in_which_they_came() -> None:
    events, heard = Events(), list[int]()
    events.on("done", lambda _: heard.append(1))
    events.on("done", lambda _: heard.append(2))
    events.emit(Event("done"))
    assert heard == [1, 2]


def test_a_listener_that_fails_is_logged_and_the_others_are_still_told(caplog: pytest.LogCaptureFixture) -> None:
    events, heard = Events(), list[Event]()

    def failing(_event: Event) -> None:
        raise ValueError("listener")

    events.on("done", failing)
    events.on("done", heard.append)
    with caplog.at_level(logging.ERROR, "taskqueue.events"):
        events.emit(Event("done"))
    assert len(heard) == 1
    assert "a listener to 'done' failed" in caplog.text


def test_an_event_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"there is no event 'proccessing'; did you mean processing?"):
        Events().on("proccessing", print)


@pytest.mark.parametrize(
    ("listened", "asked", "wanted"), [("done", "done", True), ("done", "failed", False), ("*", "failed", True)]
)
def test_nothing_is_made_for_nobody(listened: str, asked: EventName, wanted: bool) -> None:
    events = Events()
    assert not events.wanted(asked)
    events.on(listened, print)
    assert events.wanted(asked) is wanted
