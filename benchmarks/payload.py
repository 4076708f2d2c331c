"""Time of each step from a value to its sealed bytes and back: ``python benchmarks/payload.py``.

Each figure is the best of many short batches, the batches of all steps taken in turn, so that a pause of the machine
falls on all of them alike. The figure to beat: sealing and opening a payload of 150 bytes in 15 microseconds together.
Ends with 1 when it is missed, so it can stand in a check.
"""

from __future__ import annotations

import json
import sys
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from taskqueue.ids import new_id
from taskqueue.payload import Codec, Purpose, decode, encode, generate_key, parse_key_ring

BUDGET = 15.0
ROUNDS = 60
BATCH_SECONDS = 0.002
JOB_CLASS = "app.jobs.SendEmail"

SMALL = {
    "to": "someone@example.org",
    "subject": "Welcome to the service",
    "template": "welcome",
    "user_id": 123456,
    "locale": "en",
    "tags": ["a", "b"],
    "retry": True,
}
PAYLOADS: dict[str, Any] = {
    "150 B": SMALL,
    "150 B, tagged": {**SMALL, "at": datetime(2026, 11, 23, 2, 30, tzinfo=UTC)},
    "5 KB": {
        "rows": [{"id": n, "name": f"customer number {n}", "total": n * 1.25, "paid": n % 3 == 0} for n in range(75)]
    },
}


def main() -> int:
    """Print the table and say by the exit code whether the budget is kept."""
    print(
        f"{'microseconds':<16}{'bytes':>7}{'sealed':>8}{'encode':>9}{'decode':>9}{'seal':>9}{'open':>9}{'both':>9}{'json':>9}"
    )
    total = 0.0
    for name, value in PAYLOADS.items():
        times, size, sealed = measure(value)
        both = times["seal"] + times["open"]
        if name == "150 B":
            total = both
        row = [times["encode"], times["decode"], times["seal"], times["open"], both, times["json"]]
        print(f"{name:<16}{size:>7}{sealed:>8}" + "".join(f"{figure:>9.2f}" for figure in row))
    kept = total <= BUDGET
    print("json: json.dumps and json.loads of the same value, the pace of this machine at this time")
    print(f"seal + open of 150 B: {total:.2f} of {BUDGET:.0f} microseconds: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


def measure(value: Any) -> tuple[dict[str, float], int, int]:
    """Return microseconds by step, the encoded size and the sealed size."""
    codec, job = Codec(parse_key_ring(generate_key())), new_id().bytes
    data = encode(value)
    blob = codec.seal(value, Purpose.PAYLOAD, job, JOB_CLASS)
    steps: dict[str, Callable[[], object]] = {
        "encode": lambda: encode(value),
        "decode": lambda: decode(data),
        "seal": lambda: codec.seal(value, Purpose.PAYLOAD, job, JOB_CLASS),
        "open": lambda: codec.open(blob, Purpose.PAYLOAD, job, JOB_CLASS),
        "json": lambda: json.loads(json.dumps(value, default=str)),
    }
    return best_of(steps), len(data), len(blob)


def best_of(steps: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the microseconds of the best batch of each step."""
    timers = {name: timeit.Timer(step) for name, step in steps.items()}
    batch = {name: max(1, int(BATCH_SECONDS / (timer.timeit(20) / 20))) for name, timer in timers.items()}
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(ROUNDS):
        for name, timer in timers.items():
            best[name] = min(best[name], timer.timeit(batch[name]) / batch[name] * 1e6)
    return best


if __name__ == "__main__":
    raise SystemExit(main())
