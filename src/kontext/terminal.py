"""Text for a terminal.

File names, prompts and metadata are untrusted: a control character could move the cursor, set the clipboard
or fake a line of output, and a bidirectional override could reverse a line. Such characters are shown as
escapes.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
import sys
from typing import Any, TextIO


class OutputClosed(BrokenPipeError):
    """The reader of the output has closed it (`kontext ... | head`); a reason to end quietly."""


# Controls (C0, DEL, C1), invisible and bidirectional format characters, line separators, surrogates, tags.
# The two joiners (U+200C, U+200D) stay: emoji and Persian need them, and they move nothing.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def terminal_text(text: object) -> str:
    r"""One line with control characters escaped: \x1b, \n, \u202e."""
    return _UNSAFE.sub(lambda found: _escape(found[0]), str(text))


def json_text(data: Any) -> str:
    """One line of JSON in which the characters that `terminal_text` escapes are JSON escapes: same data."""
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], json.dumps(data, ensure_ascii=False))


def say(*lines: object, err: bool = False) -> None:
    """Print lines on standard output or standard error; characters outside of its encoding are escaped."""
    _write("".join(terminal_text(line) + "\n" for line in lines), err)


def say_wrapped(line: object, indent: int = 6) -> None:
    """Print a line, on a terminal folded with indented continuations.

    Untrusted text cannot start at column 0 and look like a line of output.
    """
    text, rows = terminal_text(line), []
    if sys.stdout is not None and sys.stdout.isatty():
        columns = max(2 * indent + 2, shutil.get_terminal_size().columns - 1)
        head, text = _fold(text, columns)
        rows.append(head)
        while text:
            head, text = _fold(text, columns - indent)
            rows.append(" " * indent + head)
    _write("".join(row + "\n" for row in rows or [text]), err=False)


def say_json(data: Any) -> None:
    """Print an object as one line of JSON, in ASCII if the output's encoding is not Unicode."""
    text = json_text(data)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = json.dumps(data)
    _write(text + "\n", err=False)


def write_bytes(data: bytes) -> None:
    """Write a file to standard output."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise _output_error(error, "standard output") from error


class LogFormatter(logging.Formatter):
    """A formatter of log lines that keeps line breaks (tracebacks) and escapes other control characters."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        record.message = terminal_text(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(terminal_text(line) for line in super().formatException(ei).split("\n"))


def log_handler(format: str) -> logging.Handler:
    """A handler that writes such lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter(format))
    return handler


def is_interactive(stream: TextIO | None) -> bool:
    """Whether a stream is open and a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def draw(text: str) -> None:
    """Replace the current line of the terminal on standard error."""
    _write(f"\r\033[K{terminal_text(text)}", err=True)


def _write(text: str, err: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    if stream is None or stream.closed:  # closed by the shell that started us
        return
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        raise _output_error(error, "standard error" if err else "standard output") from error


def _output_error(error: OSError, name: str) -> OSError:
    if isinstance(error, BrokenPipeError):
        return OutputClosed(errno.EPIPE, "the reader of the output is gone")
    return OSError(error.errno, error.strerror, name)


def _escape(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _fold(text: str, columns: int) -> tuple[str, str]:
    """The part of a line that fits into the columns, and the rest; non-ASCII characters count as two."""
    used = 0
    for position, character in enumerate(text):
        used += 1 if character < "\x7f" else 2
        if used > columns:
            return text[:position], text[position:]
    return text, ""
