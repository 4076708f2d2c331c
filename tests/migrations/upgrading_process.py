"""Run by tests in a process of its own: upgrade a database once a line has come in, and print what it was before."""

from __future__ import annotations

import sys

from taskqueue.drivers import migrate

print("ready", flush=True)
sys.stdin.readline()
print(migrate.upgrade(sys.argv[1]).fit)
