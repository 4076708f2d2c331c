"""G11: ``push(job, session=session)`` is one INSERT in the caller's transaction: with its commit, or not at all.

Each verb and conflict: tests/drivers/test_within.py; the manager's side: tests/manager/test_push.py.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from taskqueue import State
from tests.node.running import House, job, until


def test_a_job_runs_after_the_commit_and_not_before(house: House) -> None:
    node = house.start().await_start()
    with Session(house.database.engine) as session:
        inside = house.manager.push(job("Quick"), session=session)
        if not house.database.server.in_files:  # There the open transaction keeps every other writer waiting.
            house.push("Quick").wait(20)
        assert house.started(inside) == []
        session.commit()
    assert inside.wait(20).state is State.COMPLETED
    assert node.stop() == 0


def test_a_job_whose_transaction_is_rolled_back_leaves_no_trace(house: House) -> None:
    node = house.start().await_start()
    with Session(house.database.engine) as session:
        gone = house.manager.push(job("Quick"), session=session)
        session.rollback()
    house.push("Quick").wait(20)
    assert house.started(gone) == []
    assert house.rows("SELECT COUNT(*) FROM tq_jobs") == [(0,)]
    assert len(house.rows("SELECT id FROM tq_history")) == 1
    assert node.stop() == 0


def test_the_commit_wakes_the_node(house: House) -> None:
    """A hint or a look, whichever comes first; well before the look that every node takes anyway."""
    node = house.start().await_start()
    until(lambda: house.push("Quick").wait(20), "the node is warm")
    with Session(house.database.engine) as session:
        handle = house.manager.push(job("Quick"), session=session)
        session.commit()
    assert handle.wait(20).state is State.COMPLETED
    assert node.stop() == 0
