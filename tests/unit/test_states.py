"""The states of a job, and what may follow what."""

from __future__ import annotations

import pytest

from taskqueue.states import FINAL, LIVE, TRANSITIONS, State, Verb, state_of


def reachable(start: frozenset[State]) -> set[State]:
    """Return every state that verbs lead to from these."""
    found, edge = set(start), set(start)
    while edge:
        edge = {
            target for transition in TRANSITIONS.values() if transition.sources & edge for target in transition.targets
        } - found
        found |= edge
    return found


def test_every_state_is_either_live_or_final() -> None:
    assert set(State) == LIVE | FINAL
    assert not LIVE & FINAL
    assert [state.final for state in State] == [False] * 4 + [True] * 3


def test_every_state_can_be_reached_from_a_push() -> None:
    assert reachable(TRANSITIONS[Verb.PUSH].targets) == set(State)


@pytest.mark.parametrize("state", sorted(LIVE))
def test_every_live_state_leads_to_each_final_one(state: State) -> None:
    assert reachable(frozenset({state})) >= FINAL


def test_every_verb_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Verb)


def test_only_a_claim_begins_to_process() -> None:
    assert [verb for verb, move in TRANSITIONS.items() if State.PROCESSING in move.targets] == [Verb.CLAIM]


def test_nothing_but_a_revival_or_a_purge_leaves_a_final_state() -> None:
    assert {verb for verb, move in TRANSITIONS.items() if move.sources & FINAL} == {Verb.REVIVE, Verb.PURGE}


def test_a_completed_job_is_never_revived() -> None:
    assert State.COMPLETED not in TRANSITIONS[Verb.REVIVE].sources


def test_whatever_ends_a_claim_without_ending_the_job_raises_its_lease() -> None:
    back = [move for move in TRANSITIONS.values() if State.PROCESSING in move.sources and move.targets & LIVE]
    assert back
    assert all(move.raises_lease for move in back)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[Verb.PUSH] = TRANSITIONS[Verb.CLAIM]  # type: ignore[index]


@pytest.mark.parametrize("state", State)
def test_a_state_is_read_back_from_its_code(state: State) -> None:
    assert state_of(state.code) is state


def test_a_code_that_stands_for_nothing_is_no_state() -> None:
    with pytest.raises(KeyError):
        state_of(7)
