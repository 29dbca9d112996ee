"""A session as one file: a zip with `manifest.json` and the pictures as `blobs/SHA256`, uncompressed.

Files are untrusted: names, sizes, checksums, every key of the manifest, the tree structure, and that every
picture matches its turn are validated before anything is written. Only the pixels of a picture are imported:
it is encoded again and stored under the hash of the new file. Names lose their control characters.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from kontext.errors import BadRequest, KontextError, NotFound, Unavailable
from kontext.pictures import MAX_PIXELS, check_limits, check_regular
from kontext.session import rules
from kontext.session.blobs import storage
from kontext.session.editors import SessionEditor
from kontext.session.pixels import HEADER_BYTES, digest, from_png, png_size, to_png
from kontext.session.provenance import RULES, embeddable
from kontext.session.session import MAX_NAME, RESULT_INFO, Session
from kontext.session.store import Store
from kontext.session.tree import TurnRow

FORMAT, VERSION = "kontext-session", 1
MANIFEST, BLOB = "manifest.json", re.compile(r"blobs/([0-9a-f]{64})")
MAX_MANIFEST_BYTES, MAX_BLOB_BYTES, MAX_BYTES, MAX_TURNS = 16 << 20, 1 << 28, 1 << 33, 10_000
ROLES = {"picture": 1, "region": 1, "mask": 1, "markup": 1, "reference": 16}  # maximum number per role


MIB = 2**20
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
BLOCK_BYTES = 4096  # disks allocate whole blocks
ROW_COPIES = 3  # a row is stored in its table, in indexes and temporarily in the write-ahead log
TURN_BYTES, NAME_BYTES = 500, 200  # overhead per turn row and per picture name


@dataclass(frozen=True)
class Limits:
    """Resource limits of an import, in bytes and pixels."""

    manifest_bytes: int
    inflated_bytes: int
    """All entries, uncompressed."""
    picture_pixels: int
    pixels: int
    """All pictures together."""
    stored_bytes: int
    """New pictures and rows, including disk and database overhead."""

    @classmethod
    def for_upload(cls, sent_bytes: int, picture_pixels: int) -> Limits:
        """Limits of an uploaded file of `sent_bytes` (docs/operations.md)."""
        return cls(
            manifest_bytes=min(MAX_MANIFEST_BYTES, MIB + 4 * sent_bytes),
            inflated_bytes=8 * MIB + 8 * sent_bytes,
            picture_pixels=picture_pixels,
            pixels=min(picture_pixels + 64 * sent_bytes, 16 * picture_pixels),
            stored_bytes=3 * MIB + 5 * sent_bytes,
        )

    @classmethod
    def for_local_file(cls) -> Limits:
        """Limits of a local file."""
        return cls(MAX_MANIFEST_BYTES, MAX_BYTES, MAX_PIXELS, MAX_BYTES, MAX_BYTES)


def _names(limit: int) -> rules.Rule:
    return lambda value: type(value) is list and 1 <= len(value) <= limit and all(map(rules.SHA256, value))


RESULT_INFO_RULE = rules.only({key: RULES.get(key, rules.plain(100_000)) for key in ("size", *RESULT_INFO)})

DERIVED = ("number", "parent", "blobs", "facts", "settings")
"""Keys of a turn in a manifest that are not attributes of `Turn`."""

TURN: dict[str, rules.Rule] = {
    "number": rules.whole_number(0, 2**31 - 2),
    "parent": rules.maybe(rules.whole_number(0, 2**31 - 2)),
    "visited": rules.whole_number(0, 2**31 - 2),
    "name": rules.text(MAX_NAME),
    "created": rules.between(0, rules.LAST_SECOND),
    **{key: RULES[key] for key in ("kind", "prompt", "seed", "settings", "pixels")},
    "facts": lambda value: isinstance(value, dict) and RESULT_INFO_RULE(value) and "size" in value,
    "blobs": rules.only({role: _names(limit) for role, limit in ROLES.items()}),
}


def save(session: Session, path: str | os.PathLike) -> Path:
    """Write a session with all its turns and pictures to one file, atomically. Raises BadRequest."""
    path = Path(path)
    check_regular(path)
    turns = [
        {
            "number": turn.number,
            "parent": session.tree.turns[turn.parent_id].number if turn.parent_id else None,
            "blobs": {role: list(names) for role, names in turn.blobs.items()},
            "facts": turn.result_info,
            "settings": embeddable(turn.settings),
            **{key: getattr(turn, key) for key in TURN if key not in DERIVED},
        }
        for turn in session.turns
    ]
    if not turns:
        raise BadRequest("this session has no picture yet, so there is nothing to save")
    manifest = {"format": FORMAT, "version": VERSION, "name": session.name, "turns": turns}
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(MANIFEST, json.dumps(manifest, ensure_ascii=False), zipfile.ZIP_DEFLATED)
                for sha256 in sorted(_named(turns)):
                    archive.writestr(f"blobs/{sha256}", session.store.blobs.get(sha256))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise BadRequest(
            f"{path}: cannot be written ({error.strerror}); check that the folder exists and is writable"
        ) from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def load(
    store: Store,
    source: str | os.PathLike | bytes,
    *,
    owner: str = "",
    editor: SessionEditor | None = None,
    limits: Limits | None = None,
) -> Session:
    """Import a session file as a new session. Raises NotFound, and BadRequest if it is invalid."""
    what = "this session file" if isinstance(source, bytes) else os.fspath(source)
    limits = limits or Limits.for_local_file()
    with tempfile.TemporaryFile(prefix="kontext-import-") as spool:
        try:
            with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
                manifest = _manifest(archive, limits)
                encoded = _pictures(archive, manifest["turns"], limits, spool)
        except FileNotFoundError:
            raise NotFound(f"{what}: no such file") from None
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            ValueError,
            RuntimeError,
        ) as error:
            raise BadRequest(f"{what}: not a session file, or a damaged one ({error})") from None
        except Unavailable:
            raise
        except KontextError as error:
            raise BadRequest(f"{what} is invalid: {error}") from None
        new_names: dict[str, str] = {}
        for sha256, (start, size) in encoded.items():
            spool.seek(start)
            new_names[sha256] = store.blobs.put(spool.read(size))
    position = {turn["number"]: at for at, turn in enumerate(manifest["turns"])}
    rows: list[tuple[TurnRow, Mapping[str, list[str]]]] = []
    for turn in manifest["turns"]:
        parent_id = None if turn["parent"] is None else position[turn["parent"]]
        values = {key: value for key, value in turn.items() if key not in ("parent", "blobs")}
        row = cast("TurnRow", {**values, "parent_id": parent_id, "name": rules.printable(turn["name"])})
        blobs = {role: [new_names[sha256] for sha256 in names] for role, names in turn["blobs"].items()}
        rows.append((row, blobs))
    return store.insert_tree(rows, name=manifest["name"], owner=owner, editor=editor)


def _manifest(archive: zipfile.ZipFile, limits: Limits) -> dict[str, Any]:
    """The manifest, with entries, keys and tree structure validated."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    unexpected = [name for name in names if name != MANIFEST and not BLOB.fullmatch(name)]
    if unexpected or len(set(names)) < len(names) or MANIFEST not in names:
        raise BadRequest(
            f"its entries must be one {MANIFEST} and distinct blobs ({str(unexpected[:1])[:80]})"
        )
    if any(entry.compress_type not in COMPRESSIONS for entry in entries):
        raise BadRequest("its entries must be stored or deflated")
    if sum(entry.file_size for entry in entries) > limits.inflated_bytes:
        raise BadRequest(f"its entries are declared to be more than {_mib(limits.inflated_bytes)}")
    try:
        manifest = json.loads(_read(archive, MANIFEST, limits.manifest_bytes))
    except (ValueError, RecursionError):
        raise BadRequest("its manifest is not JSON") from None
    if type(manifest) is not dict or manifest.get("format") != FORMAT:
        raise BadRequest("its manifest is not a session manifest")
    version = manifest.get("version")
    if type(version) is not int or version != VERSION:
        raise BadRequest(f"it has version {version!r:.20}; this release reads {VERSION}")
    turns = manifest.get("turns")
    if set(manifest) != {"format", "version", "name", "turns"} or not rules.text(MAX_NAME)(manifest["name"]):
        raise BadRequest("its manifest does not have exactly the keys of version 1")
    if type(turns) is not list or not 1 <= len(turns) <= MAX_TURNS:
        raise BadRequest(f"it must have 1 to {MAX_TURNS} turns")
    earlier: set[int] = set()
    last = -1
    for at, turn in enumerate(turns):
        if type(turn) is not dict or set(turn) != set(TURN):
            raise BadRequest(f"entry {at} of its turns does not have exactly the keys {', '.join(TURN)}")
        wrong = [key for key, rule in TURN.items() if not rule(turn[key])]
        if wrong:
            raise BadRequest(f"turn {turn['number']!r:.20} has an invalid {wrong[0]}")
        in_order = turn["number"] > last
        if (
            not in_order
            or (turn["parent"] is None) != (at == 0)
            or not (at == 0 or turn["parent"] in earlier)
        ):
            raise BadRequest(f"turn {turn['number']} does not have an earlier turn as its parent")
        if (turn["kind"] == "edit") == (at == 0 and turn["parent"] is None):
            raise BadRequest(f"turn {turn['number']} has the kind {turn['kind']}, which is not allowed there")
        last = turn["number"]
        earlier.add(last)
    return manifest


