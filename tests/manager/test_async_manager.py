"""`AsyncQueueManager`: the same operations, awaited."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from taskqueue import AsyncJobHandle, AsyncQueueManager, Job, JobHandle, QueueManager, State
from taskqueue.errors import DuplicateJob, JobNotFound, UsageError, WaitTimeout
from taskqueue.payload import generate_key
from tests.databases import Database
from tests.manager.test_uniqueness import claim, finish

T = TypeVar("T")
Open = Callable[..., AsyncQueueManager]


@pytest.fixture
def opening(database: Database) -> Open:
    key = generate_key()
    return lambda **options: AsyncQueueManager(database.url, encryption_key=key, **options)


def public(cls: type) -> dict[str, Any]:
    return {name: member for name, member in vars(cls).items() if not name.startswith("_")}


def parameters(member: Any) -> list[tuple[str, Any]]:
    found = inspect.signature(getattr(member, "__func__", member)).parameters.values()
    return [(each.name, each.default) for each in found]


@pytest.mark.parametrize(
    ("ours", "theirs"), [(AsyncQueueManager, QueueManager), (AsyncJobHandle, JobHandle)], ids=["manager", "handle"]
)
def test_every_operation_has_the_same_name_parameters_and_defaults(ours: type, theirs: type) -> None:
    assert public(ours).keys() == public(theirs).keys()
    for name, member in public(theirs).items():
        if callable(member):
            assert parameters(public(ours)[name]) == parameters(member), name


def test_what_blocks_is_awaited() -> None:
    plain = {"driver", "from_env", "handle", "notices", "on"}
    awaited = {name for name, member in public(AsyncQueueManager).items() if inspect.iscoroutinefunction(member)}
    assert awaited == public(AsyncQueueManager).keys() - plain


def test_a_job_is_pushed_read_changed_and_removed(opening: Open, mail: type[Job]) -> None:
    async def main() -> None:
        async with opening() as manager:
            handle = await manager.push(mail({"a": 1}), queue="q", tags=["t"])
            assert (await handle.record()).payload == {"a": 1}
            assert await manager.push_many([mail(2), mail(3)]) == [
                job.id for job in reversed(await manager.get_jobs(queue="default"))
            ]
            assert [await manager.size(), await manager.count_jobs(tag="t")] == [3, 1]
            assert (await manager.update_job(handle.id, priority="urgent")).priority == 15
            assert set(await manager.get_queue_stats()) == {"q", "default"}
            await manager.pause_queue("q")
            assert (await manager.get_queue_stats("q"))["q"]["paused"]
            await manager.resume_queue("q")
            assert await handle.cancel()
            assert [job.id for job in await manager.get_jobs_by_state("cancelled")] == [handle.id]
            assert (await (await manager.retry_failed_job(handle.id)).record()).state is State.PENDING
            assert await manager.get_failed_jobs() == []
            await manager.delete_job(handle.id)
            assert await manager.flush() == 2
            with pytest.raises(JobNotFound):
                await handle.record()

    asyncio.run(main())


def test_push_once_and_unique_keys_work_as_they_do_without_await(opening: Open, mail: type[Job]) -> None:
    async def main() -> None:
        async with opening() as manager:
            first, created = await manager.push_once(mail(1))
            assert (created, (await manager.push_once(mail(1)))) == (True, (first, False))
            await manager.push(mail(unique_key="k"))
            with pytest.raises(DuplicateJob):
                await manager.push(mail(unique_key="k"))

    asyncio.run(main())


def test_two_hundred_pushes_at_once_are_all_stored(opening: Open, mail: type[Job]) -> None:
    async def main() -> None:
        async with opening() as manager:
            handles = await asyncio.gather(*(manager.push(mail(number)) for number in range(200)))
            assert len({handle.id for handle in handles}) == await manager.size() == 200

    asyncio.run(main())


def test_the_event_loop_goes_on_while_the_database_is_slow(opening: Open, mail: type[Job]) -> None:
    async def main() -> None:
        async with opening(threads=1) as manager:
            busy, go = threading.Event(), threading.Event()
            manager.on("waiting", lambda _: (busy.set(), go.wait(20)))  # type: ignore[func-returns-value]
            pushing = asyncio.create_task(manager.push(mail()))
            await asyncio.to_thread(busy.wait, 20)
            assert not pushing.done()
            go.set()
            await pushing

    asyncio.run(main())


def test_a_task_that_is_cancelled_leaves_nothing_half_done(opening: Open, mail: type[Job]) -> None:
    async def main() -> None:
        async with opening(threads=1) as manager:
            busy, go = threading.Event(), threading.Event()
            manager.on("waiting", lambda _: (busy.set(), go.wait(20)))  # type: ignore[func-returns-value]
            begun = asyncio.create_task(manager.push_many([mail(1), mail(2)]))
            await asyncio.to_thread(busy.wait, 20)
            queued = asyncio.create_task(manager.push(mail(3)))
            await asyncio.sleep(0)
            begun.cancel()
            queued.cancel()
            await asyncio.wait([begun, queued])
            assert (begun.cancelled(), queued.cancelled()) == (True, True)
            go.set()
            assert sorted(job.payload for job in await manager.get_jobs()) == [1, 2]

    asyncio.run(main())


# --- waiting -------------------------------------------------------------------------------------------------------


def test_waiting_ends_when_the_job_has_finished(opening: Open, mail: type[Job]) -> None:
    async def main() -> None:
        async with opening() as manager:
            handle = await manager.push(mail())
            waiting = asyncio.create_task(handle.wait(20))
            await asyncio.sleep(0.01)
            await asyncio.to_thread(lambda: finish(manager.driver, *claim(manager.driver)))
            assert (await waiting).state is State.COMPLETED
            assert await handle.result() is None

    asyncio.run(main())


def test_waiting_occupies_no_thread(opening: Open, mail: type[Job]) -> None:
    async def main() -> None:
        async with opening(threads=1) as manager:
            handle = await manager.push(mail())
            waiting = [asyncio.create_task(manager.wait(handle)) for _ in range(20)]
            await asyncio.sleep(0.01)
            assert await asyncio.wait_for(manager.cancel_job(handle.id), 20)
            assert {record.state for record in await asyncio.gather(*waiting)} == {State.CANCELLED}

    asyncio.run(main())


def test_waiting_gives_up_in_time_and_refuses_what_does_not_exist(opening: Open, mail: type[Job]) -> None:
    async def main() -> None:
        async with opening() as manager:
            handle = await manager.push(mail())
            with pytest.raises(WaitTimeout, match=str(handle.id)):
                await manager.wait_for([handle], 0.01)
            with pytest.raises(JobNotFound):
                await manager.wait(mail())

    asyncio.run(main())


# --- life ----------------------------------------------------------------------------------------------------------


def test_it_opens_by_its_first_use_and_again_after_it_was_closed(opening: Open, mail: type[Job]) -> None:
    async def main() -> None:
        manager = opening()
        for number in (1, 2):
            await manager.push(mail())
            assert await manager.size() == number
            await manager.disconnect()

    asyncio.run(main())


def test_it_serves_one_event_loop_after_another(opening: Open, mail: type[Job]) -> None:
    manager = opening()
    for _ in range(2):
        asyncio.run(manager.connect())
        asyncio.run(_pushed(manager, mail))
    assert asyncio.run(manager.size()) == 2
    asyncio.run(manager.disconnect())


async def _pushed(manager: AsyncQueueManager, mail: type[Job]) -> None:
    await manager.push(mail())


@pytest.mark.any_database
def test_a_number_of_threads_below_one_is_refused(database: Database) -> None:
    with pytest.raises(UsageError, match="threads"):
        AsyncQueueManager(database.url, threads=0)


# --- the caller's transaction --------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(database: Database) -> AsyncIterator[Any]:
    engine = create_async_engine(database.asynchronous, poolclass=NullPool)
    try:
        yield engine
    finally:
        await engine.dispose()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


@pytest.mark.parametrize("commits", [True, False])
def test_a_push_in_an_asynchronous_transaction_shares_its_fate(
    opening: Open, database: Database, mail: type[Job], commits: bool
) -> None:
    async def main() -> None:
        async with connected(database) as engine, opening() as manager:
            from sqlalchemy.ext.asyncio import AsyncSession

            there = await manager.push(mail("there", unique_key="k"))
            async with AsyncSession(engine) as session:
                await manager.push(mail(1, tags=["t"]), session=session)
                parent = mail(2)
                await manager.push_many([parent, mail(3, dependencies=[parent.id])], session=session)
                with pytest.raises(DuplicateJob, match=str(there.id)):
                    await manager.push(mail(4, unique_key="k"), session=session)
                kept = await manager.push(mail(5, unique_key="k"), session=session, on_conflict="keep")
                assert kept == there
                assert await manager.size() == 1
                await (session.commit() if commits else session.rollback())
            assert sorted(str(job.payload) for job in await manager.get_jobs()) == (
                ["1", "2", "3", "there"] if commits else ["there"]
            )

    run(main)


def test_an_asynchronous_connection_serves_as_well(opening: Open, database: Database, mail: type[Job]) -> None:
    async def main() -> None:
        async with connected(database) as engine, opening() as manager:
            async with engine.begin() as connection:
                await manager.push(mail(), session=connection)
            assert await manager.size() == 1

    run(main)


class LooksAsynchronous:
    """What tells such a session from another one."""

    async def run_sync(self, work: Callable[[Any], T]) -> T:
        return work(self)


def test_a_plain_manager_refuses_an_asynchronous_session_and_names_the_other(
    manager: QueueManager, mail: type[Job]
) -> None:
    with pytest.raises(UsageError, match="AsyncQueueManager"):
        manager.push(mail(), session=LooksAsynchronous())  # type: ignore[arg-type]
    assert manager.size() == 0


def test_an_asynchronous_manager_refuses_a_plain_session_and_names_the_other(
    opening: Open, database: Database, mail: type[Job]
) -> None:
    async def main() -> None:
        async with opening() as manager:
            with database.engine.connect() as connection, pytest.raises(UsageError, match=r"QueueManager"):
                await manager.push(mail(), session=connection)  # type: ignore[arg-type]

    run(main)


def test_a_push_in_an_asynchronous_session_uses_no_connection_of_our_own_in_the_event_loop(
    opening: Open, database: Database, mail: type[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    async def main() -> None:
        from sqlalchemy.ext.asyncio import AsyncSession

        async with connected(database) as engine, opening() as manager, AsyncSession(engine) as session:
            driver: Any = manager.driver
            for name in ("read", "write"):
                whole = getattr(driver, name)

                def noted(*values: Any, whole: Any = whole, **options: Any) -> Any:
                    used.append(threading.get_ident())
                    return whole(*values, **options)

                monkeypatch.setattr(driver, name, noted)
            await manager.push(mail(1), session=session, queue="new")
            await manager.push_many([mail(2)], session=session)
            await session.commit()

    run(main)
    assert threading.get_ident() not in used
