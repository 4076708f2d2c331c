"""What users do to jobs, in a process of its own that may be altered or die: ``python -m tests.chaos.user DO ...``."""

from __future__ import annotations

import json
import os
import sys
from uuid import UUID

from taskqueue import Job, QueueManager
from taskqueue.drivers import migrate
from tests.chaos import alterations
from tests.node.running import job


def _make(number: int, job_class: str, payload: object, options: dict[str, object]) -> list[Job]:
    return [job(job_class, payload, **options) for _ in range(number)]


def main(url: str, what: str, asked: str) -> None:
    """Do what is asked with the parameters given as JSON, and print the ids of what was pushed."""
    given = json.loads(asked)
    if what == "upgrade":
        migrate.upgrade(url)
        return
    with QueueManager(url, encryption_key=os.environ["ENCRYPTION_KEY"]) as manager:
        if what == "push":
            made = _make(given.pop("number", 1), given.pop("job_class", "Plain"), given.pop("payload", {}), given)
            sys.stdout.write("".join(f"{each.id}\n" for each in made))
            sys.stdout.flush()
            if len(made) == 1:
                manager.push(made[0])
            else:
                manager.push_many(made)
        elif what == "revive":
            manager.retry_failed_job(UUID(given["id"]))
        elif what == "cancel":
            manager.cancel_job(UUID(given["id"]))
        elif what == "delete":
            manager.delete_job(UUID(given["id"]))
        elif what == "reprioritize":
            manager.update_job(UUID(given["id"]), priority=given["priority"])
        else:
            raise LookupError(what)


if __name__ == "__main__":
    alterations.in_node()
    main(*sys.argv[1:])
