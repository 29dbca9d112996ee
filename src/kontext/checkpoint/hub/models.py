"""Downloaded models: folders of links into the hub's cache, each with a list of its sources."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from kontext.checkpoint.hub import cache, client
from kontext.checkpoint.hub.choice import Choice, choose
from kontext.checkpoint.hub.names import KONTEXT_DEV, HubName, parse
from kontext.errors import BadRequest, KontextError, NoSpace, NotFound, Unavailable
from kontext.home import models_folder

LIST = "hub.json"
"""The file in a model's folder that names it and the sources of its files."""

SPARE_BYTES = 256 * 2**20
"""Bytes to leave free on a disk."""


@dataclass(frozen=True)
class FileSource:
    """A file of a repository, as part of a model."""

    place: str
    """Path in the model's folder."""
    repo: str
    path: str
    revision: str | None = None


ENCODERS = "comfyanonymous/flux_text_encoders"
ELSEWHERE: dict[str, FileSource] = {
    "autoencoder": FileSource(
        "ae.safetensors", "Comfy-Org/Lumina_Image_2.0_Repackaged", "split_files/vae/ae.safetensors"
    ),
    "t5": FileSource("t5xxl_fp16.safetensors", ENCODERS, "t5xxl_fp16.safetensors"),
    "clip": FileSource("clip_l.safetensors", ENCODERS, "clip_l.safetensors"),
    "tokenizer of t5": FileSource("tokenizer_2/tokenizer.json", "google-t5/t5-base", "tokenizer.json"),
    "tokenizer of clip": FileSource(
        "tokenizer/tokenizer.json", "openai/clip-vit-large-patch14", "tokenizer.json"
    ),
}
"""Sources of the parts of FLUX.1 that a repository lacks; none is gated."""

SMALL_T5 = FileSource("t5xxl_fp8_e4m3fn_scaled.safetensors", ENCODERS, "t5xxl_fp8_e4m3fn_scaled.safetensors")
"""The T5 for quantized transformers."""


@dataclass(frozen=True)
class DownloadProgress:
    """Progress of a download, in bytes."""

    name: str
    file: str
    done: int
    total: int
    note: str = ""
    """Reason for a delay."""


OnProgress = Callable[[DownloadProgress], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubModel:
    """A downloaded model, as described by its folder."""

    name: str
    folder: Path
    sources: tuple[FileSource, ...]

    def files(self) -> Iterator[tuple[FileSource, Path]]:
        for source in self.sources:
            yield source, self.folder / source.place

    @property
    def missing(self) -> list[FileSource]:
        """Files that are missing."""
        return [source for source, file in self.files() if not file.exists()]

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for _, file in self.files() if file.exists())


