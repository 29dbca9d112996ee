"""Selects the files of a model in a repository by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath

from kontext.checkpoint.file_names import (
    COMPANIONS,
    COMPONENT,
    COMPONENT_FILES,
    DIFFUSERS_FOLDERS,
    DIFFUSERS_TOKENIZERS,
    OWN_ENDS,
    SAFETENSORS,
    SHARD,
    TOKENIZERS,
    variant_order,
)
from kontext.errors import BadRequest, NotFound

Files = dict[str, str]
"""Path in the model's folder to path in the repository."""

BEST_VARIANTS: dict[str, tuple[str, ...]] = {
    "fp8": ("fp8_scaled", "fp8_e4m3fn_scaled", "fp8_e4m3fn", "fp8"),
    "q8": ("q8_0",),
    "q6": ("q6_k",),
    "q5": ("q5_k_m", "q5_k_s", "q5_0", "q5_1"),
    "q4": ("q4_k_m", "q4_k_s", "q4_0", "q4_1"),
    "q3": ("q3_k_m", "q3_k_s", "q3_k_l"),
    "q2": ("q2_k",),
}
"""File name endings that a short variant matches, best first."""


@dataclass(frozen=True)
class Choice:
    """The files of one repository, and the parts that are missing in it."""

    files: Files
    absent: tuple[str, ...]
    """"autoencoder", "t5", "clip", "tokenizer of t5", "tokenizer of clip"."""
    own_layout: bool = False
    """Whether it has the kontext layout, whose parts all come from one repository."""


def choose(paths: Iterable[str], variant: str = "", name: str = "") -> Choice:
    """Select the files that a model needs from those of a repository.

    name: the user's text, for messages. Raises NotFound if there is no such model, BadRequest if there are
    several.
    """
    paths = sorted(paths)
    top = [path for path in paths if "/" not in path]
    if not variant and "config.json" in top and (own := _own_layout(top)):
        return own
    singles = [path for path in paths if _is_single(path)]
    if variant:
        chosen = _of_variant(singles, variant, name)
    elif len(in_top := [path for path in singles if "/" not in path]) == 1:
        chosen = in_top[0]
    elif "model_index.json" in top and (files := _component(paths, DIFFUSERS_FOLDERS["transformer"])):
        return _with_parts({**files, "model_index.json": "model_index.json"}, paths)
    elif len(singles) == 1:
        chosen = singles[0]
    elif singles:
        raise BadRequest(f"{name}: has {len(singles)} models; name one: {_offers(singles, name)}")
    else:
        raise NotFound(f"{name}: there is no FLUX model in this repository")
    return _with_parts({PurePosixPath(chosen).name: chosen}, paths)


def _own_layout(top: Sequence[str]) -> Choice | None:
    """The files of the kontext layout, if the transformer is among them."""
    ends = "|".join(map(re.escape, OWN_ENDS))
    found = {
        part: [path for path in top if re.fullmatch(rf"{part}(-\d+-of-\d+)?({ends})", path)]
        for part in DIFFUSERS_FOLDERS
    }
    found |= {f"tokenizer of {which}": [file] for which, file in TOKENIZERS.items() if file in top}
    files = [path for part in found.values() for path in part]
    files += [path for path in ("config.json", "skills.json") if path in top]
    needed = (*COMPANIONS, *(f"tokenizer of {which}" for which in TOKENIZERS))
    absent = tuple(part for part in needed if not found.get(part))
    return Choice({path: path for path in files}, absent, own_layout=True) if found["transformer"] else None


def _is_single(path: str) -> bool:
    """Whether a file may contain a transformer, alone or with the other parts."""
    file = PurePosixPath(path)
    return (
        file.suffix in (*SAFETENSORS, ".gguf")
        and file.stem.split(".")[0] not in COMPONENT_FILES
        and not SHARD.search(file.name)
        and "lora" not in file.name.lower()
        and not any(_is_companion(path, patterns) for patterns in COMPANIONS.values())
    )


def _is_companion(path: str, patterns: Iterable[str]) -> bool:
    file = PurePosixPath(path)
    return file.suffix in SAFETENSORS and any(fnmatch(file.stem, pattern) for pattern in patterns)


def _flat(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower())


def _of_variant(singles: Sequence[str], variant: str, name: str) -> str:
    for ending in BEST_VARIANTS.get(variant, (_flat(variant),)):
        found = [path for path in singles if f"_{ending}_" in f"_{_flat(PurePosixPath(path).stem)}_"]
        if len(found) > 1:  # the whole name, or the only one that ends so
            exact = [path for path in found if f"_{_flat(PurePosixPath(path).stem)}".endswith(f"_{ending}")]
            found = exact if len(exact) == 1 else found
        if len(found) > 1:
            raise BadRequest(f"{name}: {variant} fits {len(found)} files: {_offers(found, name)}")
        if found:
            return found[0]
    known = f"; there are: {_offers(singles, name)}" if singles else ""
    raise NotFound(f"{name}: no file of this repository is of the variant {variant}{known}")


def _offers(singles: Sequence[str], name: str, limit: int = 12) -> str:
    """Names that each select one file."""
    repo = re.sub(r":[\w.-]+$", "", name)
    offers = [f"{repo}:{PurePosixPath(path).stem}" for path in singles[:limit]]
    return ", ".join(offers) + (f" and {len(singles) - limit} more" if len(singles) > limit else "")


def _with_parts(files: Files, paths: Sequence[str]) -> Choice:
    """Add the other parts and the tokenizers that the repository has."""
    absent = []
    for part in COMPANIONS:
        found = {}
        for pattern in COMPANIONS[part] if "model_index.json" not in files else ():
            matching = [path for path in paths if _is_companion(path, (pattern,))]
            if matching:
                path = min(matching, key=lambda path: (path.count("/"), path))
                found = {PurePosixPath(path).name: path}
                break
        found = found or _component(paths, DIFFUSERS_FOLDERS[part])
        files = {**files, **found}
        if not found:
            absent.append(part)
    for tokenizer, folder in DIFFUSERS_TOKENIZERS.items():
        found = next(
            (
                {f"{folder}/{file}": f"{folder}/{file}" for file in names}
                for names in (("tokenizer.json",), ("vocab.json", "merges.txt"))
                if all(f"{folder}/{file}" in paths for file in names)
            ),
            {},
        )
        files = {**files, **found}
        if not found:
            absent.append(f"tokenizer of {tokenizer}")
    return Choice(files, tuple(absent))


def _component(paths: Sequence[str], folder: str) -> Files:
    """The best variant of a component's tensors, in one file or in shards, and its configuration."""
    contents = [path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")]
    found = []
    for file in contents:
        match = COMPONENT.fullmatch(file)
        if match is None or SHARD.search(file):
            continue
        order, variant = variant_order(match)
        shards = [other for other in contents if match["index"] and _is_shard(other, file, variant)]
        if match["index"] and not _all_there(shards):
            continue
        found.append((order, not match["index"], [file, *shards]))
    if not found or "config.json" not in contents:
        return {}
    *_, files = min(found)
    return {f"{folder}/{file}": f"{folder}/{file}" for file in ("config.json", *files)}


def _all_there(shards: Sequence[str]) -> bool:
    return bool(shards) and (match := SHARD.search(shards[0])) is not None and len(shards) == int(match[2])


def _is_shard(file: str, index: str, variant: str) -> bool:
    stem, middle = re.escape(index.partition(".")[0]), re.escape(f".{variant}") if variant else ""
    return (
        re.fullmatch(rf"{stem}({middle}-\d+-of-\d+|-\d+-of-\d+{middle})\.(safetensors|sft)", file) is not None
    )
