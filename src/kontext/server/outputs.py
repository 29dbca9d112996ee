"""Finished pictures of routes without sessions, as files with their provenance, and the URLs that lead to
them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import Any

import sqlalchemy as sql

from kontext.engine.requests import Result
from kontext.server.queue import Job
from kontext.server.schema import secrets as secret_table
from kontext.session import Store, provenance
from kontext.session.signing import Identity, sign_result

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def encoded(store: Store, job: Job, result: Result, identity: Identity | None = None) -> dict[str, Any]:
    """Keep the file of a result, signed where there is an identity; what the job row remembers of it."""
    given = job.request["pictures"].get("picture")
    source = store.blobs.get(given[0]) if given else None
    form = FORMATS[job.request["output"]["format"]]
    if identity is not None and form == "PNG":
        data = sign_result(result, source, identity)
    else:
        data = provenance.encode(result.picture, provenance.continued(source, result), form)
    return {
        "picture": store.blobs.put(data),
        "seed": str(
            job.request["output"].get("seed", result.seed)
        ),  # text: it may be larger than JSON numbers carry
        "size": list(result.size),
        "seconds": result.seconds.get("total"),
        "warnings": list(result.warnings),
    }


def server_secret(store: Store, name: str = "sample") -> bytes:
    """A random secret that all servers of one database share."""
    with store.writing() as db:
        value = db.scalar(sql.select(secret_table.c.value).where(secret_table.c.name == name))
        if value is None:
            value = secrets.token_hex(32)
            db.execute(secret_table.insert().values(name=name, value=value))
    return bytes.fromhex(value)


def signature(secret: bytes, job_id: str, expires: int) -> str:
    return hmac.new(secret, f"{job_id}:{expires}".encode(), hashlib.sha256).hexdigest()


def sample_path(secret: bytes, job: Job, seconds: float) -> str:
    """Path and query of a sample that is good for `seconds`."""
    expires = int(time.time() + seconds)
    ending = job.request["output"]["format"]
    return f"/v1/samples/{job.id}.{ending}?expires={expires}&signature={signature(secret, job.id, expires)}"


def check_sample(secret: bytes, job_id: str, expires: int, given: str) -> str | None:
    """None, or why the URL is not good."""
    if not hmac.compare_digest(signature(secret, job_id, expires).encode(), given.encode("utf-8", "replace")):
        return "the signature of this URL does not fit; take it from get_result as it is"
    if expires < time.time():
        return "this URL has expired; ask get_result for a new one"
    return None
