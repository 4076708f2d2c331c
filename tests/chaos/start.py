"""Start a node with the settings given as JSON, altered as the environment says; write its counts when it ends."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from taskqueue.drivers.verbs import rescuing
from taskqueue.errors import TaskQueueError
from taskqueue.node import lease, settlement
from taskqueue.node.logs import configure_logging
from taskqueue.node.supervisor import Node
from taskqueue.settings import load_settings
from tests.chaos import alterations

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    delay = asked.pop("crashed_again_delay")
    for module in (settlement, rescuing):
        module.CRASHED_AGAIN_DELAY = delay  # type: ignore[attr-defined]
    if (short := asked.get("worker", {}).get("lease", 30.0)) < 5:  # Too short for a slow machine to hold for certain.
        lease.KILL_WITHIN = lease.TEMPLATE_LATER = short / 15
    settings = load_settings(keywords=asked).settings
    configure_logging(settings.general.log_level, settings.general.log_format)
    alterations.in_node()
    node = Node(settings, None)
    try:
        code = node.run()
    except TaskQueueError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    counts = Path(sys.argv[2])
    counts.with_suffix(".new").write_text(json.dumps(asdict(node.counts)))
    os.replace(counts.with_suffix(".new"), counts)  # noqa: PTH105 - one step, so that nobody reads half of it
    sys.exit(code)
