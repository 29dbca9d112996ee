"""Validation predicates for untrusted data in files."""

import json
import math
import re
from collections.abc import Callable
from typing import TypeGuard

Rule = Callable[[object], bool]


def whole_number(low: int, high: int) -> Rule:
    """An integer from `low` to `high`; booleans are rejected."""
    return lambda value: type(value) is int and low <= value <= high


MAX_INTEGER = 2**63 - 1  # JSON has integers of any length, floats and databases do not
LAST_SECOND = 253402300799  # of the year 9999, the last that calendars here can show


def number(value: object) -> TypeGuard[float]:
    """A finite number; integers of 64 bits."""
    return type(value) is float and math.isfinite(value) or whole_number(-MAX_INTEGER, MAX_INTEGER)(value)


def between(low: float, high: float) -> Rule:
    """A finite number of `low` to `high`."""
    return lambda value: number(value) and low <= value <= high


def flag(value: object) -> bool:
    return type(value) is bool


def pixels(count: int, low: int = 0) -> Rule:
    """A list of `count` positions or lengths in pixels, each at least `low`."""
    return lambda value: (
        type(value) is list and len(value) == count and all(map(whole_number(low, 1 << 20), value))
    )


def text(limit: int) -> Rule:
    """Text of at most `limit` characters without NUL or surrogates, which databases and PNG cannot hold."""
    return lambda value: (
        type(value) is str and len(value) <= limit and not re.search("[\0\ud800-\udfff]", value)
    )


def printable(name: str) -> str:
    """A name from a file, with U+FFFD for control characters, which terminals obey, and for surrogates."""
    return re.sub("[\0-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", name)


def matching(pattern: str) -> Rule:
    return lambda value: type(value) is str and re.fullmatch(pattern, value) is not None


def maybe(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def only(rules: dict[str, Rule]) -> Rule:
    """A dict with a subset of these keys, each value checked by its rule."""
    return lambda value: (
        type(value) is dict and all(key in rules and rules[key](item) for key, item in value.items())
    )


def plain(limit: int) -> Rule:
    """Any JSON value of at most `limit` characters."""

    def rule(value: object) -> bool:
        try:
            return len(json.dumps(value, allow_nan=False)) <= limit
        except (ValueError, RecursionError):
            return False

    return rule


SHA256 = matching("[0-9a-f]{64}")
