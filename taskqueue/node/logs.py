"""Where log lines go and what they look like: one line each, as text or as JSON, on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from taskqueue.record import iso

_LONGEST = 8_192
_LINE_ENDS = (*range(10, 14), 0x85, 0x2028, 0x2029)
_DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = {code: None for code in (*range(32), *range(127, 160), *_DIRECTIONS) if chr(code) != "\t"} | dict.fromkeys(
    _LINE_ENDS, " "
)
JOB_FIELDS = ("job_id", "job_class", "queue", "attempt")


def clean(text: str) -> str:
    """Return ``text`` on one line: line ends as spaces, other control characters dropped, cut at 8,192 characters."""
    return text.translate(_CONTROLS)[:_LONGEST]


class TextFormatter(logging.Formatter):
    """``2026-11-22T14:03:07Z INFO taskqueue.node: ready``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record on one line, a traceback after it where there is one."""
        at = iso(datetime.fromtimestamp(record.created, UTC).replace(microsecond=0))
        fields = "".join(f" {name}={getattr(record, name)}" for name in JOB_FIELDS if hasattr(record, name))
        line = clean(f"{at} {record.levelname} {record.name}: {record.getMessage()}{fields}")
        if not record.exc_info:
            return line
        return "\n".join([line, *map(clean, self.formatException(record.exc_info).split("\n"))])


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the job's id, class, queue and attempt where there is a job."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        entry = {
            "at": iso(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": clean(record.getMessage()),
        }
        entry |= {name: getattr(record, name) for name in JOB_FIELDS if hasattr(record, name)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)[:_LONGEST]
        return json.dumps(entry, ensure_ascii=False, default=str)


def configure_logging(level: str, form: str) -> None:
    """Send the log of ``taskqueue`` to standard error, from ``level`` up, as ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logger = logging.getLogger("taskqueue")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
