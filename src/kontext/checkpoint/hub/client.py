"""Requests to the hub through `huggingface_hub`: lists files and downloads them into the cache.

Interrupted downloads are resumed, also by later processes, and every file is checked against its digest.
Errors say what to do and which page to visit.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from kontext.checkpoint.hub import cache
from kontext.errors import BadCheckpoint, BadRequest, KontextError, NoSpace, NotFound, Unavailable
from kontext.version import __version__

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**20
CONNECT_SECONDS = 10.0
_NETWORK_LIBRARIES = ("httpx", "httpx2", "httpcore", "requests", "urllib3")
PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry without progress."""

OnBytes = Callable[[int], None]
"""Called with the number of bytes downloaded so far."""
OnNote = Callable[[str], None]
"""Called with the reason for a delay."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository on the hub."""

    repo: str
    path: str
    revision: str | None
    commit: str
    etag: str
    """sha256 of the file, or sha1 of its git blob."""
    size: int
    url: str

    @property
    def blob(self) -> Path:
        return cache.repo_folder(self.repo) / "blobs" / self.etag

    @property
    def partial(self) -> Path:
        return self.blob.with_name(f"{self.etag}.incomplete")

    @property
    def lock(self) -> Path:
        """The lock that `huggingface_hub` holds while it downloads the file."""
        folder = cache.cache_folder() / ".locks" / cache.repo_folder(self.repo).name
        return folder / f"{self.etag}.lock"

    @property
    def missing_bytes(self) -> int:
        """Bytes still to be downloaded."""
        if self.blob.exists():
            return 0
        try:
            return max(0, self.size - self.partial.stat().st_size)
        except OSError:
            return self.size


def repo_paths(repo: str, revision: str | None) -> list[str]:
    """The files of a repository. Raises NotFound, Unavailable."""
    with explained_errors(repo):
        from huggingface_hub import HfApi

        info = HfApi(endpoint=cache.endpoint()).model_info(repo, revision=revision, timeout=CONNECT_SECONDS)
        return [sibling.rfilename for sibling in info.siblings or ()]


def find(repo: str, path: str, revision: str | None) -> RemoteFile:
    """Metadata of a file. Raises NotFound, Unavailable, also if access must be requested first."""
    with explained_errors(repo):
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        base = cache.endpoint()
        url = hf_hub_url(repo, path, revision=revision, endpoint=base)
        found = get_hf_file_metadata(url, timeout=CONNECT_SECONDS, headers=_headers(), endpoint=base)
    if not found.etag or not found.commit_hash or found.size is None:
        raise Unavailable(f"{base} is not a model hub; check HF_ENDPOINT")
    if not re.fullmatch(r"[0-9A-Za-z._-]+", found.etag) or found.etag.startswith("."):
        raise Unavailable(f"{base} names {path} of {repo} in an impossible way; check HF_ENDPOINT")
    cache.pointer_path(repo, found.commit_hash, path)
    return RemoteFile(
        repo, path, revision, found.commit_hash, found.etag, found.size, urljoin(url, found.location)
    )


def download(file: RemoteFile, on_bytes: OnBytes = lambda _: None, on_note: OnNote = log.warning) -> Path:
    """The cached file; missing bytes are downloaded.

    Raises NoSpace, Unavailable (the partial download is kept), BadCheckpoint for a wrong digest.
    """
    file.blob.parent.mkdir(parents=True, exist_ok=True)
    with lock(file.lock, f"another process is downloading {file.path}; waiting", on_note):
        if not file.blob.exists():
            _download(file, on_bytes, on_note)
    on_bytes(file.size)
    return cache.place(file.repo, file.revision, file.commit, file.path, file.blob)


def _download(file: RemoteFile, on_bytes: OnBytes, on_note: OnNote) -> None:
    import httpx  # not needed for what is here already

    failures = 0
    while True:
        before = file.missing_bytes
        try:
            digest = _continue(file, on_bytes)
            break
        except (httpx.TransportError, _Retry) as error:
            failures = 0 if file.missing_bytes < before else failures + 1
            if failures > len(PAUSES):
                raise _interrupted(file, error) from None
            on_note(f"retrying {file.path}: {_reason(error)}")
            time.sleep(PAUSES[max(0, failures - 1)])
            with contextlib.suppress(Unavailable):  # addresses of storage are valid for some time only
                file = _moved(file)
    if file.partial.stat().st_size != file.size or digest != file.etag:
        file.partial.unlink()
        raise BadCheckpoint(
            f"{file.path} of {file.repo} failed its checksum and was deleted; run the command again"
        )
    os.replace(file.partial, file.blob)


def _moved(file: RemoteFile) -> RemoteFile:
    now = find(file.repo, file.path, file.revision)
    return now if now.etag == file.etag else file


class _Retry(Exception):
    """A response after which the request is retried."""


def _continue(file: RemoteFile, on_bytes: OnBytes) -> str:
    """Download what is missing; returns the digest of the whole file, in the form of the etag."""
    try:
        with open(file.partial, "ab+") as out:
            digest = _new_digest(file)
            here = _read_again(out, file, digest)
            on_bytes(here)
            if here < file.size:
                with _stream(file, here) as (start, pieces):
                    if start != here:  # a server that sends only whole files
                        out.truncate(0)
                        digest, here = _new_digest(file), 0
                    for piece in pieces:
                        out.write(piece)
                        digest.update(piece)
                        here += len(piece)
                        on_bytes(here)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        file.partial.unlink(missing_ok=True)
        raise NoSpace(
            f"no space left in {cache.cache_folder()} for {file.path} ({gigabytes(file.size)}); the partial "
            "download was deleted; free some space, or set HF_HOME to a folder on another disk"
        ) from None
    if here < file.size:
        raise _Retry("the connection was closed early")
    return digest.hexdigest()


