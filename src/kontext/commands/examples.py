"""`kontext examples [FOLDER]`: example pictures under the names used in the README."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kontext.commands import options
from kontext.terminal import say, say_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)

FILES: dict[str, str] = {
    "kid.png": "library.png",
    "painting.png": "painting.png",
    "catalogue/beach.png": "beach.png",
    "catalogue/cake.png": "cake.png",
    "catalogue/stage.png": "stage.png",
    "catalogue/whale.png": "whale.png",
    **{f"pairs/{name}_before.png": f"{name}.png" for name in ("cake", "stage", "whale")},
    **{f"pairs/{name}_after.png": f"pairs/{name}.png" for name in ("cake", "stage", "whale")},
    **{f"pairs/{name}.txt": "pairs/knit.txt" for name in ("cake", "stage", "whale")},
}
"""The files to write: name -> picture of the package."""


@app.command()
def examples(
    folder: Annotated[
        Path, typer.Argument(help="Output folder, created if missing.", metavar="FOLDER")
    ] = Path("."),
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Write example pictures.

    kid.png, painting.png, the folder catalogue, and the folder pairs to train a LoRA on. Existing
    files with the same content are kept; others are replaced only with --force.
    """
    from importlib.resources import files

    from kontext.errors import BadRequest
    from kontext.pictures import check_regular, write

    source = files("kontext") / "examples"
    contents = {folder / name: (source / file).read_bytes() for name, file in FILES.items()}
    changed = [path for path, data in contents.items() if not (path.is_file() and path.read_bytes() == data)]
    for path in changed:
        check_regular(path)
        if path.exists() and not force:
            raise BadRequest(f"{path}: another file has this name; give another FOLDER, or --force")
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, contents[path], replace=force)
    if as_json:
        say_json({"files": [str(path) for path in contents]})
    else:
        say(*contents, f'Try: kontext edit {folder / "kid.png"} "Make the hair blue"')
