"""`kontext verify PICTURE`: how a picture says it was made, whether its pixels are those it speaks of, and
its signature.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kontext.commands import options

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SIGNATURES = {
    "none": "no signature",
    "trusted": "signature intact, by a certificate trusted here",
    "valid": "signature intact, by a certificate that nobody here vouches for",
    "invalid": "signature BROKEN: the file was changed after it was signed",
    "unread": "signed, but the extra `provenance` that reads signatures is not installed",
}


@app.command()
def verify(
    picture: Annotated[Path, typer.Argument(help="A picture file.", metavar="PICTURE", show_default=False)],
    anchor: Annotated[
        list[Path] | None,
        typer.Option(help="A root certificate (PEM) to trust beside this machine's own.", metavar="FILE"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Tell how a picture was made. Exit code 1 when something does not fit or nothing is told."""
    from kontext.engine import pictures
    from kontext.errors import BadPicture, NotFound
    from kontext.session.pixels import digest
    from kontext.session.provenance import read_chain
    from kontext.session.signing import own_anchors, read_signature

    try:
        data, anchors = picture.read_bytes(), [path.read_bytes() for path in anchor or ()]
    except OSError as error:
        raise NotFound(f"{error.filename}: cannot be read ({error.strerror})") from None
    signature = read_signature(data, [*anchors, *own_anchors()])
    problems, chain, whole = [], [], None
    for read in (lambda: chain.extend(read_chain(data)), lambda: pictures.load(data, str(picture)).whole):
        try:
            whole = read()
        except BadPicture as error:  # a damaged file may still be signed, or say what it was
            problems.append(str(error))
    if whole is None and not chain and signature.state == "none":
        raise BadPicture(problems[0])
    matches = chain[-1].pixels == digest(whole) if chain and whole else None
    told = bool(chain) or signature.state != "none"
    good = told and not problems and matches is not False and signature.state != "invalid"
    if as_json:
        answer = {"picture": str(picture), "good": good, "size": list(whole.size) if whole else None}
        answer |= {"pixels_match": matches, "problems": problems, "turns": [asdict(link) for link in chain]}
        answer |= {"signature": {**asdict(signature), "self_issued": signature.self_issued}}
        typer.echo(json.dumps(answer, ensure_ascii=False))
        raise typer.Exit(0 if good else 1)
    for number, link in enumerate(chain):
        typer.echo(f"{number:4}  " + _line(link))
    if matches is not None:
        typer.echo("pixels: " + ("those of the last turn" if matches else "NOT those of the last turn"))
    for problem in problems:
        typer.echo(f"problem: {problem}")
    signer = f" ({signature.issuer})" if signature.issuer else ""
    typer.echo(f"signature: {SIGNATURES[signature.state]}{signer}")
    for line in signature.problems:
        typer.echo(f"           {line}")
    if not told and not problems:
        typer.echo(
            f"{picture} carries no history and no signature: it does not say how it was made", err=True
        )
    raise typer.Exit(0 if good else 1)


def _line(link) -> str:
    size = f"{link.size[0]}x{link.size[1]}"
    if link.kind == "source":
        return f"a given picture, {size}"
    facts = {"seed": link.seed, "steps": link.steps, "guidance": link.guidance, "model": link.model}
    told = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
    return f"{link.prompt}  [{size}, {told}]"
