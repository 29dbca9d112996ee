"""Provenance: the edit history of a picture, embedded in its file and read back when the file is opened.

A PNG has three texts: `kontext`, the chain of turns as JSON (version 1 below); `parameters`, the last turn in
the AUTOMATIC1111 format, which most gallery programs read; and an XMP packet with the IPTC digital source
type, which marks the picture as AI-generated. JPEG and WebP have the last two. Metadata of input files is
never copied. Embedded data is untrusted and validated strictly: exact keys, exact types, bounded sizes.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from PIL import Image

from kontext import pictures
from kontext.errors import BadPicture
from kontext.loras import SCALES
from kontext.loras import parse as parse_loras
from kontext.options import MAX_LORAS, Option, offered
from kontext.pictures.formats import HISTORY_KEY
from kontext.session import rules
from kontext.session.editors import ResultLike
from kontext.session.pixels import digest
from kontext.session.tree import KINDS, Turn
from kontext.version import __version__

PARAMETERS, XMP = "parameters", "XML:com.adobe.xmp"
VERSION = 1
MAX_TURNS, MAX_PROMPT, MAX_CHUNK_BYTES = 1000, 10_000, 4 << 20
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
PNG = b"\x89PNG\r\n\x1a\n"


def _are_loras(value: Any) -> bool:
    """Whether a value of a file is a list of LoRAs without paths."""
    lora = rules.only({"name": rules.text(200), "scale": rules.between(*SCALES), "sha256": rules.SHA256})
    return (
        type(value) is list
        and len(value) <= MAX_LORAS
        and all(lora(item) and "name" in item for item in value)
    )


def _rule(option: Option) -> rules.Rule:
    """What a value of an option in a file must be."""
    if option.name == "size":
        return lambda value: rules.text(32)(value) or rules.pixels(2)(value)
    if option.name == "expand":
        return lambda value: rules.text(32)(value) or rules.pixels(4)(value)
    if option.type == "loras":
        return _are_loras
    if option.type == "integer":
        return rules.whole_number(*option.whole_range)
    if option.type == "number":
        return rules.between(*option.range)
    if option.type == "choice":
        return lambda value: value in option.choices
    return {"box": rules.pixels(4), "boolean": rules.flag, "text": rules.text(MAX_PROMPT)}[option.type]


# The settings embedded in a file; their values are passed to `Editor.edit` when a turn is repeated.
SETTINGS: dict[str, rules.Rule] = {option.name: _rule(option) for option in offered("provenance")}

RULES: dict[str, rules.Rule] = {
    "id": rules.matching("[0-9a-f]{1,64}"),
    "parent": rules.maybe(rules.matching("[0-9a-f]{1,64}")),
    "kind": lambda value: value in KINDS,
    "prompt": rules.text(MAX_PROMPT),
    "seed": rules.maybe(rules.whole_number(0, 2**63 - 1)),
    "steps": rules.maybe(SETTINGS["steps"]),
    "guidance": rules.maybe(rules.number),
    "size": rules.pixels(2, low=1),
    "model": rules.maybe(rules.text(200)),
    "fingerprint": rules.maybe(rules.SHA256),
    "pixels": rules.SHA256,
    "settings": rules.only(SETTINGS),
}


@dataclass(frozen=True)
class HistoryEntry:
    """One turn of an embedded history."""

    id: str
    parent: str | None
    kind: str
    """source, generate or edit."""
    prompt: str
    seed: int | None
    steps: int | None
    guidance: float | None
    size: list[int]
    """[width, height] of the turn's picture."""
    model: str | None
    fingerprint: str | None
    """sha256 of the weights."""
    pixels: str
    """Digest of the turn's picture (`pixels.digest`)."""
    settings: dict[str, object] = field(default_factory=dict)


def chain_of(turns: Iterable[Turn]) -> list[HistoryEntry]:
    """History entries of the path from the first picture to a turn (`Session.history`, `Tree.path`)."""
    return [
        HistoryEntry(
            id=turn.id,
            parent=turn.parent_id,
            kind=turn.kind,
            prompt=turn.prompt,
            seed=turn.seed,
            steps=turn.result_info.get("steps"),
            guidance=turn.result_info.get("guidance"),
            model=turn.result_info.get("model"),
            fingerprint=turn.result_info.get("fingerprint"),
            size=list(turn.size),
            pixels=turn.pixels,
            settings=embeddable(turn.settings),
        )
        for turn in turns
    ]


