"""What a class has to be so that its handler can run in the transaction of its job's acknowledgement."""

from __future__ import annotations

import inspect
from typing import Any

from taskqueue.errors import InvalidOption
from taskqueue.states import Delivery


def check_transactional(cls: Any) -> None:
    """Raise `InvalidOption` unless ``cls``, which says that it is transactional, can be."""
    name = f"class {cls.__name__} is transactional"
    if cls.transactional is not True:
        raise InvalidOption(f"transactional must be True or False, got {cls.transactional!r} in class {cls.__name__}")
    if inspect.iscoroutinefunction(cls.handle):
        raise InvalidOption(f"{name}, and its handle() is a coroutine: define it with def; its session is a plain one")
    if not _takes_session(cls.handle):
        raise InvalidOption(f"{name}, so its handle() must take a session and nothing else: def handle(self, session)")
    if cls.delivery == Delivery.AT_MOST_ONCE:
        raise InvalidOption(
            f"{name}, which makes its effect count once by running it again where it has to; delivery 'at_most_once'"
            " forbids that: leave it out"
        )
    timeout = cls.transaction_timeout
    if timeout is not None and (type(timeout) not in (int, float) or not 0 < timeout <= 3600):
        raise InvalidOption(f"{name}: transaction_timeout must be up to 3600 seconds, got {timeout!r:.40}")
    if cls.session_factory is not None and not callable(cls.session_factory):
        raise InvalidOption(
            f"{name}: session_factory must be a sessionmaker or a class derived from Session, got"
            f" {type(cls.session_factory).__name__}"
        )


def _takes_session(handle: Any) -> bool:
    """Say whether ``handle`` can be called with the job and one value more."""
    try:
        inspect.signature(handle).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True
