"""Files named by their own sha256, in a folder or any fsspec place (s3://..., memory://...).

A blob is there whole or not at all: on a local disk it is written beside its place, flushed to the disk and
then renamed; object stores do this by themselves. The same bytes are kept once. Nothing is ever changed in
place, and nobody but the owner of the process may read it.
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
class Stored:
    """One file of a store."""

    path: str
    name: str
    size: int
    age_seconds: float


class Blobs:
    """A flat set of blobs under `url` (a folder or an fsspec URL), which is made when missing."""

    def __init__(self, url: str | os.PathLike) -> None:
        self.files, self.root = fsspec.core.url_to_fs(os.fspath(url))
        self.local = isinstance(self.files, LocalFileSystem)
        with storage("the place of the pictures cannot be made"):
            if self.local:
                private_folder(self.root, inside=True)
            else:
                self.files.makedirs(self.root, exist_ok=True)

    def path(self, sha256: str) -> str:
        """Where a blob lies (inside the file system of this store). Raises NotFound for what is no sha256."""
        if not NAME.fullmatch(sha256):
            raise NotFound(f"{sha256[:80]!r} is not the name of a stored file")
        return f"{self.root}/{sha256[:2]}/{sha256}"

    def put(self, data: bytes) -> str:
        """Keep bytes; returns their sha256 (hex). When it returns they are on the disk, and undamaged: a file
        that is there already is compared. Raises Unavailable, NoSpace.
        """
        sha256 = sha256_of(data)
        path = self.path(sha256)
        with storage("a picture cannot be stored"):
            if not self.local:
                self.files.pipe_file(path, data)
            elif _holds(path, data):
                os.utime(path)  # young again, so that a collection that runs now leaves it alone
            else:
                os.makedirs(os.path.dirname(path), mode=FOLDER_MODE, exist_ok=True)
                _write(path, data)
                _sync_folder(os.path.dirname(path))
        return sha256

    def touch(self, sha256: str) -> bool:
        """Whether a blob is there and undamaged, made young as if it were put now. False where that cannot be
        done. Raises Unavailable.
        """
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
        """The bytes, checked against their name. Raises Unavailable when they are missing or damaged."""
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
        """Bytes of a blob; 0 when it is missing."""
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
        """Remove a blob if it is there."""
        try:
            self.files.rm_file(self.path(sha256))
        except FileNotFoundError:
            pass

    def listing(self) -> Iterator[Stored]:
        """Everything that is kept; unfinished files have a name that is no sha256."""
        self.files.invalidate_cache()
        for path, info in self.files.find(self.root, detail=True).items():
            yield Stored(path, path.rsplit("/", 1)[-1], info["size"], _age(info))

    def age_seconds(self, path: str) -> float:
        """Seconds since a path was written, or put again; below 0 for one that is gone."""
        self.files.invalidate_cache()
        try:
            return _age(self.files.info(path))
        except FileNotFoundError:
            return -1.0


def _age(info: dict[str, Any]) -> float:
    """Of what fsspec tells of a file: local disks, object stores and memory have a name each for its time."""
    changed = info.get("mtime") or info.get("LastModified") or info.get("created") or time.time()
    return time.time() - (changed.timestamp() if hasattr(changed, "timestamp") else float(changed))


@contextmanager
def storage(what: str, quiet: bool = False) -> Iterator[None]:
    """Raises Unavailable or NoSpace for errors of the system: the path is for the log alone."""
    try:
        yield
    except OSError as error:
        if not quiet:
            log.error("%s: %s", what, error)
        kind = NoSpace if error.errno in FULL else Unavailable
        raise kind(f"{what} ({error.strerror or type(error).__name__})") from error


def private_folder(path: str | os.PathLike[str], inside: bool = False) -> None:
    """Make a folder that only its owner may enter, or make an existing one so; with `inside` all files in it,
    where the folder was open before.
    """
    os.makedirs(path, mode=FOLDER_MODE, exist_ok=True)
    if os.name != "posix" or not os.stat(path).st_mode & 0o077:
        return
    if inside:
        for folder, _, names in os.walk(os.fspath(path)):
            for name in names:
                private_file(f"{folder}/{name}")
            _change_mode(folder, FOLDER_MODE)
    _change_mode(path, FOLDER_MODE)  # last: an interrupted start does it again


def private_file(path: str | os.PathLike) -> None:
    """Let only its owner read and write a file, where there is one."""
    _change_mode(path, FILE_MODE)


def _change_mode(path: str | os.PathLike, mode: int) -> None:
    with suppress(FileNotFoundError, PermissionError):  # gone meanwhile, or another account's
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
    """Whole or not at all, for the owner's eyes only whatever the umask."""
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
    """Put a rename on the disk, where folders can be told to."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
