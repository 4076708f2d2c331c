"""What a command needs before it can do anything: settings, a log, an open queue."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from taskqueue.settings import Given, Settings, load_settings

from .output import PROGRAM, clean

if TYPE_CHECKING:
    from taskqueue.manager import QueueManager

_logger = logging.getLogger("taskqueue.cli")


def read_settings(given: Given | None = None) -> Settings:
    """Return the settings with the flags ``given``; what has to be said of them goes to standard error once."""
    loaded = load_settings(given)
    _log_to_standard_error()
    for warning in loaded.warnings:
        _logger.warning("%s", warning)
    return loaded.settings


def node_settings(given: Given | None = None) -> Settings:
    """Return the settings of a node, whose log has times and levels, or is JSON."""
    from taskqueue.node.logs import configure_logging

    loaded = load_settings(given)
    configure_logging(loaded.settings.general.log_level, loaded.settings.general.log_format)
    for warning in loaded.warnings:
        _logger.warning("%s", warning)
    return loaded.settings


def open_manager(given: Given | None = None) -> QueueManager:
    """Return a manager on the database of the settings; entering it opens the database and checks schema and key."""
    from taskqueue.manager import QueueManager  # costs 0.3 s, which help and listing need not pay

    return QueueManager(settings=read_settings(given))


def log_notices(notices: Iterable[str]) -> None:
    """Say what a person should read once after a database was opened without a manager."""
    for notice in notices:
        _logger.warning("%s", notice)


def make_default_folder(url: str) -> None:
    """Make the folder of the default database, which nobody named; any other folder must be there."""
    from taskqueue.drivers import database_file

    file = database_file(url)
    if file is not None and _in_default_folder(file):
        file.parent.mkdir(mode=0o700, exist_ok=True)


def is_still_to_be_made(url: str) -> bool:
    """Say whether a URL names a file that is not there and that the first use would make."""
    from taskqueue.drivers import database_file

    file = database_file(url)
    return file is not None and not file.exists() and (file.parent.is_dir() or _in_default_folder(file))


def _in_default_folder(file: Path) -> bool:
    from taskqueue.store import DEFAULT_FOLDER

    return str(file.parent) == DEFAULT_FOLDER


class _Lines(logging.Formatter):
    """A message as one line, as notes are written."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return f"{PROGRAM}: {clean(' '.join(record.getMessage().split()))}"


def _log_to_standard_error() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logger = logging.getLogger("taskqueue")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING)
    logger.propagate = False
