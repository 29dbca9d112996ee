"""Webhooks for ended jobs: the body of get_result with `task_id`, signed, retried on failure.

Headers: `X-BFL-Timestamp` (seconds) and `X-BFL-Signature: sha256=HEX`, the HMAC-SHA256 of the raw body
under the secret of the request. The secret itself is never sent.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from kontext.errors import BadRequest
from kontext.server import fetching
from kontext.server.jobs.queue import Job
from kontext.server.settings import Settings

log = logging.getLogger(__name__)

ANSWER_BYTES = 65536


def sign(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def deliver(job: Job, task: Mapping[str, Any], settings: Settings) -> bool:
    """Try once to deliver `task` (see `task_view`); returns whether it was accepted."""
    now = int(time.time())
    body = json.dumps({"task_id": job.id, **task, "timestamp": now}).encode()
    headers = {"content-type": "application/json", "user-agent": "openkontext", "x-bfl-timestamp": str(now)}
    if job.webhook_secret:
        headers["x-bfl-signature"] = sign(job.webhook_secret, body)
    try:
        status, _ = await fetching.request(
            "POST",
            job.webhook_url or "",
            headers=headers,
            body=body,
            limit_bytes=ANSWER_BYTES,
            seconds=settings.fetch_seconds,
            private=settings.private_addresses,
            hosts=settings.webhook_hosts,
        )
        if not 200 <= status < 300:
            raise BadRequest(f"the receiver responded with status {status}")
    except BadRequest as error:
        log.warning("webhook of job %s, try %d: %s", job.id, job.webhook_tries + 1, error)
        return False
    return True
