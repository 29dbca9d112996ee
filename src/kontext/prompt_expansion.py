"""Detailed prompts from short ones, by a language model behind any OpenAI-compatible endpoint.

Off unless the user names an endpoint. Nothing but the prompt is sent there, and the key, which is read from
the environment only and appears in no message and no log.
"""

from __future__ import annotations

import json
import os
import re
import time
import unicodedata
from typing import Any
from urllib.parse import urlsplit

from kontext.errors import BadRequest, Unavailable

KEY_VARIABLE = "KONTEXT_PROMPT_KEY"
SHORT_CHARACTERS = 120
"""Longer prompts are used as they are."""
MAX_CHARACTERS = 1000
"""Of an expanded prompt."""
ANSWER_BYTES = 2**18
SECONDS = 20.0

_RULES = (
    "Keep its language, every name and all text in quotation marks. Add no subject and no change that the "
    "request does not imply. Answer with the sentence alone: no quotation marks around it, no explanation."
)
EDIT = (
    "You rewrite short requests to edit a picture for an image editing model. You do not see the picture. "
    "Write one precise instruction of at most 40 words: what changes, how it looks afterwards, and that the "
    "rest stays as it is. " + _RULES
)
GENERATE = (
    "You rewrite short descriptions of pictures for an image generation model. Write one description of at "
    "most 60 words: subject, setting, light, composition and style. " + _RULES
)


class PromptExpander:
    """Asks the endpoint for a longer prompt. Safe to use from several threads.

    url: the part before `/chat/completions`, such as http://localhost:11434/v1. model: its name there; None:
    the first that the endpoint lists. seconds: for the whole answer. Raises BadRequest for a URL that is none
    or that holds a key.
    """

    def __init__(
        self, url: str, model: str | None = None, *, key: str | None = None, seconds: float = SECONDS
    ) -> None:
        self.url, self.model, self.seconds = check_url(url), model, seconds
        self._key = key

    @classmethod
    def from_environment(
        cls, url: str, model: str | None = None, *, seconds: float = SECONDS
    ) -> PromptExpander:
        """With the key in `KONTEXT_PROMPT_KEY`; a local endpoint needs none."""
        return cls(url, model, key=os.environ.get(KEY_VARIABLE) or None, seconds=seconds)

    def expand(self, prompt: str, *, edits: bool) -> str:
        """A detailed prompt for a short one; a long one as it is. `edits`: there is a picture to edit.

        Raises Unavailable when the endpoint gives no usable answer.
        """
        if len(prompt) > SHORT_CHARACTERS:
            return prompt
        messages = [
            {"role": "system", "content": EDIT if edits else GENERATE},
            {"role": "user", "content": prompt},
        ]
        deadline = time.monotonic() + self.seconds
        if self.model is None:
            listed = self._ask("GET", "/models", None, deadline)
            self.model = _text(listed, "data", 0, "id")
            if not self.model:
                raise self._failure("it lists no model; name one")
        body = {"model": self.model, "messages": messages, "stream": False}
        answer = self._ask("POST", "/chat/completions", body, deadline)
        text = _cleaned(_text(answer, "choices", 0, "message", "content") or "")
        if not text:
            raise self._failure("its answer holds no text")
        if len(text) > MAX_CHARACTERS:
            raise self._failure(f"its answer has more than {MAX_CHARACTERS} characters")
        return text

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, deadline: float) -> Any:
        import httpx  # not needed by those who expand nothing

        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        data = b""
        try:
            left = max(0.01, deadline - time.monotonic())
            with (
                httpx.Client(timeout=left, follow_redirects=False) as client,
                client.stream(method, self.url + path, json=body, headers=headers) as answer,
            ):
                if answer.status_code != 200:
                    raise self._failure(f"status {answer.status_code}{_hint(answer.status_code)}")
                for piece in answer.iter_bytes():
                    data += piece
                    if len(data) > ANSWER_BYTES:
                        raise self._failure("its answer is too long")
                    if time.monotonic() > deadline:
                        raise httpx.ReadTimeout("")
            return json.loads(data)
        except httpx.TimeoutException:
            raise self._failure(f"no answer within {self.seconds:g} seconds") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failure(f"it cannot be reached ({type(error).__name__})") from None
        except (ValueError, RecursionError):
            raise self._failure("its answer is not JSON") from None

    def _failure(self, reason: str) -> Unavailable:
        return Unavailable(f"the prompt was not expanded: {self.url}: {reason}")


def check_url(url: str) -> str:
    """A base URL without credentials. Raises BadRequest, which does not repeat it."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or True)
    except ValueError:
        whole = False
        parts = urlsplit("")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadRequest(
            "the URL for expanding prompts must hold no key, query or fragment; put the key in "
            f"{KEY_VARIABLE}"
        )
    if not whole:
        raise BadRequest(
            "the URL for expanding prompts must be like http://localhost:11434/v1, the part before "
            "/chat/completions"
        )
    return url.rstrip("/").removesuffix("/chat/completions")


def _hint(status: int) -> str:
    if status in (401, 403):
        return f"; is the key in {KEY_VARIABLE} right?"
    return "; does the URL end before /chat/completions?" if status == 404 else ""


def _text(answer: Any, *path: str | int) -> str | None:
    """The text at a path of a JSON value, None if there is none."""
    for part in path:
        try:
            answer = answer[part]
        except (KeyError, IndexError, TypeError):
            return None
    return answer if isinstance(answer, str) else None


_QUOTES = {'"': '"', "“": "”", "「": "」", "'": "'", "`": "`"}


def _cleaned(text: str) -> str:
    """One line of text, without thoughts, code fences, quotation marks around it and control characters."""
    text = re.sub(r"<think>.*?(</think>|$)", "", text, flags=re.DOTALL)
    text = re.sub(r"^\s*```\w*\s|```\s*$", "", text)
    text = " ".join(text.split())
    text = "".join(
        character for character in text if unicodedata.category(character) not in ("Cc", "Cs")
    ).strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text
