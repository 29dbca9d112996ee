"""Default folders of this account: sessions, keys, the signing identity, models."""

import os
from pathlib import Path


def default_folder() -> Path:
    """KONTEXT_HOME, or the data folder of this account."""
    home = os.environ.get("KONTEXT_HOME")
    return (
        Path(home)
        if home
        else Path(os.environ.get("XDG_DATA_HOME", "~/.local/share")).expanduser() / "kontext"
    )


def models_folder() -> Path:
    """The folder with the models that `--model` finds by name."""
    return default_folder() / "models"


def loras_folder() -> Path:
    """The folder with the LoRAs that `--lora` finds by name."""
    return default_folder() / "loras"
