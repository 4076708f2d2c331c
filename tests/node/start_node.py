"""Start a node with the settings given as JSON, and write its counts when it ends."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, os.environ.pop("TEST_ROOT"))

from taskqueue.drivers.values import CRASHED_AGAIN_DELAY
from taskqueue.drivers.verbs import rescuing
from taskqueue.errors import TaskQueueError
from taskqueue.node import hook_watch, lease, scaling, settlement, supervisor
from taskqueue.node.logs import configure_logging
from taskqueue.settings import load_settings

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    delay = asked.pop("crashed_again_delay", CRASHED_AGAIN_DELAY)
    for module in (settlement, rescuing):
        module.CRASHED_AGAIN_DELAY = delay  # type: ignore[attr-defined]
    short = asked.get("worker", {}).get("lease", 30.0)
    if short < 5 and "TEST_STRICT_LEASE" not in os.environ:  # What a slow machine could not hold for certain.
        lease.KILL_WITHIN = lease.TEMPLATE_LATER = short / 15
    scaling.LEAVE_AFTER = asked.pop("leave_after", scaling.LEAVE_AFTER)
    hook_watch.LEAVE_WITHIN = asked.pop("leave_within", hook_watch.LEAVE_WITHIN)
    supervisor.BARREN_FOR = asked.pop("barren", supervisor.BARREN_FOR)
    queues = asked.pop("queues", None)
    settings = load_settings(keywords=asked).settings
    configure_logging(settings.general.log_level, settings.general.log_format)
    node = supervisor.Node(settings, queues)
    try:
        code = node.run()
    except TaskQueueError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    Path(sys.argv[2]).write_text(json.dumps(asdict(node.counts)))
    sys.exit(code)
