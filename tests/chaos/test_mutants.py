"""The harness is proved by planted mistakes: each turns a run red, and the same steps without it leave it green."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.ground import Ground
from tests.chaos.mutants import MUTANTS
from tests.chaos.scenes import BREAKS, SCENES, plan_of, play

WHERE = {
    "no fencing": "postgresql",
    "unguarded rescue": "mysql",
    "acknowledgement before effect": "sqlite",
    "two-step release": "postgresql",
    "no self-stop": "sqlite",
    "lease reset at revive": "mysql",
    "heartbeat judged by age": "sqlite",
}
"""Where each is planted here; the scenes hold on every database."""


def test_every_mutant_has_a_scene_and_something_to_break() -> None:
    assert set(MUTANTS) == set(SCENES) == set(BREAKS) == set(WHERE)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("mutant", "name"), WHERE.items())
def test_a_planted_mistake_turns_the_run_red(mutant: str, name: str, ground: Ground, tmp_path: Path) -> None:
    _, verdicts = play(plan_of(mutant, name, mutated=True), ground, tmp_path)
    broken = {each.name: each.examples for each in verdicts if each.broken}
    assert broken.keys() >= BREAKS[mutant], broken


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("mutant", "name"), WHERE.items())
def test_the_same_steps_without_it_leave_every_invariant_whole(
    mutant: str, name: str, ground: Ground, tmp_path: Path
) -> None:
    evidence, verdicts = play(plan_of(mutant, name, mutated=False), ground, tmp_path)
    broken = {each.name: each.examples for each in verdicts if each.broken}
    assert broken == {}, evidence.logs
