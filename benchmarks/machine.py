"""Where and how a run was made: what a reader needs to judge its figures."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import taskqueue

_FLUSHES = 200
_LIBRARIES = ("sqlalchemy", "psycopg", "pymysql", "cryptography")
_BLOCK = bytes(8192)


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine, the software and the moment."""

    date: str
    processor: str
    cores: int
    memory_gib: float
    system: str
    file_system: str
    flush_ms: float
    """Time of a write of 8 KiB with its flush: what a durable commit costs here whatever the code."""
    load: float
    """Load average of the last minute when the run began: above 0.5 others were at work."""
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return asdict(self)


def describe_machine(huey: str | None) -> Machine:
    """Look at this machine, and time its disk."""
    versions = {"python": platform.python_version(), "taskqueue": taskqueue.__version__}
    versions |= {name: metadata.version(name) for name in _LIBRARIES}
    if huey is not None:
        versions["huey"] = huey
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1),
        memory_gib=round(psutil.virtual_memory().total / 1024**3, 1),
        system=f"{platform.system()} {platform.release()}",
        file_system=_file_system(),
        flush_ms=round(_flush_ms(), 3),
        load=round(os.getloadavg()[0], 2),
        versions=versions,
    )


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _file_system() -> str:
    folder = Path(tempfile.gettempdir()).resolve()
    holding = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(holding, key=lambda part: len(part.mountpoint)).fstype if holding else "unknown"


def _flush_ms() -> float:
    with tempfile.TemporaryFile() as file:
        os.write(file.fileno(), _BLOCK)
        began = time.perf_counter()
        for _ in range(_FLUSHES):
            os.pwrite(file.fileno(), _BLOCK, 0)
            os.fdatasync(file.fileno())
        return (time.perf_counter() - began) / _FLUSHES * 1000
