"""Jobs that ask for something while they run; see `node_jobs` for how they tell of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from node_jobs import note, wait_for

from taskqueue import Job
from taskqueue.errors import JobLost, TaskQueueError


class Steps(Job):
    """Says how far it is, waits for a gate, and fails if told to."""

    name = "Steps"

    def handle(self) -> Any:
        for percent, message in self.payload["steps"]:
            self.progress(percent, message)
        note(self)
        if "gate" in self.payload:
            wait_for(self.payload["gate"])
        if "then" in self.payload:
            self.progress(self.payload["then"])
        if "end" in self.payload:
            wait_for(self.payload["end"])
        if self.payload.get("fail"):
            raise RuntimeError("told to")


class Chatty(Job):
    """Says how far it is as often as it can."""

    name = "Chatty"

    def handle(self) -> Any:
        began = time.monotonic()
        for number in range(self.payload["times"]):
            self.progress(number * 100 / self.payload["times"], f"{number}")
        note(self)
        wait_for(self.payload["gate"])
        return time.monotonic() - began


class Remembers(Job):
    """Stores a state at its first attempt, and returns what it finds."""

    name = "Remembers"

    def handle(self) -> Any:
        found = self.state
        if found is None:
            self.checkpoint(self.payload["state"])
        note(self)
        if self.payload.get("fail") and found is None:
            raise RuntimeError("told to")
        if "gate" in self.payload:
            wait_for(self.payload["gate"].format(lease=self.fencing_token))
        return {"found": found, "now": self.state}


class Counts(Job):
    """Counts from its last checkpoint on, and dies at the number that its payload names."""

    name = "Counts"

    def handle(self) -> Any:
        state = self.state or {"number": 0, "steps": []}
        while state["number"] < 6:
            state["number"] += 1
            state["steps"].append(state["number"])
            self.checkpoint(state)
            if state["number"] == self.payload["die_at"]:
                note(self, "dies")
                os.kill(os.getpid(), signal.SIGKILL)
        return state["steps"]


class Patient(Job):
    """Works until it is asked to stop, and leaves a checkpoint then."""

    name = "Patient"

    def handle(self) -> Any:
        if self.state is not None:
            note(self, "goes on")
            return "done"
        note(self)
        try:
            while not self.should_stop:
                time.sleep(0.002)
                if self.payload.get("says"):
                    self.progress(1)
            note(self, "asked")
            self.checkpoint({"half": True})
        except JobLost:
            note(self, "lost")
            raise
        raise RuntimeError("to be continued")


class Child(Job):
    name = "Child"

    def handle(self) -> Any:
        note(self)
        return self.payload


class Pushes(Job):
    """Pushes a child, and tells what came of it."""

    name = "Pushes"

    def handle(self) -> Any:
        options = self.payload.get("options", {})
        if self.payload.get("after_me"):
            options["dependencies"] = [self]
        note(self)
        if "gate" in self.payload:
            wait_for(self.payload["gate"])
        try:
            child = self.push(Child(self.payload.get("child"), **options))
        except TaskQueueError as error:
            note(self, type(error).__name__)
            return {"error": type(error).__name__, "text": str(error), "lost": isinstance(error, JobLost)}
        note(self, "pushed")
        if "then" in self.payload:
            wait_for(self.payload["then"].format(lease=self.fencing_token))
        return str(child)


class Unsealable(Job):
    name = "Unsealable"

    def handle(self) -> Any:
        found = []
        for ask in (
            lambda: self.push(Child({"a": object()})),
            lambda: self.push(Child({}), priorty=3),
            lambda: self.push("no job"),  # type: ignore[arg-type]
            lambda: self.checkpoint(object()),
            lambda: self.progress(101),
            lambda: self.progress(float("nan")),
            lambda: self.progress("half"),  # type: ignore[arg-type]
            lambda: self.progress(5, 7),  # type: ignore[arg-type]
        ):
            try:
                ask()
            except TaskQueueError as error:
                found.append(type(error).__name__)
        return found


class Awaits(Job):
    """Asks as a coroutine does, beside others on the same loop."""

    name = "Awaits"

    async def handle(self) -> Any:
        self.progress(10, "begun")
        before = self.state
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.ensure_future(tick())
        await asyncio.gather(*(self.checkpoint({"number": number}) for number in range(5)))
        children = await asyncio.gather(*(self.push(Child({"number": number})) for number in range(5)))
        ticking.cancel()
        try:
            await self.push(Child({}), dependencies=[Child({})])
            refused = ""
        except TaskQueueError as error:
            refused = type(error).__name__
        stop, seen = self.should_stop, getattr(self.context, "pid", None)
        return {
            "before": before,
            "after": self.state,
            "children": [str(each) for each in children],
            "ticks": ticks,
            "refused": refused,
            "stop": stop,
            "pid": seen == os.getpid(),
        }


class Late(Job):
    """Its time is over while it waits for replies, again and again."""

    name = "Late"

    def handle(self) -> Any:
        note(self)
        while True:
            self.checkpoint(b"x" * 10_000)
            self.progress(50)


class Forgets(Job):
    """Pushes and does not await it."""

    name = "Forgets"

    async def handle(self) -> Any:
        note(self)
        self.push(Child({}, **self.payload.get("options", {})))
        if self.payload.get("checkpoint"):
            self.checkpoint({"kept": True})
        if self.payload.get("look"):
            await asyncio.sleep(1)
        if self.payload.get("fail"):
            raise RuntimeError("told to")


class Catches(Job):
    """Awaits a push in another way, and catches what it raises."""

    name = "Catches"

    async def handle(self) -> Any:
        child = Child({}, unique_key="taken")
        results: list[Any] = list(await asyncio.gather(self.push(child), return_exceptions=True))
        try:
            await asyncio.wait_for(self.push(child), 60)
        except TaskQueueError as error:
            results.append(error)
        return [type(each).__name__ for each in results]


class Hooked(Job):
    """Pushes in a plain hook of a coroutine's class, where nothing can be awaited."""

    name = "Hooked"

    async def handle(self) -> None:
        raise ValueError("told to")

    def on_failure(self, error: BaseException) -> None:
        self.push(Child({}))


class Reports(Job):
    """Says how far it is in its own transaction."""

    name = "Reports"
    transactional = True

    def handle(self, session: Any) -> None:
        self.progress(50, "half")
