"""Login tokens of pages: a token refers to a key, expires and is valid for this service only.

A token of a revoked or expired key is rejected like the key.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from kontext.server.auth.keys import Key, Keys
from kontext.server.service.outputs import server_secret

LOGIN_SECONDS = 7 * 86400


class Logins:
    """Tokens "KEY-ID.EXPIRES.SIGNATURE", signed with a secret that all servers of one database share."""

    def __init__(self, keys: Keys) -> None:
        self.keys, self._secret = keys, server_secret(keys.store, "login")

    def token(self, key: Key) -> tuple[str, int]:
        """A token, and the seconds until it expires."""
        now = time.time()
        expires = int(min(now + LOGIN_SECONDS, key.expires or float("inf")))
        name = f"{key.id}.{expires}"
        return f"{name}.{self._sign(name)}", max(1, expires - int(now))

    def key(self, token: str) -> Key | None:
        """The key of a valid token; None otherwise."""
        name, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._sign(name).encode(), signature.encode("utf-8", "replace")):
            return None
        key_id, _, expires = name.partition(".")
        return self.keys.by_id(key_id) if int(expires) > time.time() else None

    def _sign(self, name: str) -> str:
        return hmac.new(self._secret, name.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