def read(folder: Path) -> HubModel | None:
    """The model in a folder, if it came from a hub."""
    try:
        data = json.loads((folder / LIST).read_text("utf-8"))
        return HubModel(data["name"], folder, tuple(FileSource(**source) for source in data["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def all_models() -> list[HubModel]:
    """All downloaded models."""
    try:
        folders = sorted(models_folder().iterdir())
    except OSError:
        return []
    return [model for folder in folders if (model := read(folder))]


def local(text: str) -> Path | None:
    """The folder of a model on a hub, if it is complete."""
    name = parse(text)
    model = name and read(models_folder() / name.folder)
    return model.folder if model and not model.missing else None


def pull(text: str, on_progress: OnProgress | None = None) -> Path:
    """The folder of a model on a hub; missing files are downloaded.

    Raises NotFound for an unknown name, BadRequest for an ambiguous one, Unavailable if the hub cannot be
    reached, the repository is gated or the download fails, and NoSpace before the download if the disk is too
    small.
    """
    name = parse(text)
    if name is None:
        raise BadRequest(f"{text!r} is not a model name; give owner/repo, owner/repo:q4 or dev")
    folder = models_folder() / name.folder
    if (model := read(folder)) and not model.missing:
        return folder
    if model is None and os.path.lexists(folder):
        raise BadRequest(
            f"{folder} exists and was not downloaded from a hub; move it away to download {text}"
        )
    with client.lock(
        models_folder() / f".{name.folder}.lock", f"another process is downloading {text}; waiting"
    ):
        if (model := read(folder)) and not model.missing:
            return folder
        sources = _sources_of(name, model)
        return _register(name, folder, sources, _downloaded(text, sources, on_progress))


def pull_tokenizer(which: str) -> Path:
    """The file of FLUX.1's tokenizer of "t5" or "clip", downloaded if it is missing."""
    source = ELSEWHERE[f"tokenizer of {which}"]
    official = FileSource(
        "", KONTEXT_DEV, f"{'tokenizer_2' if which == 't5' else 'tokenizer'}/tokenizer.json"
    )
    for known in (source, official):
        if file := cache.cached(known.repo, known.path):
            return file
    return client.download(client.find(source.repo, source.path, None))


def _sources_of(name: HubName, before: HubModel | None) -> tuple[FileSource, ...]:
    """The files that a model needs: the cached ones if they are complete, otherwise those on the hub.

    before: an earlier download, whose files are known without the hub.
    """
    here = _cached_choice(name)
    if here is not None and not here.absent:
        return _sources(name, here)
    try:
        choice = choose(client.repo_paths(name.source, name.revision), name.variant, name.text)
    except Unavailable:
        if before is not None:
            return before.sources
        if here is None or name.source == name.repo:  # what else this repository has is not known
            raise
        return _sources(name, here)
    return _sources(name, choice)


def _cached_choice(name: HubName) -> Choice | None:
    try:
        return choose(cache.cached_paths(name.source, name.revision), name.variant, name.text)
    except KontextError:
        return None


def _sources(name: HubName, choice: Choice) -> tuple[FileSource, ...]:
    own = [FileSource(place, name.source, path, name.revision) for place, path in choice.files.items()]
    if choice.own_layout:
        return tuple(own)
    few_bits = name.variant or any(place.endswith(".gguf") for place in choice.files)
    others = [SMALL_T5 if part == "t5" and few_bits else ELSEWHERE[part] for part in choice.absent]
    return (*own, *others)


def _downloaded(
    text: str, sources: Iterable[FileSource], on_progress: OnProgress | None
) -> list[tuple[FileSource, Path]]:
    """Download files into the cache, after checking that all exist and fit on the disk."""
    files: list[tuple[FileSource, Path | client.RemoteFile]] = []
    for source in sources:
        here = cache.cached(source.repo, source.path, source.revision)
        files.append((source, here or client.find(source.repo, source.path, source.revision)))
    remote = [file for _, file in files if isinstance(file, client.RemoteFile)]
    _check_disk_space(text, {file.blob: file for file in remote}.values())
    total = sum(file.size for file in remote) + sum(
        file.stat().st_size for _, file in files if isinstance(file, Path)
    )
    done, out = total - sum(file.size for file in remote), []
    for source, file in files:
        if isinstance(file, client.RemoteFile):
            before = done

            def report(count: int, note: str = "", path: str = file.path, before: int = before) -> None:
                if on_progress is not None:
                    on_progress(DownloadProgress(text, path, before + count, total, note))
                elif note:
                    log.warning(note)

            done += file.size
            file = client.download(file, report, partial(report, file.size - file.missing_bytes))
        out.append((source, file))
    return out


def _check_disk_space(text: str, files: Iterable[client.RemoteFile]) -> None:
    needed = sum(file.missing_bytes for file in files)
    if not needed:
        return
    place = cache.cache_folder()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed + SPARE_BYTES > free:
        raise NoSpace(
            f"{text} needs {client.gigabytes(needed)}, and {place} has {client.gigabytes(free)} free; "
            "free some space, or set HF_HOME to a folder on another disk"
        )


def _register(
    name: HubName, folder: Path, sources: tuple[FileSource, ...], files: list[tuple[FileSource, Path]]
) -> Path:
    """Create the folder of links atomically, replacing an earlier one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    new.chmod(0o755)
    try:
        for source, file in files:
            link = new / source.place
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.absolute())
        data = {"name": name.text, "files": [asdict(source) for source in sources]}
        (new / LIST).write_text(json.dumps(data, indent=1), "utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


@dataclass(frozen=True)
class Removal:
    """The files that removing a model deletes."""

    name: str
    folder: Path | None
    """Its folder of links; None for a partial download."""
    files: tuple[Path, ...]
    """In the cache."""
    bytes: int
    needed_elsewhere: tuple[str, ...]
    """Files in the cache that other models need."""


def removal(text: str) -> Removal:
    """What `remove` would delete. Raises NotFound."""
    name = parse(text)
    model = None if name is None else read(models_folder() / name.folder)
    if name is None or (model is None and not cache.partial_files(name.source)):
        raise NotFound(f"{text} was not downloaded from a hub; kontext models lists what is here")
    unfinished = cache.partial_files(name.source)
    if model is None:
        return Removal(text, None, tuple(unfinished), sum(file.stat().st_size for file in unfinished), ())
    others = [other for other in all_models() if other.folder != model.folder]
    needed = {file.resolve() for other in others for _, file in other.files()}
    files, needed_elsewhere = [], []
    for source, link in model.files():
        if link.resolve() in needed:
            needed_elsewhere.append(source.place)
        elif link.exists():
            files.append(link.readlink())
    size = sum(file.stat().st_size for file in (*files, *unfinished))
    return Removal(model.name, model.folder, (*files, *unfinished), size, tuple(needed_elsewhere))


def remove(what: Removal) -> int:
    """Delete a model's folder and its files in the cache; returns the bytes freed."""
    if what.folder is not None:
        shutil.rmtree(what.folder)
    return cache.remove(what.files)
