"""How a node's workers reach its database; only those of transactional jobs do."""

from __future__ import annotations

import math
from typing import NamedTuple


class Access(NamedTuple):
    """The way to a database. It holds a password, so it travels over the nursery's socket and nowhere else."""

    url: str
    identity: bytes
    """The database's own id, by which a worker knows that it has reached the same one."""
    lease: float = math.inf
    heartbeat: float = 0.0
    """The node's own times: where there is one writer at a time, a handler may not keep it from beating."""
