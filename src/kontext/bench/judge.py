"""Scores of edits by a vision model behind any OpenAI-compatible endpoint.

Three forms: VIEScore (semantic consistency SC and perceptual quality PQ, 0..10, overall O = sqrt(SC * PQ),
each the smaller of two sub-scores), ImgEdit (three scores 1..5, the second and third capped by the first,
averaged), and pairs (which of two results is better, asked in both orders; disagreement is a tie). Judges
differ by 0.2 to 0.4 points between runs, so figures of different judges are not comparable. A
failing judge costs one item its score, never the run.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx
from PIL import Image

VIESCORE = """You see two pictures: first the original, then the result of an editing program that was told:
"{prompt}"
Give four whole numbers from 0 to 10.
done: 0 the instruction was not followed at all, 10 it was followed perfectly.
kept: 0 everything else was changed too, 10 nothing else was changed more than the instruction needs.
natural: 0 the result looks wrong (light, shadow, perspective), 10 it looks like a real, coherent picture.
clean: 0 many artifacts (distortion, blur, extra parts, seams), 10 none.
Answer with one JSON object only: {{"done": n, "kept": n, "natural": n, "clean": n, "why": "one sentence"}}"""

IMGEDIT = """You see two pictures: first the original, then the result of an editing program that was told:
"{prompt}"
Give three whole numbers from 1 (bad) to 5 (perfect).
done: was the instruction followed, completely and without anything unasked?
fit: does the changed part fit in with the rest in style, light and place?
clean: is the result free of artifacts, with all detail that was not to be changed kept?
Answer with one JSON object only: {{"done": n, "fit": n, "clean": n, "why": "one sentence"}}"""

PAIR = """You see three pictures: the original, then result A, then result B of two editing programs told:
"{prompt}"
Which result follows the instruction better while it keeps everything else? Answer with one JSON object only:
{{"better": "A" or "B" or "tie", "why": "one sentence"}}"""


T = TypeVar("T")


class NoScore(Exception):
    """The judge gave no usable answer; the message is one line."""


@dataclass(frozen=True)
class Judge:
    """A vision model behind ``url`` (the part before ``/chat/completions``)."""

    url: str
    model: str
    key: str | None = None
    timeout_seconds: float = 120.0
    tries: int = 3
    pause_seconds: float = 2.0

    @classmethod
    def from_environment(cls, url: str, model: str, **settings: float) -> Judge:
        """The key comes from ``KONTEXT_JUDGE_KEY`` or ``OPENAI_API_KEY``; a local server needs none."""
        key = os.environ.get("KONTEXT_JUDGE_KEY") or os.environ.get("OPENAI_API_KEY")
        return cls(url.rstrip("/"), model, key, **settings)  # type: ignore[arg-type]

    def viescore(self, source: Image.Image, result: Image.Image, prompt: str) -> dict[str, float]:
        """``sc``, ``pq`` and ``overall``, each 0..10. Raises NoScore."""
        parts = self._numbers(VIESCORE, prompt, [source, result], ("done", "kept", "natural", "clean"), 0, 10)
        sc, pq = min(parts["done"], parts["kept"]), min(parts["natural"], parts["clean"])
        return {"sc": sc, "pq": pq, "overall": math.sqrt(sc * pq)}

    def imgedit(self, source: Image.Image, result: Image.Image, prompt: str) -> dict[str, float]:
        """``done``, ``fit``, ``clean`` (these two at most ``done``), mean ``overall``. Raises NoScore."""
        parts = self._numbers(IMGEDIT, prompt, [source, result], ("done", "fit", "clean"), 1, 5)
        capped = {name: min(value, parts["done"]) for name, value in parts.items()}
        return capped | {"overall": sum(capped.values()) / 3}

    def better(self, source: Image.Image, first: Image.Image, second: Image.Image, prompt: str) -> float:
        """1 when the first result wins in both orders, 0 when the second does, else 0.5. Raises NoScore."""
        scores = []
        for pair, names in (((first, second), "AB"), ((second, first), "BA")):
            value = self._ask(PAIR, prompt, [source, *pair], _choice)
            scores.append(0.5 if value == "tie" else float(value == names[0]))
        return scores[0] if scores[0] == scores[1] else 0.5

    def _numbers(
        self, text: str, prompt: str, pictures: list[Image.Image], names: tuple[str, ...], low: int, high: int
    ) -> dict[str, float]:
        def read(answer: dict) -> dict[str, float]:
            values = {name: float(answer[name]) for name in names}
            if not all(low <= v <= high for v in values.values()):
                raise ValueError(f"a score outside {low}..{high}")
            return values

        return self._ask(text, prompt, pictures, read)

    def _ask(self, text: str, prompt: str, pictures: list[Image.Image], read: Callable[[dict], T]) -> T:
        content: list[dict] = [{"type": "text", "text": text.format(prompt=prompt)}]
        content += [{"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in pictures]
        body = {"model": self.model, "temperature": 0, "messages": [{"role": "user", "content": content}]}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        reason = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(self.pause_seconds * attempt)
            try:
                answer = httpx.post(
                    f"{self.url}/chat/completions", json=body, headers=headers, timeout=self.timeout_seconds
                )
                answer.raise_for_status()
                return read(_json_within(answer.json()["choices"][0]["message"]["content"]))
            except httpx.TimeoutException:
                reason = f"no answer within {self.timeout_seconds:g} seconds"
            except httpx.HTTPStatusError as error:
                reason = f"status {error.response.status_code}"
                if error.response.status_code in (400, 401, 403, 404):
                    break  # asking again cannot help
            except httpx.HTTPError as error:
                reason = f"cannot be reached ({type(error).__name__})"
            except (KeyError, IndexError, TypeError, ValueError) as error:
                reason = f"answer not understood ({error})"
        raise NoScore(f"{self.url}: {reason}")


def data_url(picture: Image.Image) -> str:
    """A picture as a PNG data URL."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _json_within(text: str) -> dict:
    """The JSON object in an answer, with or without surrounding prose or a code fence."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    if not found:
        raise ValueError("no JSON object in it")
    value = json.loads(found.group())
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _choice(answer: dict) -> str:
    value = str(answer["better"]).strip()
    if value not in ("A", "B", "tie"):
        raise ValueError(f"'{value[:20]}' is neither A, B nor tie")
    return value
