"""A session as one file: a zip with `manifest.json` and the pictures as `blobs/SHA256`, stored as they are.

Reading trusts nothing: names, sizes, checksums, the manifest to the last key, that the turns form one tree,
and that every picture is the one its turn describes, are all checked before the first row is written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from kontext.errors import BadRequest, KontextError, NotFound
from kontext.session import rules
from kontext.session.pixels import digest, from_png
from kontext.session.provenance import RULES
from kontext.session.session import FACTS, MAX_NAME, Session
from kontext.session.store import Store

FORMAT, VERSION = "kontext-session", 1
MANIFEST, BLOB = "manifest.json", re.compile(r"blobs/([0-9a-f]{64})")
MAX_MANIFEST_BYTES, MAX_BLOB_BYTES, MAX_BYTES, MAX_TURNS = 16 << 20, 1 << 28, 1 << 33, 10_000
ROLES = {"picture": 1, "region": 1, "mask": 1, "markup": 1, "reference": 16}  # at most so many of each


def _names(limit: int) -> rules.Rule:
    return lambda value: type(value) is list and 1 <= len(value) <= limit and all(map(rules.SHA256, value))


FACT_RULE = rules.only({key: RULES.get(key, rules.plain(100_000)) for key in ("size", *FACTS)})

TURN: dict[str, rules.Rule] = {
    "number": rules.whole(0, 2**31 - 2),
    "parent": rules.maybe(rules.whole(0, 2**31 - 2)),
    "visited": rules.whole(0, 2**31 - 2),
    "name": rules.text(MAX_NAME),
    "created": rules.number,
    **{key: RULES[key] for key in ("kind", "prompt", "seed", "settings", "pixels")},
    "facts": lambda value: FACT_RULE(value) and "size" in value,
    "blobs": rules.only({role: _names(limit) for role, limit in ROLES.items()}),
}


def save(session: Session, path: str | os.PathLike) -> Path:
    """Write a session with all its turns and pictures to one file, whole or not at all. Raises BadRequest."""
    path = Path(path)
    turns = [
        {
            "number": turn.number,
            "parent": session.tree.turns[turn.parent_id].number if turn.parent_id else None,
            "blobs": {role: list(names) for role, names in turn.blobs.items()},
            **{key: getattr(turn, key) for key in TURN if key not in ("number", "parent", "blobs")},
        }
        for turn in session.turns
    ]
    if not turns:
        raise BadRequest("this session has no picture yet; there is nothing to save")
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
            f"{path}: cannot be written ({error.strerror}); is the folder there and yours?"
        ) from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def load(store: Store, source: str | os.PathLike | bytes, *, owner: str = "", editor: Any = None) -> Session:
    """Read such a file into a store, as a new session. Raises NotFound, and BadRequest for anything not as it
    should be.
    """
    what = "this session file" if isinstance(source, bytes) else os.fspath(source)
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            manifest = _manifest(archive)
            _blobs(archive, manifest["turns"], store)
    except FileNotFoundError:
        raise NotFound(f"{what}: there is no such file") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise BadRequest(f"{what}: not a session file, or a damaged one ({error})") from None
    except KontextError as error:
        raise BadRequest(f"{what} is refused: {error}") from None
    position = {turn["number"]: at for at, turn in enumerate(manifest["turns"])}
    rows = []
    for turn in manifest["turns"]:
        row = {key: turn[key] for key in TURN if key not in ("parent", "blobs")}
        row["parent_id"] = None if turn["parent"] is None else position[turn["parent"]]
        rows.append((row, turn["blobs"]))
    return store.plant(rows, name=manifest["name"], owner=owner, editor=editor)


def _manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The entries and the manifest, checked down to the tree."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    strange = [name for name in names if name != MANIFEST and not BLOB.fullmatch(name)]
    if strange or len(set(names)) < len(names) or MANIFEST not in names:
        raise BadRequest(f"its entries are not one {MANIFEST} and blobs, each once ({str(strange[:1])[:80]})")
    if sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise BadRequest(f"it says it holds more than {MAX_BYTES >> 30} GiB")
    try:
        manifest = json.loads(_read(archive, MANIFEST, MAX_MANIFEST_BYTES))
    except (ValueError, RecursionError):
        raise BadRequest("its manifest is no JSON") from None
    if type(manifest) is not dict or manifest.get("format") != FORMAT:
        raise BadRequest("its manifest is not that of a session")
    if manifest.get("version") != VERSION:
        raise BadRequest(f"it has version {str(manifest.get('version'))[:20]}; this release reads {VERSION}")
    turns = manifest.get("turns")
    if set(manifest) != {"format", "version", "name", "turns"} or not rules.text(MAX_NAME)(manifest["name"]):
        raise BadRequest("its manifest has not exactly the keys of version 1")
    if type(turns) is not list or not 1 <= len(turns) <= MAX_TURNS:
        raise BadRequest(f"it has no turns or more than {MAX_TURNS}")
    seen: set[int] = set()
    for at, turn in enumerate(turns):
        if type(turn) is not dict or set(turn) != set(TURN):
            raise BadRequest(f"entry {at} of its turns has not exactly the keys {', '.join(TURN)}")
        wrong = [key for key, rule in TURN.items() if not rule(turn[key])]
        if wrong:
            raise BadRequest(f"turn {turn['number']!s:.20} has an impossible {wrong[0]}")
        in_order = not seen or turn["number"] > max(seen)
        if not in_order or (turn["parent"] is None) != (at == 0) or not (at == 0 or turn["parent"] in seen):
            raise BadRequest(f"turn {turn['number']} does not follow from an earlier turn: no tree")
        if (turn["kind"] == "edit") == (at == 0 and turn["parent"] is None):
            raise BadRequest(f"turn {turn['number']} is of kind {turn['kind']}, which cannot be there")
        seen.add(turn["number"])
    return manifest


def _blobs(archive: zipfile.ZipFile, turns: list[dict[str, Any]], store: Store) -> None:
    """Keep the pictures, each checked to be what its name and its turn say."""
    named = _named(turns)
    present = {match[1] for name in archive.namelist() if (match := BLOB.fullmatch(name))}
    if named != present:
        odd = sorted(named ^ present)[0]
        raise BadRequest(f"the picture {odd[:12]}... is {'missing' if odd in named else 'named by no turn'}")
    described: dict[str, set[str]] = {}
    for turn in turns:
        for sha256 in turn["blobs"].get("picture", ()):
            described.setdefault(sha256, set()).add(turn["pixels"])
    for sha256 in sorted(named):
        data = _read(archive, f"blobs/{sha256}", MAX_BLOB_BYTES)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BadRequest(f"the picture {sha256[:12]}... is damaged")
        pixels = digest(from_png(data))
        if described.get(sha256, {pixels}) != {pixels}:
            raise BadRequest(f"the picture {sha256[:12]}... is not the one its turn describes")
        store.blobs.put(data)


def _named(turns: list[dict[str, Any]]) -> set[str]:
    return {sha256 for turn in turns for names in turn["blobs"].values() for sha256 in names}


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One entry, stopped at the limit whatever its header says."""
    with archive.open(name) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadRequest(f"{name} is larger than {limit >> 20} MiB")
    return data
