"""Files named by their own sha256, in a folder or any fsspec place (s3://..., memory://...).

A blob is there whole or not at all: on a local disk it is written beside its place, flushed to the disk and
then renamed; object stores do this by themselves. The same bytes are kept once. Nothing is ever changed in
place.
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from kontext.engine.pictures import write
from kontext.errors import BadPicture, NotFound

log = logging.getLogger(__name__)
NAME = re.compile(r"[0-9a-f]{64}")


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
        self.files.makedirs(self.root, exist_ok=True)

    def path(self, sha256: str) -> str:
        """Where a blob lies (inside the file system of this store). Raises NotFound for what is no sha256."""
        if not NAME.fullmatch(sha256):
            raise NotFound(f"{sha256[:80]!r} is not the name of a stored file")
        return f"{self.root}/{sha256[:2]}/{sha256}"

    def put(self, data: bytes) -> str:
        """Keep bytes; returns their sha256 (hex). When it returns they are on the disk."""
        sha256 = sha256_of(data)
        path = self.path(sha256)
        if not self.local:
            self.files.pipe_file(path, data)
        elif os.path.exists(path):
            os.utime(path)  # young again, so that a collection that runs now leaves it alone
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write(path, data)
            _sync_folder(os.path.dirname(path))
        return sha256

    def touch(self, sha256: str) -> bool:
        """Whether a blob is there, made young as if it were put now. False where that cannot be done."""
        if not self.local:
            return False
        try:
            os.utime(self.path(sha256))
        except FileNotFoundError:
            return False
        return True

    def get(self, sha256: str) -> bytes:
        """The bytes, checked against their name. Raises NotFound, and BadPicture when they are damaged."""
        try:
            data = self.files.cat_file(self.path(sha256))
        except FileNotFoundError:
            log.error("the file %s is missing from %s", sha256, self.root)
            raise NotFound(f"the stored file {sha256[:12]}... is missing") from None
        if sha256_of(data) != sha256:
            log.error("the file %s in %s is damaged", sha256, self.root)
            raise BadPicture(f"the stored file {sha256[:12]}... is damaged: its content has changed")
        return data

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


def _sync_folder(path: str) -> None:
    """Put a rename on the disk, where folders can be told to."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