def extend_history(source: pictures.PictureLike | None, result: ResultLike) -> list[HistoryEntry]:
    """The history of a Result created outside a session.

    `source` is the edited picture, None for a generated one. If it comes from a PNG with a history that
    matches its pixels, that history is extended. Raises NotFound, BadPicture.
    """
    chain = []
    if source is not None:
        picture = pictures.load(source)
        chain = _valid_chain(picture) or [_entry("0", None, "source", picture.as_given)]
    values = {key: getattr(result, key) for key in ("prompt", "seed", "steps", "guidance", "model")}
    values["fingerprint"] = result.settings.get("fingerprint")
    values["settings"] = embeddable(result.settings)
    name = hashlib.sha256("".join(entry.id for entry in chain).encode()).hexdigest()[:16]
    kind = "edit" if chain else "generate"
    return [*chain, _entry(name, chain[-1].id if chain else None, kind, result.picture, **values)]


def _entry(name: str, parent: str | None, kind: str, picture: Image.Image, **values: Any) -> HistoryEntry:
    picture = pictures.load(picture).as_given
    empty: dict[str, Any] = dict(
        prompt="", seed=None, steps=None, guidance=None, model=None, fingerprint=None
    )
    own: dict[str, Any] = dict(size=list(picture.size), pixels=digest(picture))
    return HistoryEntry(id=name, parent=parent, kind=kind, **{**empty, **values}, **own)


def _valid_chain(picture: pictures.Picture) -> list[HistoryEntry]:
    if picture.history is None:
        return []
    try:
        chain = read_chain(picture.history)
    except BadPicture:  # a foreign text under the `kontext` key: treat it as a picture without history
        return []
    return chain if chain and chain[-1].pixels == digest(picture.as_given) else []


