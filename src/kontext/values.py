"""Checks of single values: numbers, flags and choices."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsFloat, SupportsIndex

import numpy as np

from kontext.errors import BadRequest


def whole_number(name: str, value: object, low: int, high: int) -> int:
    """A whole number as int. Raises BadRequest if it is not one or outside of low to high."""
    try:
        if is_bool(value) or not isinstance(value, SupportsIndex):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise BadRequest(f"{name} must be a whole number, {low} to {high}, got {short_repr(value)}") from None
    if not low <= number <= high:
        raise BadRequest(f"{name} must be {low} to {high}, got {short_repr(number)}")
    return number


def real_number(name: str, value: object, low: float, high: float) -> float:
    """A finite number as float. Raises BadRequest if it is not one or outside of low to high."""
    try:
        if is_bool(value) or not isinstance(value, SupportsFloat | SupportsIndex):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise BadRequest(f"{name} must be a number, {low:g} to {high:g}, got {short_repr(value)}") from None
    if not low <= number <= high:  # false for NaN
        raise BadRequest(f"{name} must be {low:g} to {high:g}, got {number:g}")
    return number


def one_of(name: str, value: object, choices: Sequence[str]) -> str:
    """One of the choices. Raises BadRequest."""
    if not isinstance(value, str) or value not in choices:
        raise BadRequest(
            f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, got {short_repr(value)}"
        )
    return str(value)


def flag(name: str, value: object) -> bool:
    """True or False. Raises BadRequest."""
    if not is_bool(value):
        raise BadRequest(f"{name} must be True or False, got {short_repr(value)}")
    return bool(value)


def is_bool(value: object) -> bool:
    return isinstance(value, bool | np.bool_) or str(getattr(value, "dtype", "")).endswith("bool")


def short_repr(value: object) -> str:
    """A value on one short line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an integer of thousands of digits, or a broken __repr__
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
