"""What a class has to be to run in the transaction of its job's acknowledgement; the sentence says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from taskqueue import Job
from taskqueue.errors import InvalidOption


def plain(self: Any) -> None: ...
def takes_session(self: Any, session: Any) -> None: ...
def takes_more(self: Any, session: Any, more: Any) -> None: ...
async def awaited(self: Any, session: Any) -> None: ...
def takes_defaults(self: Any, session: Any, more: Any = None) -> None: ...
def takes_any(self: Any, *args: Any) -> None: ...


def define(handle: Any, **attributes: Any) -> type[Job]:
    return type("Wanted", (Job,), {"name": f"test.{handle.__name__}", "handle": handle, **attributes})


@pytest.mark.parametrize("handle", [takes_session, takes_defaults, takes_any])
def test_a_handler_that_takes_a_session_may_be_transactional(handle: Any) -> None:
    assert define(handle, transactional=True).transactional


@pytest.mark.parametrize(
    ("handle", "attributes", "said"),
    [
        (plain, {}, r"must take a session and nothing else: def handle\(self, session\)"),
        (takes_more, {}, "must take a session and nothing else"),
        (awaited, {}, "handle\\(\\) is a coroutine: define it with def"),
        (takes_session, {"delivery": "at_most_once", "max_attempts": 1}, "'at_most_once' forbids that"),
        (takes_session, {"transactional": "yes"}, "transactional must be True or False, got 'yes'"),
        (takes_session, {"transaction_timeout": 0}, "transaction_timeout must be up to 3600 seconds, got 0"),
        (takes_session, {"transaction_timeout": "5s"}, "transaction_timeout must be up to 3600 seconds"),
        (takes_session, {"session_factory": 5}, "session_factory must be a sessionmaker"),
    ],
)
def test_a_class_that_cannot_be_is_refused(handle: Any, attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        define(handle, **{"transactional": True, **attributes})


def test_a_base_class_without_a_handler_may_set_it_for_others() -> None:
    base: Any = type("Base", (Job,), {"transactional": True})
    assert base.transactional
    with pytest.raises(InvalidOption, match="must take a session"):
        type("Derived", (base,), {"name": "test.derived", "handle": plain})


def test_a_handler_with_a_session_runs_nowhere_without_one() -> None:
    assert not define(takes_session).transactional
