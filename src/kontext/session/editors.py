"""What sessions need of an editor and of its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from PIL import Image


class ResultLike(Protocol):
    """A finished picture and how it was made: a `Result` of the editor."""

    @property
    def picture(self) -> Image.Image: ...
    @property
    def prompt(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def guidance(self) -> float: ...
    @property
    def model(self) -> str: ...
    @property
    def settings(self) -> Mapping[str, object]: ...


class SessionEditor(Protocol):
    """What a session needs of an editor: `edit(picture, prompt, **settings)`.

    `generate` and `variants` are used if it has them.
    """

    @property
    def edit(self) -> Callable[..., ResultLike]: ...
