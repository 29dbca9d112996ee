"""A window of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Window:
    """Rows and columns of pixels."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.right, self.bottom

    def grown(self, by: int, height: int, width: int, step: int = 1) -> Window:
        """Extended by `by` pixels on every side, outward to multiples of `step`, within a picture."""
        return Window(
            max(0, (self.top - by) // step * step),
            min(height, -(-(self.bottom + by) // step) * step),
            max(0, (self.left - by) // step * step),
            min(width, -(-(self.right + by) // step) * step),
        )

    def divided(self, by: int) -> Window:
        """The window in units of `by` pixels; its edges must be multiples of `by`."""
        return Window(self.top // by, self.bottom // by, self.left // by, self.right // by)

    def multiplied(self, by: int) -> Window:
        """The window in pixels, from units of `by` pixels."""
        return Window(self.top * by, self.bottom * by, self.left * by, self.right * by)

    def relative_to(self, outer: Window) -> Window:
        """The same pixels, counted from the top left corner of a window around them."""
        return Window(
            self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left
        )

    def of(self, picture: NDArray[T]) -> NDArray[T]:
        """The window of an array (rows, columns, ...)."""
        return picture[self.top : self.bottom, self.left : self.right]
