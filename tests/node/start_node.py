"""Start a node with the settings given as JSON, and write its counts when it ends."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, os.environ.pop("TEST_ROOT"))

from taskqueue.errors import TaskQueueError
from taskqueue.node import settlement
from taskqueue.node.logs import configure_logging
from taskqueue.node.supervisor import Node
from taskqueue.settings import load_settings

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    settlement.CRASHED_AGAIN_DELAY = asked.pop("crashed_again_delay", settlement.CRASHED_AGAIN_DELAY)
    queues = asked.pop("queues", None)
    settings = load_settings(keywords=asked).settings
    configure_logging(settings.general.log_level, settings.general.log_format)
    node = Node(settings, queues)
    try:
        code = node.run()
    except TaskQueueError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    Path(sys.argv[2]).write_text(json.dumps(asdict(node.counts)))
    sys.exit(code)
