"""Ordinary trouble is said in words; only defects of ours are unexpected."""

import errno
import sqlite3

import pytest
import sqlalchemy.exc
import torch

from kontext.errors import BadRequest
from kontext.failures import explain


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BadRequest("as it is"), "as it is"),
        (KeyboardInterrupt(), "stopped"),
        (KeyboardInterrupt("stopped; 1 of 2"), "stopped; 1 of 2"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (OSError(errno.ENOSPC, "x", "a.png"), "a.png: no space left on the disk"),
        (OSError(errno.EROFS, "x", "a.png"), "a.png: the file system is read-only"),
        (OSError(errno.EACCES, "x", "a.png"), "a.png: no permission"),
        (OSError(errno.ENAMETOOLONG, "x", "a.png"), "a.png: the name is too long"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (ModuleNotFoundError("No", name="pylunasvg"), "pip install 'openkontext[world]'"),
        (ModuleNotFoundError("No", name="ray.util"), "pip install 'openkontext[ray]'"),
        (ModuleNotFoundError("No", name="left_pad"), "pip install left_pad"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "readonly database"),
        (
            sqlalchemy.exc.OperationalError("SELECT", {}, sqlite3.OperationalError("disk I/O error")),
            "the database cannot be used (disk I/O error)",
        ),
        (RuntimeError("Could not determine home directory."), "set KONTEXT_HOME"),
        ("\ud800", "not valid Unicode"),
    ],
    ids=repr,
)
def test_ordinary_trouble_in_words(error, said):
    if isinstance(error, str):
        with pytest.raises(UnicodeEncodeError) as caught:
            error.encode()
        error = caught.value
    assert said in explain(error) and "unexpected" not in explain(error) and "\n" not in explain(error)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("by zero"), ModuleNotFoundError("x", name="kontext.none")]
)
def test_defects_of_ours_are_unexpected(error):
    assert explain(error).startswith(f"unexpected {type(error).__name__}: ")
