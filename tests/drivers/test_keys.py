from __future__ import annotations

from taskqueue.states import Verb
from tests.drivers.world import World


def test_a_database_knows_itself(world: World) -> None:
    identity, salt = world.driver.installation()

    assert (len(identity), len(salt)) == (16, 16)
    assert world.driver.installation() == (identity, salt)


def test_keys_are_listed_oldest_first(world: World) -> None:
    world.driver.add_key("k2", b"22222222")
    world.clock.advance(1)
    world.driver.add_key("k1", b"11111111", "retired")

    rows = world.driver.keys()

    assert [(row.key_id, row.check_value, row.state) for row in rows] == [
        ("k2", b"22222222", "active"),
        ("k1", b"11111111", "retired"),
    ]


def test_a_key_that_is_known_is_not_overwritten(world: World) -> None:
    world.driver.add_key("k1", b"11111111")
    world.driver.add_key("k1", b"99999999", "retired")

    (row,) = world.driver.keys()
    assert (row.check_value, row.state) == (b"11111111", "active")


def test_the_use_of_keys_counts_live_and_finished_jobs(world: World, node: int) -> None:
    for key_id in ("k1", "k1", "k2"):
        world.push(key_id=key_id)
    world.end(node, world.claim_one(node), Verb.FAIL)

    assert world.driver.key_usage() == {"k1": 2, "k2": 1}
