"""Options of `kontext bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

Number = Annotated[int, typer.Option("--n", min=1, help="Items per category, sessions or runs.")]
Steps = Annotated[
    str | None, typer.Option(help="Such as 1,2,4,8,28; default: the model's own.", metavar="N,...")
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Side of the pictures in pixels: 64, 128 or 256; default: the model's own.", metavar="N"
    ),
]


def _check_new(ctx: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        from kontext.commands.output import check_new

        check_new(path, ctx.meta.get("force", False))
    return path


def _remember(ctx: typer.Context, force: bool) -> bool:
    ctx.meta["force"] = force
    return force


JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the figures here.", metavar="FILE", callback=_check_new)
]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite the file.", is_eager=True, callback=_remember)
]
Report = Annotated[Path | None, typer.Option(help="Write a page with pictures here.", metavar="DIR")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in --report.")]

QUALITY_ROWS = "copy,codec-input,codec-target,random,oracle,model,model+lock"
SESSION_ROWS = "copy,codec,oracle,model,model+lock"
SHORT_ROWS = "copy,codec-target,oracle,model"


def Rows(help: str) -> OptionInfo:  # noqa: N802 (reads as the types above)
    option: OptionInfo = typer.Option("--rows", help=help, metavar="ROW,...")
    return option
