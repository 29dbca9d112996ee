"""Regular expressions of `alpha_pattern` and `rank_pattern` in LoRA files, matched as PEFT matches them.

Files are untrusted, and some expressions take exponential time in Python's backtracking matcher. Here the set
of positions that a match can reach is followed through the expression, in polynomial time and with a limit on
the steps. Expressions that need backtracking (look-around, back references, possessive repeats, flags) are
rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

MAX_STEPS = 5_000_000
"""For all names and expressions of a file, about 2 s. `blocks\\.[0-9]+\\..*` takes 300 for a name of FLUX."""
MAX_LENGTH = 1000
"""Maximum length of an expression."""
_CHOICES = frozenset("*+?{|(")
"""Without these, Python's matcher does not backtrack."""

_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    sre.CATEGORY_DIGIT: str.isdecimal,
    sre.CATEGORY_NOT_DIGIT: lambda character: not character.isdecimal(),
    sre.CATEGORY_SPACE: str.isspace,
    sre.CATEGORY_NOT_SPACE: lambda character: not character.isspace(),
    sre.CATEGORY_WORD: lambda character: character.isalnum() or character == "_",
    sre.CATEGORY_NOT_WORD: lambda character: not (character.isalnum() or character == "_"),
}
_BEGINNINGS, _ENDS = (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING), (sre.AT_END, sre.AT_END_STRING)


class Patterns:
    """Values by expression; each matches the end of a module's name, from its start or after a dot."""

    def __init__(self, values: Mapping[str, float] | None = None) -> None:
        """Raises ValueError for an expression that is malformed, too long, or needs backtracking."""
        self._values = [(_compiled(text), value) for text, value in (values or {}).items()]
        self._steps = 0

    def __bool__(self) -> bool:
        return bool(self._values)

    def value_of(self, module: str, default: float | None) -> float | None:
        """The value of the first expression that matches. Raises ValueError after `MAX_STEPS`."""
        for pattern, value in self._values:
            if isinstance(pattern, re.Pattern):
                matches = pattern.match(module) is not None
            else:
                matches = bool(self._ends(pattern, module, {0}))
            if matches:
                return value
        return default

    def _ends(self, nodes: Iterable[tuple[Any, Any]], name: str, starts: set[int]) -> set[int]:
        """Positions where a match of these consecutive nodes can end if it begins at one of `starts`."""
        for kind, value in nodes:
            self._steps += 1 + len(starts)
            if self._steps > MAX_STEPS:
                raise ValueError("its alpha_pattern or rank_pattern takes too long to match")
            if not starts:
                break
            starts = self._ends_of(kind, value, name, starts)
        return starts

    def _ends_of(self, kind: Any, value: Any, name: str, starts: set[int]) -> set[int]:
        if kind is sre.BRANCH:
            return set().union(*(self._ends(nodes, name, starts) for nodes in value[1]))
        if kind is sre.SUBPATTERN:
            return self._ends(value[-1], name, starts)
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            least, most, nodes = value
            return self._repeated(least, most, nodes, name, starts)
        if kind is sre.AT:
            return starts & {0 if value in _BEGINNINGS else len(name)}
        fits = _test(kind, value)
        return {at + 1 for at in starts if at < len(name) and fits(name[at])}

    def _repeated(self, least: int, most: int, nodes: Any, name: str, starts: set[int]) -> set[int]:
        reached, found = starts, set(starts) if least == 0 else set[int]()
        for repeats in count(1):
            if repeats > most or not reached:
                return found
            before, reached = reached, self._ends(nodes, name, reached)
            if repeats >= least or reached == before:  # more repeats reach the same positions
                found |= reached
            if reached == before:
                return found
        raise AssertionError


def _compiled(text: str) -> Any:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"more than {MAX_LENGTH} characters")
    expression = rf"(.*\.)?({text})$"
    try:
        if not _CHOICES & set(text):
            return re.compile(expression)
        nodes = _parser.parse(expression)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
    if nodes.state.flags != re.UNICODE:
        raise ValueError("flags are not supported")
    _check(nodes)
    return nodes


def _check(nodes: Iterable[tuple[Any, Any]]) -> None:
    """Raise ValueError for a node that `Patterns` cannot follow."""
    for kind, value in nodes:
        if kind is sre.BRANCH:
            for alternative in value[1]:
                _check(alternative)
        elif (
            kind is sre.SUBPATTERN
            and not value[1]
            and not value[2]
            or kind in (sre.MAX_REPEAT, sre.MIN_REPEAT)
        ):
            _check(value[-1])
        elif kind is not sre.AT or value not in (*_BEGINNINGS, *_ENDS):
            _test(kind, value)


def _test(kind: Any, value: Any) -> Callable[[str], bool]:
    """Whether one character fits a node. Raises ValueError for a node that is not about one character."""
    if kind is sre.LITERAL:
        return lambda character: ord(character) == value
    if kind is sre.NOT_LITERAL:
        return lambda character: ord(character) != value
    if kind is sre.ANY:
        return lambda character: character != "\n"
    if kind is sre.RANGE:
        return lambda character: value[0] <= ord(character) <= value[1]
    if kind is sre.CATEGORY:
        return _CATEGORIES[value]
    if kind is sre.IN:
        negated = value[0][0] is sre.NEGATE
        tests = [_test(*item) for item in value[negated:]]
        return lambda character: any(test(character) for test in tests) != negated
    raise ValueError(f"{str(kind).lower()} is not supported")
