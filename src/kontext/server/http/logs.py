"""Log output of the service: text or JSON, throttled so that clients cannot fill the disk."""

from __future__ import annotations

import logging
import time

from kontext.terminal import json_text

WINDOW_SECONDS = 60.0
SAME_LINES = 20
"""Lines per kind (logger and message format) in a window; further lines are only counted."""
WINDOW_BYTES = 512 * 2**10
"""Bytes of warnings and errors in a window, all kinds together."""
MAX_KINDS = 1000


class JsonLines(logging.Formatter):
    """One JSON object per line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json_text(line)


class Throttle(logging.Handler):
    """Forwards records to `handler`, at most `SAME_LINES` per kind and `WINDOW_BYTES` in total per minute.

    After each window one line reports how many were suppressed.
    """

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self.handler = handler
        self._began = time.monotonic()
        self._lines: dict[tuple[str, str], int] = {}
        self._bytes = self._suppressed = 0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._began > WINDOW_SECONDS:
            suppressed, self._suppressed = self._suppressed, 0
            self._began, self._lines, self._bytes = now, {}, 0
            if suppressed:
                self.handler.handle(_summary(suppressed))
        kind = record.name, str(record.msg)[:200]
        if len(self._lines) >= MAX_KINDS and kind not in self._lines:
            kind = "", ""
        self._lines[kind] = count = self._lines.get(kind, 0) + 1
        # INFO lines (such as those of --log-prompts) are never suppressed: the queue bounds them.
        counted = record.levelno > logging.INFO
        if counted and (count > SAME_LINES or self._bytes > WINDOW_BYTES):
            self._suppressed += 1
            return
        if counted:
            self._bytes += len(self.handler.format(record))
        self.handler.handle(record)


def _summary(count: int) -> logging.LogRecord:
    text = f"{count} similar lines were suppressed"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
