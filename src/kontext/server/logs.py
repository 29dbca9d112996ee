"""Log lines of the service: text or JSON, and never so many that a stranger can fill the disk with them."""

from __future__ import annotations

import logging
import time

from kontext.terminal import json_text

WINDOW_SECONDS = 60.0
SAME_LINES = 20
"""Lines of one kind (logger and message without its values) in a window; above that they are counted only."""
WINDOW_BYTES = 512 * 2**10
"""Text of warnings and errors in a window, all kinds together."""
MAX_KINDS = 1000


class JsonLines(logging.Formatter):
    """One JSON object a line, for log collectors."""

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
    """Passes records on to `handler`, as many as `SAME_LINES` of a kind and `WINDOW_BYTES` in all a minute.

    When a window ends, one line says how many were left out.
    """

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self.handler = handler
        self._began = time.monotonic()
        self._lines: dict[tuple[str, str], int] = {}
        self._bytes = self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._began > WINDOW_SECONDS:
            left_out, self._left_out = self._left_out, 0
            self._began, self._lines, self._bytes = now, {}, 0
            if left_out:
                self.handler.handle(_summary(left_out))
        kind = record.name, str(record.msg)[:200]
        if len(self._lines) >= MAX_KINDS and kind not in self._lines:
            kind = "", ""
        self._lines[kind] = count = self._lines.get(kind, 0) + 1
        # The job lines of --log-prompts are wanted, every one: they are bounded by the queue.
        counted = record.levelno > logging.INFO
        if counted and (count > SAME_LINES or self._bytes > WINDOW_BYTES):
            self._left_out += 1
            return
        if counted:
            self._bytes += len(self.handler.format(record))
        self.handler.handle(record)


def _summary(count: int) -> logging.LogRecord:
    text = f"{count} lines like those before were left out"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
