"""Content-addressed files, named by their sha256, in a folder or at an fsspec URL (s3://..., memory://...).

Writes are atomic: on a local disk a blob is written to a temporary file, flushed and renamed; object stores
are atomic by themselves. Identical bytes are stored once. Blobs are immutable and readable only by the owner
of the process.
"""

import errno
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from kontext.errors import NoSpace, NotFound, Unavailable

log = logging.getLogger(__name__)
NAME = re.compile(r"[0-9a-f]{64}")
FOLDER_MODE, FILE_MODE = 0o700, 0o600
PROBE_BYTES = 65536
FULL = (errno.ENOSPC, errno.EDQUOT)


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class StoredBlob:
    """One file of a store."""

    path: str
    name: str
    size: int
    age_seconds: float


class Blobs:
    """A flat set of blobs under `url` (a folder or an fsspec URL), which is created if missing."""

    def __init__(self, url: str | os.PathLike) -> None:
        self.files, self.root = fsspec.core.url_to_fs(os.fspath(url))
        self.local = isinstance(self.files, LocalFileSystem)
        with storage("the folder of the pictures cannot be created"):
            if self.local:
                private_folder(self.root, nested=True)
            else:
                self.files.makedirs(self.root, exist_ok=True)

    def path(self, sha256: str) -> str:
        """Path of a blob in the file system of this store. Raises NotFound for an invalid sha256."""
        if not NAME.fullmatch(sha256):
            raise NotFound(f"{sha256[:80]!r} is not the name of a stored file")
        return f"{self.root}/{sha256[:2]}/{sha256}"

    def put(self, data: bytes) -> str:
        """Store bytes durably; returns their sha256 (hex).

        An existing file is compared and repaired if needed. Raises Unavailable, NoSpace.
        """
        sha256 = sha256_of(data)
        path = self.path(sha256)
        with storage("a picture cannot be stored"):
            if not self.local:
                self.files.pipe_file(path, data)
            elif _holds(path, data):
                os.utime(path)  # renewed, so that a concurrent garbage collection keeps it
            else:
                os.makedirs(os.path.dirname(path), mode=FOLDER_MODE, exist_ok=True)
                _write(path, data)
                _sync_folder(os.path.dirname(path))
        return sha256

    def touch(self, sha256: str) -> bool:
        """Renew the age of a blob; False if it is missing, damaged or remote. Raises Unavailable."""
        if not self.local:
            return False
        path = self.path(sha256)
        with storage("a stored picture cannot be reached"):
            try:
                with open(path, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                        return False
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def get(self, sha256: str) -> bytes:
        """The bytes, verified against their name. Raises Unavailable if they are missing or damaged."""
        with storage("a stored picture cannot be read"):
            try:
                data = self.files.cat_file(self.path(sha256))
            except FileNotFoundError:
                log.error("the file %s is missing from %s", sha256, self.root)
                raise Unavailable(f"the stored file {sha256[:12]}... is missing") from None
        if sha256_of(data) != sha256:
            log.error("the file %s in %s is damaged", sha256, self.root)
            raise Unavailable(f"the stored file {sha256[:12]}... is damaged: its content has changed")
        return data

    def probe(self) -> None:
        """Write and remove a small file. Raises Unavailable, NoSpace."""
        if self.local:
            with storage("pictures cannot be stored", quiet=True):
                path = f"{self.root}/.{secrets.token_hex(4)}.part"
                try:
                    with open(path, "xb", opener=_private_opener) as file:
                        file.write(b"\0" * PROBE_BYTES)
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(path)

    def size(self, sha256: str) -> int:
        """Size of a blob in bytes; 0 if it is missing."""
        try:
            return self.files.size(self.path(sha256)) or 0
        except FileNotFoundError:
            return 0

    def has(self, sha256: str) -> bool:
        if self.local:
            return os.path.exists(self.path(sha256))
        self.files.invalidate_cache()  # another process may have deleted it
        return self.files.exists(self.path(sha256))

    def delete(self, sha256: str) -> None:
        """Remove a blob if it exists."""
        try:
            self.files.rm_file(self.path(sha256))
        except FileNotFoundError:
            pass

    def listing(self) -> Iterator[StoredBlob]:
        """All files of the store; unfinished ones have a name that is not a sha256."""
        self.files.invalidate_cache()
        for path, info in self.files.find(self.root, detail=True).items():
            yield StoredBlob(path, path.rsplit("/", 1)[-1], info["size"], _age(info))

    def age_seconds(self, path: str) -> float:
        """Seconds since a path was written or renewed; negative if it does not exist."""
        self.files.invalidate_cache()
        try:
            return _age(self.files.info(path))
        except FileNotFoundError:
            return -1.0


def _age(info: dict[str, Any]) -> float:
    """Age in seconds; local disks, object stores and memory report the time under different keys."""
    changed = info.get("mtime") or info.get("LastModified") or info.get("created") or time.time()
    return time.time() - (changed.timestamp() if hasattr(changed, "timestamp") else float(changed))


@contextmanager
def storage(what: str, quiet: bool = False) -> Iterator[None]:
    """Translate OSError to Unavailable or NoSpace; the path is only logged."""
    try:
        yield
    except OSError as error:
        if not quiet:
            log.error("%s: %s", what, error)
        kind = NoSpace if error.errno in FULL else Unavailable
        raise kind(f"{what} ({error.strerror or type(error).__name__})") from error


def private_folder(path: str | os.PathLike[str], nested: bool = False) -> None:
    """Create a folder that only its owner may enter, or restrict an existing one.

    With `inside`, the files in a folder that was accessible before are restricted as well.
    """
    os.makedirs(path, mode=FOLDER_MODE, exist_ok=True)
    if os.name != "posix" or not os.stat(path).st_mode & 0o077:
        return
    if nested:
        for folder, _, names in os.walk(os.fspath(path)):
            for name in names:
                private_file(f"{folder}/{name}")
            _change_mode(folder, FOLDER_MODE)
    _change_mode(path, FOLDER_MODE)  # last, so that an interrupted start repeats it


def private_file(path: str | os.PathLike) -> None:
    """Restrict a file, if it exists, to its owner."""
    _change_mode(path, FILE_MODE)


def _change_mode(path: str | os.PathLike, mode: int) -> None:
    with suppress(FileNotFoundError, PermissionError):  # deleted in the meantime, or owned by another account
        os.chmod(path, mode)


def _holds(path: str, data: bytes) -> bool:
    try:
        if os.path.getsize(path) != len(data):
            return False
        with open(path, "rb") as file:
            return file.read() == data
    except FileNotFoundError:
        return False


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)


def _write(path: str, data: bytes) -> None:
    """Write atomically, readable only by the owner whatever the umask."""
    part = f"{os.path.dirname(path)}/.{os.path.basename(path)}.{secrets.token_hex(4)}.part"
    try:
        with open(part, "xb", opener=_private_opener) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def _sync_folder(path: str) -> None:
    """Make a rename durable, on systems where folders can be synced."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