def _new_digest(file: RemoteFile) -> Any:
    return hashlib.sha256() if len(file.etag) == 64 else hashlib.sha1(f"blob {file.size}\0".encode())


def _read_again(out: Any, file: RemoteFile, digest: Any) -> int:
    """Hash the partial download; returns its size."""
    if out.seek(0, os.SEEK_END) > file.size:
        out.truncate(0)
    out.seek(0)
    here = 0
    while piece := out.read(CHUNK_BYTES):
        digest.update(piece)
        here += len(piece)
    return here


@contextlib.contextmanager
def _stream(file: RemoteFile, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The bytes of a file from `start` on, or from the beginning: (first byte, pieces).

    Raises httpx.TransportError, _Retry, Unavailable.
    """
    headers = {"accept-encoding": "identity"}
    host = urlsplit(file.url).netloc
    if host == urlsplit(cache.endpoint()).netloc:
        headers |= _headers()
    if start:
        headers["range"] = f"bytes={start}-"
    import httpx

    seconds = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or 30)
    timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
    with (
        httpx.Client(timeout=timeout, follow_redirects=True) as client,
        client.stream("GET", file.url, headers=headers) as answer,
    ):
        if answer.status_code in (403, 408, 416, 425, 429) or answer.status_code >= 500:
            raise _Retry(f"{host} answered {answer.status_code}")
        if answer.status_code not in (200, 206):
            raise Unavailable(f"{file.path} of {file.repo}: {host} answered {answer.status_code}")
        if answer.status_code == 200:
            start = 0
        elif not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
            raise _Retry("another part of the file was sent than was asked for")
        yield start, answer.iter_raw()  # as it arrives: what is buffered would be lost


def _headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers(library_name="openkontext", library_version=__version__)


@contextlib.contextmanager
def lock(path: Path, waiting: str, on_note: OnNote = log.warning) -> Iterator[None]:
    """Hold a lock among processes and threads; `waiting` is called if it is taken."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_note(waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _reason(error: Exception) -> str:
    if "Timeout" in type(error).__name__:
        return "the server stopped sending"
    return str(error) or type(error).__name__


def _interrupted(file: RemoteFile, error: Exception) -> Unavailable:
    here = file.size - file.missing_bytes
    return Unavailable(
        f"the download of {file.path} from {file.repo} failed ({_reason(error)}); {gigabytes(here)} of "
        f"{gigabytes(file.size)} are kept, run the command again to resume"
    )


@contextlib.contextmanager
def explained_errors(repo: str) -> Iterator[None]:
    """Convert errors of `huggingface_hub` and the network."""
    if cache.is_offline():
        raise Unavailable(
            f"{repo} is not completely in the cache, and HF_HUB_OFFLINE is set; unset it to download the rest"
        )
    try:
        yield
    except KontextError:
        raise
    except ImportError as error:
        if error.name != "huggingface_hub":
            raise
        raise BadRequest("downloading models needs huggingface_hub: pip install huggingface_hub") from None
    except Exception as error:  # of several libraries, which differ between versions of huggingface_hub
        explained = _explained(repo, error)
        if explained is None:
            raise
        raise explained from None


def _explained(repo: str, error: Exception) -> KontextError | None:
    from huggingface_hub import errors, get_token

    base = cache.endpoint()
    page, status = f"{base}/{repo}", getattr(getattr(error, "response", None), "status_code", None)
    login = "log in with: hf auth login (or set HF_TOKEN)"
    if isinstance(error, errors.GatedRepoError):
        then = "your token has no access yet" if get_token() else f"then {login}"
        return Unavailable(f"{repo} is gated: accept its license at {page}; {then}")
    if status == 401 and get_token():
        return Unavailable(f"{base} rejects your token; {login}")
    if isinstance(error, errors.RepositoryNotFoundError):
        private = "" if get_token() else f"; if it is private, {login}"
        return NotFound(f"no repository {repo} at {base}{private}")
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFound(f"{repo} has no such revision; see {page}")
    if isinstance(error, errors.EntryNotFoundError):
        return NotFound(f"{repo} lacks a file that is needed ({_line(error)}); see {page}")
    if isinstance(error, errors.HFValidationError):
        return NotFound(f"{repo} is not a valid repository name")
    if status is not None:
        return Unavailable(f"{base} answered {status} for {repo}; try again later")
    if type(error).__module__.partition(".")[0] in _NETWORK_LIBRARIES or isinstance(
        error, ConnectionError | TimeoutError
    ):
        return Unavailable(f"{base} cannot be reached ({_line(error)}); check the network, or HF_ENDPOINT")
    if isinstance(error, errors.HfHubHTTPError | errors.FileMetadataError | ValueError):
        return Unavailable(f"{base} is not a model hub; check HF_ENDPOINT ({_line(error)})")
    return None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__


def gigabytes(count: float) -> str:
    """A number of bytes with its unit."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
