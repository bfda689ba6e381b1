"""Structured logs: one JSON object a line, with the study and the trial they are about."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

_FIELDS = ("study", "stage", "number", "worker", "path", "status")
LIBRARIES = ("bitfront", "uvicorn", "celery", "kombu", "waitress", "alembic", "py.warnings")
"""Whose lines are written so."""
_SECRET = re.compile(r"(://[^:/@\s]*:)[^@/\s]+(@)|bf_[0-9a-f]{32}_[0-9a-f]+")


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON; passwords in URLs and API keys are left out."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"at": at, "level": record.levelname, "logger": record.name}
        line["message"] = without_secrets(record.getMessage())
        line |= {name: record.__dict__[name] for name in _FIELDS if name in record.__dict__}
        if record.exc_info:
            line["error"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def without_secrets(text: str) -> str:
    """The text with passwords of URLs and API keys replaced.

    >>> without_secrets("redis://:hunter2@host/0")
    'redis://:...@host/0'
    """
    return _SECRET.sub(lambda found: f"{found[1]}...{found[2]}" if found[1] else "bf_...", text)


def set_up_logs(level: int = logging.INFO) -> None:
    """Send what bitfront logs, and what the libraries that serve warn of, as JSON lines.

    Args:
        level: of bitfront's own lines, which go to standard error like the others.
    """
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonLines())
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [stream]
        logger.setLevel(level if name == "bitfront" else max(level, logging.WARNING))
        logger.propagate = False
