"""What reaches a terminal: no control character of a stranger, no line that he begins, nothing lost."""

import io
import json
import logging
import os
import sys
import unicodedata

import pytest

from kontext import terminal

NASTY = "a\x1b]0;title\x07\x1b[2Jb\nsignature: valid\r\tc\x9b31m\u202edlrow\u2028x\u200b\ud800\U000e0041\x7f"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_every_control_and_format_character_but_the_joiners_is_escaped():
    kinds = ("Cc", "Cs", "Zl", "Zp")
    for code in range(0x110000):
        kind, shown = unicodedata.category(chr(code)), terminal.terminal_text(chr(code))
        if kind in kinds:
            assert shown.isascii() and shown.startswith("\\"), hex(code)
        if unicodedata.bidirectional(chr(code)) in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        ):
            assert shown.isascii() and shown.startswith("\\"), hex(code)
    assert terminal.terminal_text("a\nb\x1b\u202e\U000e0041") == "a\\nb\\x1b\\u202e\\U000e0041"


@pytest.mark.parametrize("text", ["把背景换成海滩", "👩‍👩‍👧", "é ß", "می‌خواهم", "C:\\new\\table"])
def test_words_of_all_languages_are_shown_as_they_are(text):
    assert terminal.terminal_text(text) == text


def test_json_is_the_same_data_without_control_characters():
    shown = terminal.json_text({"prompt": NASTY})
    assert json.loads(shown) == {"prompt": NASTY}
    assert terminal.terminal_text(shown) == shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_valid_in_every_encoding(encoding, monkeypatch):
    data = {"prompt": "把 \U0001f600 é"}
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    terminal.say_json(data)
    assert json.loads(raw.getvalue().decode(encoding)) == data


def test_what_an_encoding_lacks_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    terminal.say("é 把")
    assert raw.getvalue() == b"\xe9 \\u628a\n"


@pytest.mark.parametrize("filler", ["x", " ", "把", "é"])
@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_width_lets_a_long_text_begin_a_row(filler, width, monkeypatch):
    """With any padding, "signature" is never at column 0 of a row of the terminal."""
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(terminal.shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((width, 24)))
    for padding in range(2 * width):
        terminal.say_wrapped(f"   1  {filler * padding}signature: valid")
    for row in out.getvalue().splitlines():
        columns = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in row)
        assert columns < width  # a full row would wrap by itself
        assert row.startswith(("   1  ", "      "))
    assert out.getvalue().replace("\n      ", "").count("signature: valid\n") == 2 * width


def test_a_pipe_gets_the_whole_line(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    terminal.say_wrapped("x" * 500)
    assert out.getvalue() == "x" * 500 + "\n"


def test_closed_streams_are_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    terminal.say("one")
    terminal.say("two", err=True)
    terminal.say_wrapped("three")
    terminal.say_json({})
    assert not terminal.is_interactive(sys.stderr)


def test_nobody_reading_is_told_from_other_broken_pipes(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(terminal.OutputClosed):
        terminal.say("one")
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_log_lines_keep_the_breaks_of_tracebacks_and_no_other_control():
    formatter = terminal.LogFormatter("%(levelname)s %(message)s")
    try:
        raise ValueError("bad \x1b[2J")
    except ValueError:
        record = logging.LogRecord("k", logging.INFO, "f", 1, "prompt %s", (NASTY,), sys.exc_info())
    shown = formatter.format(record)
    assert shown.startswith("INFO prompt a\\x1b]0;title") and shown.endswith("ValueError: bad \\x1b[2J")
    assert all(terminal.terminal_text(line) == line for line in shown.split("\n"))
