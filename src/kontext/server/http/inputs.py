"""Input pictures: bytes, base64, data URLs and URLs become lossless, upright blobs without metadata."""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import hashlib
import io
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from PIL import Image

from kontext import pictures
from kontext.errors import BadPicture
from kontext.server import fetching
from kontext.server.errors import ModerationBlocked, TooLarge
from kontext.server.service.service import Service
from kontext.session.pixels import to_png

DATA_HEAD = 1000  # maximum length of a data URL before its comma
SCHEME = 32  # maximum length of a URL scheme
REMEMBERED = 256
"""Recently stored inputs, found again by their bytes: many prompts for one picture are common."""


@dataclass(frozen=True)
class StoredPicture:
    """A picture in the store."""

    sha256: str
    size: tuple[int, int]
    warnings: tuple[str, ...] = ()


class Inputs:
    """Stores input pictures for all routes."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.owner = ""
        self.decoders = service.decoders
        self._known: OrderedDict[tuple, StoredPicture] = OrderedDict()

    def of(self, owner: str) -> Inputs:
        """A copy bound to a key, whose storage is counted."""
        bound = copy.copy(self)
        bound.owner = owner
        return bound

    async def keep(
        self, data: bytes, name: str = "the picture", *, tolerance: int = 2, mask: bool = False
    ) -> StoredPicture:
        """Decode and store a picture. `mask`: transparent pixels mean "may change" and become white.

        Raises BadPicture, TooLarge, ModerationBlocked, QueueFull, QuotaFull.
        """
        quotas = self.service.quotas
        await asyncio.to_thread(quotas.check, self.owner)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).digest())
        key = (digest, name, tolerance, mask)
        stored = self._known.pop(key, None)
        if stored is None or not self.service.store.blobs.touch(stored.sha256):
            pixels = await asyncio.to_thread(self.pixels, data, name)
            self.decoders.check_capacity(pixels)
            stored = await self.decoders.run(pixels, self._keep, data, name, tolerance, mask)
            await asyncio.to_thread(quotas.add, self.owner, stored.sha256)
        self._known[key] = stored
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return stored

    def pixels(self, data: bytes, name: str) -> int:
        """Number of pixels by the file header; 0 if unreadable, which the loader reports later.

        Raises TooLarge.
        """
        limit = self.service.settings.picture_pixels
        try:
            with Image.open(io.BytesIO(data), formats=pictures.READABLE) as image:
                width, height = image.size
        except Exception:
            return 0
        if width * height > limit:
            raise TooLarge(f"{name} must have at most {limit / 1e6:.0f} million pixels, got {width}x{height}")
        return width * height

    def _keep(self, data: bytes, name: str, tolerance: int, mask: bool) -> StoredPicture:
        picture = pictures.load(data, name)
        if reason := self.service.moderator.input(picture.opaque_rgb, tolerance):
            raise ModerationBlocked(reason)
        pixels_given = picture.as_given
        if mask:
            pixels_given = (
                Image.eval(picture.alpha, lambda alpha: 255 - alpha)
                if picture.alpha
                else picture.rgb.convert("L")
            )
        return StoredPicture(
            self.service.store.blobs.put(to_png(pixels_given)), picture.size, picture.warnings
        )

    async def read(self, text: str, name: str) -> bytes:
        """The bytes of base64, a data URL or a URL. Raises BadPicture, BadRequest."""
        text = text.strip()
        if ":" in text[:SCHEME] and text[:5].lower() != "data:":
            return await self.fetch(text)
        try:
            data = await asyncio.to_thread(_decoded, text)
        except (binascii.Error, ValueError):
            raise BadPicture(f"{name}: neither base64 nor a data URL of a picture") from None
        if not data:
            raise BadPicture(f"{name}: it is empty")
        return data

    async def fetch(self, url: str) -> bytes:
        """Fetch a picture by URL if the operator allows it. Raises BadRequest."""
        settings = self.service.settings
        return await fetching.fetch(
            url,
            limit_bytes=settings.body_bytes,
            seconds=settings.fetch_seconds,
            private=settings.private_addresses,
            hosts=settings.picture_hosts,
            public=settings.fetch_urls,
        )


def _decoded(text: str) -> bytes:
    """The bytes of base64 (standard or URL alphabet, with or without padding) or of a data URL (RFC 2397).

    The media type of a data URL is ignored; the format is detected from the bytes. Raises ValueError.
    """
    encoded = True
    if text[:5].lower() == "data:":
        comma = text.find(",", 5, DATA_HEAD)
        if comma < 0:
            raise ValueError("a data URL needs a comma")
        encoded = text[5:comma].replace(" ", "").lower().endswith(";base64")
        text = text[comma + 1 :]
        if not encoded or "%" in text:
            data = unquote_to_bytes(text)
            if not encoded:
                return data
            text = data.decode("ascii")
    bare = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
