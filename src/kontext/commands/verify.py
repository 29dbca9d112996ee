"""`kontext verify PICTURE`: check the history of a picture, its pixels and its signature."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kontext.commands import options
from kontext.loras import parse as parse_loras
from kontext.terminal import say, say_json, say_wrapped

if TYPE_CHECKING:
    from kontext.session.provenance import HistoryEntry

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SIGNATURES = {
    "none": "no signature",
    "trusted": "signature intact, by a certificate trusted here",
    "valid": "signature intact, by a certificate that is not trusted here",
    "invalid": "signature BROKEN: the file was changed after it was signed",
    "unread": "signed, but the extra `provenance` that reads signatures is not installed",
}


@app.command()
def verify(
    picture: Annotated[Path, typer.Argument(help="A picture file.", metavar="PICTURE", show_default=False)],
    anchor: Annotated[
        list[Path] | None,
        typer.Option(help="An additional trusted root certificate (PEM).", metavar="FILE"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show how a picture was made. Exit code 1 if the history is invalid or missing."""
    from kontext import pictures
    from kontext.commands.inputs import check_file_name
    from kontext.errors import BadPicture
    from kontext.session.pixels import digest
    from kontext.session.provenance import read_chain
    from kontext.session.signing import own_anchors, read_signature

    check_file_name(str(picture))
    data, anchors = pictures.read_file(picture), [pictures.read_file(path) for path in anchor or ()]
    signature = read_signature(data, [*anchors, *own_anchors()])
    problems, chain, pixels = [], [], None
    for read in (lambda: chain.extend(read_chain(data)), lambda: pictures.load(data, str(picture)).as_given):
        try:
            pixels = read()
        except BadPicture as error:  # a damaged history may still have a valid signature
            problems.append(str(error))
    if pixels is None and not chain and signature.state == "none":
        raise BadPicture(problems[0])
    matches = chain[-1].pixels == digest(pixels) if chain and pixels else None
    documented = bool(chain) or signature.state != "none"
    good = documented and not problems and matches is not False and signature.state != "invalid"
    if as_json:
        answer = {"picture": str(picture), "good": good, "size": list(pixels.size) if pixels else None}
        answer |= {"pixels_match": matches, "problems": problems, "turns": [asdict(entry) for entry in chain]}
        answer |= {"signature": {**asdict(signature), "self_issued": signature.self_issued}}
        say_json(answer)
        raise typer.Exit(0 if good else 1)
    for number, entry in enumerate(chain):
        say_wrapped(f"{number:4}  " + _line(entry))
    if matches is not None:
        say_wrapped("pixels: " + ("those of the last turn" if matches else "NOT those of the last turn"))
    for problem in problems:
        say_wrapped(f"problem: {problem}")
    signer = f" ({signature.issuer})" if signature.issuer else ""
    say_wrapped(SIGNATURES[signature.state] + signer)
    for line in signature.problems:
        say_wrapped(f"           {line}")
    if not documented and not problems:
        say(f"{picture} has neither a history nor a signature", err=True)
    raise typer.Exit(0 if good else 1)


def _line(entry: HistoryEntry) -> str:
    size = f"{entry.size[0]}x{entry.size[1]}"
    if entry.kind == "source":
        return f"source picture, {size}"
    values = {"seed": entry.seed, "steps": entry.steps, "guidance": entry.guidance, "model": entry.model}
    settings = ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
    for lora in parse_loras(entry.settings.get("loras")):
        settings += f", LoRA {lora.name} at {lora.scale:g}"
    return f"{entry.prompt}  [{size}, {settings}]"
