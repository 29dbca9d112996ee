"""Responses for unknown paths and methods, with a hint at the intended route.

Base URLs are easily misconfigured by a "/v1", a slash or a proxy path, so the response suggests the nearest
known path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route, compile_path

PREFIXES = ("", "/v1", "/api")
SEGMENTS = 12  # path segments that are considered
SHOWN = 80  # characters of a path that are echoed in a response


class Addresses:
    """The paths of an API with their methods."""

    def __init__(self, routes: Iterable[BaseRoute] = ()) -> None:
        self.methods: dict[str, set[str]] = {}
        for route in routes:
            if isinstance(route, Route):
                self.methods.setdefault(route.path, set()).update(route.methods or ())
        self._patterns: Mapping[str, re.Pattern[str]] = {path: compile_path(path)[0] for path in self.methods}

    def allowed(self, path: str) -> set[str]:
        """The methods of a path; empty if it is unknown."""
        return {
            method
            for known, methods in self.methods.items()
            if self._patterns[known].match(path)
            for method in methods
        }

    def nearest(self, path: str) -> str | None:
        """The known path that an unknown one most likely means; None if there is none.

        With or without a prefix, double slashes or leading segments.
        """
        segments = [segment for segment in path.split("/") if segment][:SEGMENTS]
        for start in range(len(segments)):
            for prefix in PREFIXES:
                address = f"{prefix}/{'/'.join(segments[start:])}"
                for candidate in (address, address.lower()):
                    if candidate != path and self._is_meant(candidate):
                        return candidate
        return None

    def _is_meant(self, candidate: str) -> bool:
        """Whether it is a known path; the catch-all /hf/{model} does not count."""
        return any(
            pattern.match(candidate)
            for known, pattern in self._patterns.items()
            if known != "/hf/{model:path}"
        )

    def refusal(self, method: str, path: str) -> HTTPException:
        """405 for a known path, 404 with a hint otherwise."""
        if allowed := self.allowed(path):
            names = ", ".join(sorted(allowed))
            return HTTPException(
                405, f"{method} is not allowed at this address; use {names}", {"allow": names}
            )
        words = f"no such address: {method} {printable(path)}"
        meant = self.nearest(path)
        if meant:
            return HTTPException(
                404, f"{words}; did you mean {printable(meant)}? Check the client's base URL"
            )
        return HTTPException(404, f"{words}; /openapi.json lists all addresses")


def printable(path: str) -> str:
    """A path that is safe to echo to the client."""
    short = path if len(path) <= SHOWN else path[:SHOWN] + "..."
    return "".join(letter if letter.isprintable() else "?" for letter in short)
