"""One clear line for every error that ends a command.

The message of a KontextError, plain words for system errors (a full disk, no permission, a missing package),
and "unexpected" only for bugs.
"""

from __future__ import annotations

import errno

from kontext.errors import KontextError

_SYSTEM = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "not permitted",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "a folder, not a file",
    errno.ENOTDIR: "not a folder",
    errno.EMFILE: "too many open files; raise the limit with ulimit -n",
    errno.EBADF: "standard input or output is closed",
    errno.ENFILE: "too many open files on this machine",
}

_EXTRAS = {
    "pylunasvg": "world",
    "skimage": "bench",
    "rapidocr": "bench",
    "onnxruntime": "bench",
    "gguf": "gguf",
    "c2pa": "provenance",
    "cryptography": "provenance",
    "opennsfw": "safety",
    "ray": "ray",
    "psycopg": "postgres",
    "psycopg2": "postgres",
}
"""The extra of this package that installs a module."""


def explain(error: BaseException) -> str:
    """The line for an error, without its prefix."""
    if isinstance(error, KontextError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "stopped"
    return " ".join(_of_other_package(error).split())


def _of_other_package(error: BaseException) -> str:
    kind, text = type(error).__name__, str(error)
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "t allocate memory" in text:
        return "out of memory; try a smaller picture, fewer variants or a smaller model"
    if isinstance(error, OSError) and error.errno is not None:
        reason = _SYSTEM.get(error.errno, error.strerror or kind)
        return f"{error.filename}: {reason}" if error.filename else reason
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("kontext"):
        package = error.name.partition(".")[0]
        requirement = f"'openkontext[{_EXTRAS[package]}]'" if package in _EXTRAS else package
        return f"the package {package} is not installed; pip install {requirement} brings it"
    if kind in ("OperationalError", "DatabaseError") and type(error).__module__.startswith("sql"):
        cause = getattr(error, "orig", None) or error
        if "full" in str(cause):
            return "no space left on the disk of the database"
        return f"the database cannot be used ({cause}); is its disk full, or the folder not yours?"
    if isinstance(error, RuntimeError) and "home directory" in text:
        return "this account has no home directory; set KONTEXT_HOME to a folder for sessions"
    if isinstance(error, UnicodeError):
        return f"text that is not valid Unicode ({error})"
    return f"unexpected {kind}: {text} (set KONTEXT_DEBUG=1 to see where)"
