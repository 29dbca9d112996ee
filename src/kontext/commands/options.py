"""Options that several commands share, and the progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from kontext.errors import BadRequest

Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Where to write: .png, .jpg or .webp.", metavar="FILE")
]
Reference = Annotated[
    list[Path] | None,
    typer.Option("--ref", help="Another picture to go by; up to 3 times.", metavar="PICTURE"),
]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same picture.", metavar="N")]
Steps = Annotated[int | None, typer.Option(help="Sampling steps; default: the model's own.", metavar="N")]
Guidance = Annotated[float | None, typer.Option(help="How strictly to follow the prompt.", metavar="G")]
Variants = Annotated[int, typer.Option(help="Several results, of seeds N, N+1, ...", metavar="N")]
Model = Annotated[str, typer.Option(help="nano, or a folder or file with weights.", metavar="NAME|PATH")]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora", help="A LoRA file to merge in, with its strength; several.", metavar="FILE[:SCALE]"
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; default: the best here.", metavar="D")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def parse_box(text: str | None) -> tuple[int, int, int, int] | None:
    """X,Y,W,H as four whole numbers. Raises BadRequest."""
    if text is None:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise BadRequest(
            f"box '{text}' is not understood; give X,Y,W,H in pixels, such as 10,20,64,64"
        ) from None
    return x, y, width, height


@contextmanager
def progress() -> Iterator[Callable | None]:
    """An `on_step` that draws a bar on stderr; None when nobody is looking."""
    if not sys.stderr.isatty():
        yield None
        return

    def draw(text: str) -> None:
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()

    def on_step(step) -> None:
        done = round(24 * step.index / step.steps)
        draw(f"{'━' * done}{'─' * (24 - done)} {step.index}/{step.steps}")

    draw("loading")
    try:
        yield on_step
    finally:
        draw("")
