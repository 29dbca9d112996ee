"""Results of the session-less routes as files with provenance, their signed URLs, and download names."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
import unicodedata
from typing import Any
from urllib.parse import quote

import sqlalchemy as sql

from kontext.engine.requests import Result
from kontext.server.jobs.queue import Job
from kontext.server.jobs.schema import secrets as secret_table
from kontext.session import Store, provenance
from kontext.session.signing import Identity, sign_result

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
NAME_LENGTH = 60  # characters of a download name without number and extension: at most 240 bytes
# Replaced by a hyphen: white space and ASCII characters that are special in shells, file systems or headers.
SEPARATORS = re.compile(r"[\s\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f-]+")
# Controls, surrogates, private use. Of the format characters (Cf) only the two joiners are kept, which emoji
# and some scripts need; others could reverse the rest of the name.
UNNAMED = ("Cc", "Cs", "Co", "Cf", "Zl", "Zp")
JOINERS = "\u200c\u200d"

TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def encoded(store: Store, job: Job, result: Result, identity: Identity | None = None) -> dict[str, Any]:
    """Store the file of a result, signed if there is an identity; returns the `result` column of its job."""
    request = job.request
    source = store.blobs.get(request.picture) if request.picture else None
    form = FORMATS[request.output.format]
    if identity is not None and form == "PNG":
        data = sign_result(result, source, identity)
    else:
        data = provenance.encode(result.picture, provenance.extend_history(source, result), form)
    return {
        "picture": store.blobs.put(data),
        # text: it may exceed the range of JSON numbers
        "seed": str(result.seed if request.output.seed is None else request.output.seed),
        "size": list(result.size),
        "seconds": result.seconds.get("total"),
        "warnings": list(result.warnings),
    }


def disposition(name: str, ending: str, fallback: str, prefix: str = "") -> str:
    """The Content-Disposition (RFC 6266) of a download: `prefix`, the words of `name`, `ending` ("png").

    `filename` is ASCII, or `fallback` if nothing of the name is ASCII; `filename*` (RFC 8187) is added when
    the name has other characters.
    """
    clean = "".join(
        letter
        for letter in unicodedata.normalize("NFC", name)
        if letter in JOINERS or letter.isspace() or unicodedata.category(letter) not in UNNAMED
    )
    stem = SEPARATORS.sub("-", clean).strip("-")[:NAME_LENGTH].rstrip("-" + JOINERS) or fallback
    ascii_letters = unicodedata.normalize("NFKD", clean).encode("ascii", "ignore").decode()
    plain = SEPARATORS.sub("-", ascii_letters).strip("-")[:NAME_LENGTH].rstrip("-") or fallback
    header = f'attachment; filename="{prefix}{plain}.{ending}"'
    if not stem.isascii():
        header += f"; filename*=UTF-8''{quote(f'{prefix}{stem}.{ending}', safe='')}"
    return header


def server_secret(store: Store, name: str = "sample") -> bytes:
    """A random secret shared by all servers of one database."""
    with store.writing() as db:
        value = db.scalar(sql.select(secret_table.c.value).where(secret_table.c.name == name))
        if value is None:
            value = secrets.token_hex(32)
            db.execute(secret_table.insert().values(name=name, value=value))
    return bytes.fromhex(value)


def signature(secret: bytes, job_id: str, expires: int) -> str:
    return hmac.new(secret, f"{job_id}:{expires}".encode(), hashlib.sha256).hexdigest()


def sample_path(secret: bytes, job: Job, seconds: float) -> str:
    """Path and query of a sample URL that is valid for `seconds`."""
    expires = int(time.time() + seconds)
    ending = job.request.output.format
    return f"/v1/samples/{job.id}.{ending}?expires={expires}&signature={signature(secret, job.id, expires)}"


def check_sample(secret: bytes, job_id: str, expires: int, presented: str) -> str | None:
    """None, or the reason why the URL is not valid."""
    if not hmac.compare_digest(
        signature(secret, job_id, expires).encode(), presented.encode("utf-8", "replace")
    ):
        return "the signature of this URL is invalid; use the URL from get_result unchanged"
    if expires < time.time():
        return "this URL has expired; get a new one from get_result"
    return None