def _pictures(
    archive: zipfile.ZipFile, turns: list[dict[str, Any]], limits: Limits, spool: IO[bytes]
) -> dict[str, tuple[int, int]]:
    """Re-encode the pictures into `spool`, checking each against its name and its turn.

    Returns (start, size) in `spool` by the name in the archive.
    """
    named = _named(turns)
    present = {match[1] for name in archive.namelist() if (match := BLOB.fullmatch(name))}
    if named != present:
        odd = sorted(named ^ present)[0]
        raise BadRequest(
            f"the picture {odd[:12]}... is {'missing' if odd in named else 'not used by any turn'}"
        )
    described: dict[str, set[tuple[str, int, int]]] = {}
    for turn in turns:
        for sha256 in turn["blobs"].get("picture", ()):
            described.setdefault(sha256, set()).add((turn["pixels"], *turn["facts"]["size"]))
    sizes = _sizes(archive, named, limits)
    names = sum(len(hashes) for turn in turns for hashes in turn["blobs"].values())
    rows = archive.getinfo(MANIFEST).file_size + TURN_BYTES * len(turns) + NAME_BYTES * names
    stored, inflated = ROW_COPIES * rows, 0
    encoded: dict[str, tuple[int, int]] = {}
    for sha256 in sorted(named):
        if stored > limits.stored_bytes or inflated > limits.inflated_bytes:
            raise BadRequest(f"it needs more than {_mib(limits.stored_bytes)} of storage")
        width, height = sizes[sha256]
        # Four bytes per pixel, uncompressed, plus room for metadata of other programs.
        data = _read(archive, f"blobs/{sha256}", min(MAX_BLOB_BYTES, 5 * width * height + MIB // 16))
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadRequest(f"the picture {sha256[:12]}... is damaged")
        inflated += len(data)
        picture = from_png(data)
        found = digest(picture), width, height
        if described.get(sha256, {found}) != {found}:
            raise BadRequest(f"the picture {sha256[:12]}... does not match its turn")
        data = to_png(picture)
        encoded[sha256] = spool.tell(), len(data)
        with storage("the pictures cannot be unpacked"):
            spool.write(data)
        stored += -(-len(data) // BLOCK_BYTES) * BLOCK_BYTES
    if stored > limits.stored_bytes:
        raise BadRequest(f"it needs more than {_mib(limits.stored_bytes)} of storage")
    return encoded


def _sizes(archive: zipfile.ZipFile, named: Iterable[str], limits: Limits) -> dict[str, tuple[int, int]]:
    """(width, height) of every picture by its name, read from the headers without decoding."""
    sizes: dict[str, tuple[int, int]] = {}
    total = 0
    for sha256 in named:
        with archive.open(f"blobs/{sha256}") as file:
            width, height = sizes[sha256] = png_size(file.read(HEADER_BYTES))
        check_limits((width, height), f"the picture {sha256[:12]}...")
        if width * height > limits.picture_pixels:
            most = limits.picture_pixels / 1e6
            raise BadRequest(
                f"its pictures must have at most {most:.0f} million pixels each, got {width}x{height}"
            )
        total += width * height
        if total > limits.pixels:
            raise BadRequest(
                f"its pictures must have at most {limits.pixels / 1e6:.0f} million pixels in total"
            )
    return sizes


def _named(turns: list[dict[str, Any]]) -> set[str]:
    return {sha256 for turn in turns for names in turn["blobs"].values() for sha256 in names}


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Read one entry, up to the limit, whatever its header declares."""
    with archive.open(name) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadRequest(f"{name} is larger than {_mib(limit)}")
    return data


def _mib(size: int) -> str:
    return f"{size / MIB:.1f}".removesuffix(".0") + " MiB"
