"""The cache of the hub on this machine, which all programs of an account share.

Environment variables say where it is and how the hub is reached.

    HF_HOME/hub/models--OWNER--REPO/refs/REVISION           a commit
                                    snapshots/COMMIT/PATH   links to
                                    blobs/ETAG              the files
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from kontext.errors import BadCheckpoint

MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUE = ("1", "ON", "YES", "TRUE")


def cache_folder() -> Path:
    """HF_HUB_CACHE, HF_HOME/hub, or ~/.cache/huggingface/hub."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(home).expanduser() / "hub"


def endpoint() -> str:
    """HF_ENDPOINT, without a slash at its end."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE is set the network."""
    return any(
        os.environ.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def repo_folder(repo: str) -> Path:
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def snapshot(repo: str, revision: str | None = None) -> Path | None:
    """The folder of a repository's cached files at a revision."""
    folder, revision = repo_folder(repo), revision or MAIN
    if not _COMMIT.fullmatch(revision):
        try:
            revision = (folder / "refs" / revision).read_text("utf-8").strip()
        except (OSError, ValueError):
            return None
    found = folder / "snapshots" / revision
    return found if _COMMIT.fullmatch(revision) and found.is_dir() else None


def cached_paths(repo: str, revision: str | None = None) -> dict[str, Path]:
    """The cached files of a repository: path in the repository to file."""
    folder = snapshot(repo, revision)
    if folder is None:
        return {}
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}


def cached(repo: str, path: str, revision: str | None = None) -> Path | None:
    """A file of a repository, if it is cached."""
    folder = snapshot(repo, revision)
    file = folder and folder / path
    return file if file and file.is_file() else None


def pointer_path(repo: str, commit: str, path: str) -> Path:
    """Path of a file of a commit. Raises BadCheckpoint for a path outside of the repository."""
    parts = PurePosixPath(path).parts
    if not _COMMIT.fullmatch(commit) or path.startswith("/") or ".." in parts or not parts:
        raise BadCheckpoint(f"{repo}: the hub names an impossible file ({path} at {commit})")
    return repo_folder(repo) / "snapshots" / commit / Path(*parts)


def place(repo: str, revision: str | None, commit: str, path: str, blob: Path) -> Path:
    """Link a blob as the file of a commit, and set the revision to the commit. Returns the file."""
    pointer = pointer_path(repo, commit, path)
    pointer.parent.mkdir(parents=True, exist_ok=True)
    revision = revision or MAIN
    if not _COMMIT.fullmatch(revision):
        ref = repo_folder(repo) / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        _write(ref, commit)
    if not pointer.exists():
        pointer.unlink(missing_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except FileExistsError:
            pass  # by another process, at this moment
        except OSError:  # no links on this file system
            os.replace(blob, pointer)
    return pointer


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, "utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_files(repo: str) -> list[Path]:
    """Partial downloads of a repository."""
    return sorted(
        file
        for file in (repo_folder(repo) / "blobs").glob("*.incomplete")
        if file.name.count(".") == 1  # others belong to programs that are running
    )


def remove(files: Iterable[Path]) -> int:
    """Delete partial downloads and files of snapshots, with their blobs unless another commit has these.

    Returns the bytes freed. An empty repository is removed.
    """
    freed = 0
    for file in files:
        root = next((parent for parent in file.parents if parent.name.startswith("models--")), None)
        blob = file.resolve()
        file.unlink(missing_ok=True)
        if root is None:
            continue
        if blob.is_file() and not any(other.resolve() == blob for other in _links(root)):
            freed += blob.stat().st_size
            blob.unlink()
        if not any(_links(root)) and not any((root / "blobs").iterdir() if root.exists() else ()):
            shutil.rmtree(root, ignore_errors=True)
    return freed


def _links(root: Path) -> Iterable[Path]:
    return (path for path in (root / "snapshots").rglob("*") if path.is_symlink() or path.is_file())
