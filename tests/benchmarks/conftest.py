"""One tiny run of everything on each database that can be reached, which the tests look at from all sides."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.databases import KINDS
from benchmarks.databases.kind import Kind

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """What a run printed and wrote."""

    kind: Kind
    found: dict[str, Any]
    said: str
    folder: Path


def bench(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the programs with sizes too small to mean anything."""
    command = [sys.executable, "-m", "benchmarks", "--tiny", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False, env=environment)


@pytest.fixture(scope="session", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return a kind of database of which one can be made."""
    found = KINDS[request.param]
    missing = found.missing()
    if missing is not None:
        pytest.skip(missing)
    return found


@pytest.fixture(scope="session")
def run(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run of every part."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench("--database", kind.name, "--json", "--output", str(folder))
    assert done.returncode == 0, done.stderr
    return Run(kind, json.loads(done.stdout), done.stderr, folder)
