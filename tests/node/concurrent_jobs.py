"""Jobs of every kind for the tests of workers with several places. Each run leaves lines, as in node_jobs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from node_jobs import note, wait_for

from taskqueue import Job, task

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


async def gate_opens(name: str) -> None:
    gate = Path(os.environ["TEST_FOLDER"], name)
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - the test that makes it is another process
        await asyncio.sleep(0.005)


class Awaits(Job):
    """Sleeps or waits for a gate, as a task."""

    name = "Awaits"

    async def handle(self) -> Any:
        wanted = self.payload or {}
        note(self)
        await asyncio.sleep(wanted.get("sleep", 0))
        if "gate" in wanted:
            await gate_opens(wanted["gate"])
        note(self, "end")
        return wanted.get("answer")


class OnceAwaits(Job):
    name = "OnceAwaits"
    delivery = "at_most_once"
    max_attempts = 1

    async def handle(self) -> None:
        note(self)
        await gate_opens(self.payload["gate"])
        note(self, "end")


class Hooked(Job):
    """Notes what runs, in an order that a result can show."""

    name = "Hooked"

    async def before(self) -> None:
        await asyncio.sleep(0)
        self.payload = [*self.payload, "before"]

    async def handle(self) -> Any:
        if "fail" in self.payload:
            raise ValueError("as wanted")
        return [*self.payload, "handle"]

    async def after(self, result: Any) -> None:
        await asyncio.sleep(0)
        result.append("after")

    async def on_failure(self, error: BaseException) -> None:
        await asyncio.sleep(0)
        note(self, type(error).__name__)


class PlainHooked(Job):
    """A plain handler with hooks that are coroutines."""

    name = "PlainHooked"

    async def before(self) -> None:
        await asyncio.sleep(0)
        self.payload = [*self.payload, "before"]

    def handle(self) -> Any:
        if "fail" in self.payload:
            raise ValueError("as wanted")
        return [*self.payload, "handle"]

    async def after(self, result: Any) -> None:
        await asyncio.sleep(0)
        result.append("after")

    async def on_failure(self, error: BaseException) -> None:
        await asyncio.sleep(0)
        note(self, type(error).__name__)


class Swallows(Job):
    """Makes nothing of being cancelled, and ends well a little later."""

    name = "Swallows"

    async def handle(self) -> str:
        note(self)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(0.05)
        note(self, "end")
        return "all is well"


class DeafTask(Job):
    """Does not end by being cancelled."""

    name = "DeafTask"

    async def handle(self) -> None:
        note(self)
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)


class Blocks(Job):
    """Stands in the way of all that run on its loop."""

    name = "Blocks"

    async def handle(self) -> None:
        note(self)
        time.sleep(self.payload["sleep"])  # noqa: ASYNC251 - that is its purpose
        note(self, "end")


class BlocksAtFirst(Job):
    """Stands in the way for a minute at its first start, and for a moment at the next."""

    name = "BlocksAtFirst"

    async def handle(self) -> None:
        note(self)
        time.sleep(60 if self.fencing_token == 1 else 0.5)  # noqa: ASYNC251 - that is its purpose
        note(self, "end")


class Spins(Job):
    """Runs Python code until it is told by a flag, if it looks."""

    name = "Spins"

    def handle(self) -> str:
        note(self)
        while True:
            if self.payload.get("look") and self.should_stop:
                return "told by should_stop"


class Sleeps(Job):
    """Sits in a call that no exception can end."""

    name = "Sleeps"

    def handle(self) -> None:
        note(self)
        time.sleep(60)


class KillsLater(Job):
    """Kills its worker once the gate is open."""

    name = "KillsLater"

    async def handle(self) -> None:
        note(self)
        await gate_opens(self.payload["gate"])
        os.kill(os.getpid(), signal.SIGKILL)


class Raises(Job):
    """Raises what its payload names, out of a task or a callback if so told."""

    name = "Raises"

    async def handle(self) -> str:
        kinds: dict[str, type[BaseException]] = {
            "exit": SystemExit,
            "interrupt": KeyboardInterrupt,
            "cancelled": asyncio.CancelledError,
            "value": ValueError,
        }
        kind = kinds[self.payload["what"]]

        def fail() -> None:
            raise kind("as wanted")

        async def fail_later() -> None:
            fail()

        where = self.payload.get("where")
        note(self)
        if where == "callback":
            asyncio.get_running_loop().call_soon(fail)
        elif where == "task":
            self.payload = {"task": str(asyncio.create_task(fail_later()).get_name())}
        else:
            fail()
        await asyncio.sleep(0.1)
        return "survived"


class RemembersNobody(Job):
    """Sets a context variable and says what it found there."""

    name = "RemembersNobody"

    async def handle(self) -> str:
        found = WHO.get()
        WHO.set(str(self.id))
        self.logger.warning("seen from a task")
        await asyncio.sleep(0)
        return found


class RemembersNobodyPlainly(Job):
    name = "RemembersNobodyPlainly"

    def handle(self) -> str:
        found = WHO.get()
        WHO.set(str(self.id))
        self.logger.warning("seen from a thread")
        return found


class WhichLoop(Job):
    """Says on which loop it ran."""

    name = "WhichLoop"

    async def handle(self) -> int:
        note(self)
        return id(asyncio.get_running_loop())


class ReturnsCoroutine(Job):
    name = "ReturnsCoroutine"
    max_attempts = 1

    def handle(self) -> Any:
        return asyncio.sleep(0)


class WaitsInThread(Job):
    """Waits for a gate in a thread."""

    name = "WaitsInThread"

    def handle(self) -> str:
        note(self)
        wait_for(self.payload["gate"])
        note(self, "end")
        return threading.current_thread().name


@task(name="add_slowly")
async def add_slowly(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b
