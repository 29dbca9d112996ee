"""Finds a model by name or path. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from kontext.checkpoint.file_names import is_there
from kontext.checkpoint.hub import models as hub
from kontext.checkpoint.hub.names import parse
from kontext.errors import NotFound
from kontext.home import models_folder

SHIPPED = Path(__file__).parent.parent / "weights"
"""Folder of the models included in the package."""


def shipped_models() -> list[str]:
    """Names of the models included in the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def find_model(
    name_or_path: str | Path, download: bool = False, on_progress: hub.OnProgress | None = None
) -> Path:
    """Path of a model.

    name: of a model in the package, in the models folder of this account or on a hub; or the path of a file
    or folder.

    download: download missing models from a hub. Raises NotFound, and with `download` the errors of
    `hub.models.pull`.
    """
    name = str(name_or_path)
    if "/" not in name and (SHIPPED / name / "config.json").is_file():
        return SHIPPED / name
    path = Path(name_or_path).expanduser()
    if is_there(path):
        return path
    models = models_folder()
    if (folder := hub.local(name)) is not None:
        return folder
    on_hub = parse(name)
    placed = models / name
    if name and path.name == name and is_there(placed) and hub.read(placed) is None:
        return placed
    if on_hub is not None and download:
        return hub.pull(name, on_progress)
    if on_hub is not None:
        raise NotFound(f"{name} is not on this machine; download it with: kontext models pull {name}")
    raise NotFound(
        f"no model {name!r}: give {', '.join([*shipped_models(), 'tiny-random'])}, dev, a path to a model "
        f"folder, a .safetensors or a .gguf file, the name of one in {models}, or owner/repo on the Hugging "
        "Face Hub; kontext models lists them"
    )
