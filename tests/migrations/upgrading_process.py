"""Run by tests in a process of its own: upgrade a database once a line has come in, and print what it was before."""

from __future__ import annotations

import sys

from taskqueue.drivers import migrate

sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
sys.stdout.write(f"{migrate.upgrade(sys.argv[1]).fit}\n")
