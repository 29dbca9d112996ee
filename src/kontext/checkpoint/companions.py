"""Finds the files of a model.

Parts and tokenizers lie next to a transformer's file, in ComfyUI's folders or in the hub's cache; for
missing ones it says where they belong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from kontext.checkpoint.file_names import (
    COMFYUI_FOLDERS,
    COMPANIONS,
    DIFFUSERS_FOLDERS,
    DIFFUSERS_TOKENIZERS,
    TOKENIZERS,
    TRANSFORMER_FOLDERS,
    WEIGHTS,
)
from kontext.checkpoint.files import is_weights, weights_file
from kontext.checkpoint.hub.models import ELSEWHERE, FileSource
from kontext.checkpoint.hub.names import KONTEXT_DEV
from kontext.errors import BadCheckpoint

LEVELS = 3
"""Folders above a transformer's file whose ComfyUI folders are searched."""
TRANSFORMER = FileSource("flux1-kontext-dev.safetensors", KONTEXT_DEV, "flux1-kontext-dev.safetensors")
DEPTH = 2
"""Levels of sub-folders in ComfyUI's folders."""


def is_companion(path: Path) -> bool:
    """Whether a file is named like an autoencoder or text encoder."""
    stem = _stem(path)
    return stem is not None and any(
        fnmatch(stem, pattern) for patterns in COMPANIONS.values() for pattern in patterns
    )


def _stem(path: Path) -> str | None:
    """The name without its ending; None for other files than weights."""
    stem = re.sub(r"\.(safetensors|sft|gguf)(\.index(\.\w+)?\.json)?$", "", path.name, flags=re.IGNORECASE)
    return stem if stem != path.name else None


def companion_files(part: str, home: Path) -> list[Path]:
    """Files that may hold a part of the model whose transformer is in `home`, best first."""
    places = [home, *comfyui_folders(home)]
    files = [
        file
        for pattern in COMPANIONS[part]
        for place in places
        for end in WEIGHTS
        for file in sorted(place.glob(pattern + end))
        if file.is_file()
    ]
    component = home / DIFFUSERS_FOLDERS[part]
    if not files and component.is_dir():
        files = [weights_file(component)]
    return list(dict.fromkeys(files))


def tokenizer_places(name: str, home: Path) -> Iterator[Path]:
    """Files and folders that may hold a tokenizer, "t5" or "clip"."""
    for place in (home, *comfyui_folders(home)):
        yield place / DIFFUSERS_TOKENIZERS[name]
        yield place / TOKENIZERS[name]


def comfyui_folders(home: Path) -> list[Path]:
    """ComfyUI's folders of parts around a transformer's folder, with their sub-folders."""
    found: list[Path] = []
    for above in (home, *home.absolute().parents[:LEVELS]):
        for name in COMFYUI_FOLDERS:
            found += _with_subfolders(above / name, DEPTH)
    return list(dict.fromkeys(found))


def _with_subfolders(folder: Path, depth: int) -> Iterator[Path]:
    try:
        if not folder.is_dir():
            return
        yield folder
        for inside in sorted(folder.iterdir()) if depth else ():
            if not inside.name.startswith("."):
                yield from _with_subfolders(inside, depth - 1)
    except OSError:  # not readable by this account
        return


def transformer_file(folder: Path) -> Path:
    """The transformer's file in a folder, or in ComfyUI's folders below it. Raises BadCheckpoint."""
    places = [folder]
    for root in (folder, folder / "models"):
        for name in TRANSFORMER_FOLDERS:
            places += _with_subfolders(root / name, DEPTH)
    files = [
        file
        for place in dict.fromkeys(places)
        for file in sorted(place.iterdir())
        if is_weights(file) and not is_companion(file)
    ]
    named = [file for file in files if "kontext" in file.name.lower()]
    if len(named if len(files) > 1 and named else files) == 1:
        return (named or files)[0]
    if not files:
        raise BadCheckpoint(
            f"{folder}: not a model: a folder with no model_index.json, no config.json of a model and no "
            ".safetensors file or .gguf file of a transformer"
        )
    shown = ", ".join(str(file.relative_to(folder)) for file in files[:4])
    more = f" and {len(files) - 4} more" if len(files) > 4 else ""
    raise BadCheckpoint(f"{folder}: no model_index.json or config.json in it, but {shown}{more}")


def component_file(folder: Path, name: str, part: str) -> Path | None:
    """The weights of a component of a diffusers folder; None if there are none.

    They are in the component's own folder or, for a transformer without one, in one file of the folder
    itself. Raises BadCheckpoint.
    """
    component, refusal = folder / name, None
    if component.is_dir():
        try:
            return weights_file(component)
        except BadCheckpoint as error:
            refusal = error
    if part == "transformer":
        files = [file for file in sorted(folder.iterdir()) if is_weights(file) and not is_companion(file)]
        if len(files) == 1:
            return files[0]
    if refusal is not None:
        raise refusal
    return None


def snapshot(path: Path) -> Path:
    """The files of a repository in the cache of huggingface_hub; other paths as they are."""
    snapshots = path / "snapshots"
    if not snapshots.is_dir():
        return path
    main = path / "refs" / "main"
    revision = main.read_text("utf-8", errors="replace").strip() if main.is_file() else ""
    if revision and Path(revision).name == revision and (snapshots / revision).is_dir():
        return snapshots / revision
    revisions = [folder for folder in snapshots.iterdir() if folder.is_dir()]
    if not revisions:
        raise BadCheckpoint(f"{path}: a cache of huggingface_hub without files; download the model again")
    return max(revisions, key=lambda folder: folder.stat().st_mtime)


def where_to_put(absent: list[str], path: Path) -> dict[str, str]:
    """For each missing part: the full path of the file to put there, and where to get it."""
    home = path if path.is_dir() else path.parent
    comfyui = {folder.name: folder for folder in reversed(comfyui_folders(home))}
    folders = {
        "autoencoder": comfyui.get("vae", home),
        "t5": comfyui.get("text_encoders", comfyui.get("clip", home)),
        "clip": comfyui.get("text_encoders", comfyui.get("clip", home)),
    }
    answers = {}
    for part in absent:
        source = ELSEWHERE.get(part, TRANSFORMER)
        place = (folders.get(part, home) / source.place).absolute()
        answers[part] = f"{place}, from huggingface.co/{source.repo} ({source.path})"
    return answers