def embeddable(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings of an edit that a file carries; LoRAs without their paths."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    if loras := parse_loras(plain.pop("loras", None)):
        plain["loras"] = [lora.embedded() for lora in loras]
    return {key: value for key, value in plain.items() if key in SETTINGS and SETTINGS[key](value)}


# Writing


def texts(chain: Sequence[HistoryEntry]) -> dict[str, str]:
    """The texts to embed in a file, by PNG keyword."""
    found = {HISTORY_KEY: _document(chain)}
    if chain[-1].kind != "source":
        found |= {PARAMETERS: parameters(chain[-1]), XMP: xmp(chain)}
    return found


def _document(chain: Sequence[HistoryEntry]) -> str:
    """The chain as JSON; a chain that exceeds the reader's limits is cut to its newest turns."""
    document = {"format": "kontext-chain", "version": VERSION, "software": f"openkontext {__version__}"}
    turns = [asdict(entry) for entry in chain]
    while True:
        text = json.dumps(
            {**document, "turns": turns}, ensure_ascii=False, separators=(",", ":"), allow_nan=False
        )
        if len(turns) <= MAX_TURNS and len(text.encode()) <= MAX_CHUNK_BYTES:
            return text
        turns = turns[max(1, len(turns) // 4) :]
        turns[0] = {**turns[0], "kind": "source", "parent": None, "prompt": ""}


def encode(picture: Image.Image, chain: Sequence[HistoryEntry] = (), format: str = "PNG") -> bytes:
    """Encode a picture with its provenance; an empty chain writes no metadata."""
    return pictures.encode(picture, format, texts(chain) if chain else None)


def parameters(entry: HistoryEntry) -> str:
    """A turn in the AUTOMATIC1111 format: the prompt, a negative prompt, then one line of settings."""
    settings = entry.settings
    sampler = {"ab2": "AB2", "midpoint": "Midpoint"}.get(str(settings.get("sampler")), "Euler")
    values: dict[str, object] = {
        "Steps": entry.steps,
        "Sampler": sampler,
        "CFG scale": entry.guidance,
        "Seed": entry.seed,
    }
    values |= {
        "Denoising strength": settings.get("strength"),
        "Size": f"{entry.size[0]}x{entry.size[1]}",
        "Model hash": (entry.fingerprint or "")[:10] or None,
    }
    values |= {
        "Model": re.sub(r"[,:\n]", " ", entry.model) if entry.model else None,
        "Version": f"openkontext {__version__}",
    }
    line = ", ".join(f"{key}: {value}" for key, value in values.items() if value is not None)
    lines = [" ".join(entry.prompt.split()), line]
    if negative := settings.get("negative_prompt"):
        lines.insert(1, f"Negative prompt: {' '.join(str(negative).split())}")
    return "\n".join(lines)


def source_type(chain: Sequence[HistoryEntry]) -> str:
    """The IPTC digital source type: fully generated, or an input picture edited by a model."""
    kind = (
        "trainedAlgorithmicMedia" if chain[0].kind == "generate" else "compositeWithTrainedAlgorithmicMedia"
    )
    return SOURCE_TYPE + kind


def xmp(chain: Sequence[HistoryEntry]) -> str:
    """An XMP packet with the digital source type and the program's name."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'xmp:CreatorTool="openkontext {__version__}" Iptc4xmpExt:DigitalSourceType="{source_type(chain)}"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


# Reading


def read_chain(source: str | Path | bytes) -> list[HistoryEntry]:
    """The embedded history of a PNG; empty for a file without one. Raises NotFound, BadPicture.

    The history is only a claim; compare `chain[-1].pixels` with `pixels.digest` of the picture to check that
    it belongs to these pixels.
    """
    data = source if isinstance(source, bytes) else pictures.read_file(Path(source))
    found = list(_histories(data))
    if len(found) > 1:
        raise BadPicture(f"a PNG must have at most one `kontext` history, got {len(found)}")
    return parse_chain(found[0]) if found else []


def parse_chain(text: bytes | str) -> list[HistoryEntry]:
    """Parse history JSON of version 1. Raises BadPicture for anything that `texts` would not write."""
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadPicture(f"a `kontext` history that is not JSON ({str(error)[:80]})") from None
    if type(document) is not dict or document.get("format") != "kontext-chain":
        raise BadPicture("a `kontext` text that is not a history of turns")
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        raise BadPicture(f"a history of version {version!r:.20}; this release reads {VERSION}")
    turns = document.get("turns")
    if set(document) != {"format", "version", "software", "turns"} or not rules.text(200)(
        document["software"]
    ):
        raise BadPicture("a history with keys that version 1 does not have")
    if type(turns) is not list or not 1 <= len(turns) <= MAX_TURNS:
        raise BadPicture(f"a history must have 1 to {MAX_TURNS} turns")
    chain = [_parse_entry(number, turn) for number, turn in enumerate(turns)]
    if len({entry.id for entry in chain}) < len(chain):
        raise BadPicture("a history in which two turns have the same id")
    for number, entry in enumerate(chain):
        expected = chain[number - 1].id if number else None
        if entry.parent != expected or (entry.kind == "edit") != bool(number):
            raise BadPicture(f"a history whose turn {number} does not follow from the previous turn")
    return chain


def _parse_entry(number: int, turn: object) -> HistoryEntry:
    keys = {option.name for option in fields(HistoryEntry)}
    if type(turn) is not dict or set(turn) != keys:
        raise BadPicture(
            f"turn {number} of a history does not have exactly the keys {', '.join(sorted(keys))}"
        )
    wrong = [key for key, rule in RULES.items() if not rule(turn[key])]
    if wrong:
        raise BadPicture(
            f"turn {number} of a history has an invalid {wrong[0]}: {str(turn[wrong[0]])[:60]!r}"
        )
    return HistoryEntry(**turn)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _histories(data: bytes) -> Iterable[bytes]:
    """The texts under our keyword in a PNG, checksums verified, decompressed within bounds."""
    if not data.startswith(PNG):
        return
    at = len(PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) < length or at + 12 + length > len(data):
            raise BadPicture("a truncated PNG")
        if kind == b"iTXt" and body.startswith(HISTORY_KEY.encode() + b"\0"):
            if zlib.crc32(kind + body) != struct.unpack_from(">I", data, at + 8 + length)[0]:
                raise BadPicture("a PNG whose `kontext` history is damaged (its checksum is wrong)")
            yield _itxt(body)
        at += 12 + length


def _itxt(body: bytes) -> bytes:
    """keyword 0 compressed method language 0 translated 0 text (PNG specification, section 11.3.3.4)."""
    try:
        _, rest = body.split(b"\0", 1)
        compressed, method = rest[0], rest[1]
        _, _, text = rest[2:].split(b"\0", 2)
    except (ValueError, IndexError):
        raise BadPicture("a PNG whose `kontext` history is malformed") from None
    if compressed:
        inflate = zlib.decompressobj()
        try:
            text = inflate.decompress(text, MAX_CHUNK_BYTES + 1) if method == 0 else b""
        except zlib.error:
            raise BadPicture("a PNG whose `kontext` history is damaged") from None
    if len(text) > MAX_CHUNK_BYTES:
        raise BadPicture(f"a PNG whose `kontext` history is larger than {MAX_CHUNK_BYTES >> 20} MiB")
    return text
