"""The watch over the time of a task."""

from __future__ import annotations

import asyncio
import threading

from taskqueue.node.handlers import TaskWatch


async def watched(wanted: float) -> tuple[bool, bool]:
    """Sleep under a watch of 200 ms; say whether the sleep came to its end, and whether the watch says it was late."""
    watch, ended = TaskWatch(200), False
    try:
        await asyncio.sleep(wanted)
        ended = True
    except asyncio.CancelledError:
        pass
    return ended, await watch.ended_late()


def test_a_task_is_cancelled_when_its_time_is_over() -> None:
    assert asyncio.run(watched(60)) == (False, True)


def test_a_task_that_was_done_while_another_stood_in_its_way_is_not_late() -> None:
    async def play() -> tuple[tuple[bool, bool], tuple[bool, bool]]:
        done, long = asyncio.create_task(watched(0.05)), asyncio.create_task(watched(60))
        await asyncio.sleep(0)
        threading.Event().wait(0.6)
        return await done, await long

    assert asyncio.run(play()) == ((True, False), (False, True))
