"""Where things of this account are kept when nobody says otherwise: sessions, keys, the signing identity,
models.
"""

import os
from pathlib import Path


def default_folder() -> Path:
    """KONTEXT_HOME, or the place for programs' data of this account."""
    home = os.environ.get("KONTEXT_HOME")
    return (
        Path(home)
        if home
        else Path(os.environ.get("XDG_DATA_HOME", "~/.local/share")).expanduser() / "kontext"
    )


def models_folder() -> Path:
    """The folder whose files and folders are models that `--model` finds by name."""
    return default_folder() / "models"
