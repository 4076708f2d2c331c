"""Huey beside us, in an environment of its own that is made for the run and thrown away."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.jobs import PAYLOAD
from benchmarks.measure import HUEY, Contestant, Label, Sample, Sizes

_PROGRAM = Path(__file__).with_name("huey_peer.py")
_PATIENCE = 90


@contextmanager
def huey_python() -> Iterator[str]:
    """Yield the Python of a fresh environment with the newest Huey."""
    with tempfile.TemporaryDirectory(prefix="taskqueue-bench-huey-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "huey"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        yield python


def version(python: str) -> str:
    """Return the version of Huey that ``python`` has."""
    command = [python, "-c", "import importlib.metadata as m; print(m.version('huey'))"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def singles(python: str, sizes: Sizes) -> Iterator[Contestant]:
    """Yield Huey's single push."""
    for durability in ("NORMAL", "FULL"):
        yield Contestant(
            Label("single push", HUEY, durability), partial(_measure, python, "push", durability, sizes.singles, 0)
        )


def drains(python: str, sizes: Sizes) -> Iterator[Contestant]:
    """Yield Huey's drain, with process workers; it deletes a job when it takes it."""
    for durability in ("NORMAL", "FULL"):
        for workers in (1, 2):
            run = partial(_measure, python, "drain", durability, sizes.singles, workers)
            yield Contestant(Label("drain", HUEY, durability, workers), run)


def _measure(python: str, what: str, durability: str, jobs: int, workers: int) -> Sample:
    with tempfile.TemporaryDirectory(prefix="taskqueue-bench-") as folder:
        database, payload = f"{folder}/huey.db", json.dumps(PAYLOAD)
        command = [python, str(_PROGRAM), what, database, durability, str(jobs), str(workers), payload]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    if done.returncode:
        raise RuntimeError(f"Huey's {what} failed: {done.stderr.strip().splitlines()[-1:]}")
    found = json.loads(done.stdout)
    return Sample(int(found["jobs"]), float(found["seconds"]), float(found["cpu_seconds"]))
