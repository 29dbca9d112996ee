"""Login tokens of pages: a token refers to a key, expires and is valid for this service only.

A token of a revoked or expired key is rejected like the key. A token that was logged out is noted in the
database, so that every server of it rejects a copy, also after a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

import sqlalchemy as sql

from kontext.server.auth.keys import Key, Keys
from kontext.server.jobs.schema import ended_logins
from kontext.server.service.outputs import server_secret

LOGIN_SECONDS = 7 * 86400


class Logins:
    """Tokens "KEY-ID.EXPIRES.RANDOM.SIGNATURE"; all servers of one database share the secret that signs them.

    The random part makes every login a token of its own, which ends alone.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys, self._secret = keys, server_secret(keys.store, "login")

    def token(self, key: Key) -> tuple[str, int]:
        """A token, and the seconds until it expires."""
        now = time.time()
        expires = int(min(now + LOGIN_SECONDS, key.expires or float("inf")))
        name = f"{key.id}.{expires}.{secrets.token_hex(8)}"
        return f"{name}.{self._sign(name)}", max(1, expires - int(now))

    def key(self, token: str) -> Key | None:
        """The key of a valid token; None otherwise."""
        key_id, expires = self._signed(token)
        if expires <= time.time() or self.is_ended(token):
            return None
        return self.keys.by_id(key_id)

    def end(self, token: str) -> None:
        """Reject a token from now on; other tokens of its key stay valid. Invalid ones are ignored."""
        now, expires = time.time(), self._signed(token)[1]
        if expires <= now:
            return
        with self.keys.store.writing() as db:
            db.execute(ended_logins.delete().where(ended_logins.c.expires <= now))
            if not db.scalar(_ended(token)):
                db.execute(ended_logins.insert().values(signature=_signature(token), expires=expires))

    def is_ended(self, token: str) -> bool:
        """Whether a token was logged out, checked in the database."""
        with self.keys.store.reading() as db:
            return db.scalar(_ended(token)) is not None

    def _signed(self, token: str) -> tuple[str, int]:
        """Key id and expiry of a token that was signed here; ("", 0) for any other text."""
        name, signature = token.rpartition(".")[0], _signature(token)
        if not hmac.compare_digest(self._sign(name).encode(), signature.encode("utf-8", "replace")):
            return "", 0
        key_id, expires = name.split(".")[:2]
        return key_id, int(expires)

    def _sign(self, name: str) -> str:
        return hmac.new(self._secret, name.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _signature(token: str) -> str:
    return token.rpartition(".")[2]


def _ended(token: str) -> sql.Select[tuple[float]]:
    return sql.select(ended_logins.c.expires).where(ended_logins.c.signature == _signature(token))
