"""Finds, loads and saves models."""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "Checkpoint",
    "Model",
    "Report",
    "fingerprint",
    "load_model",
    "open_checkpoint",
    "random_model",
    "save_diffusers",
    "save_model",
]

if TYPE_CHECKING:
    from kontext.checkpoint.layouts import Checkpoint, Report, open_checkpoint
    from kontext.checkpoint.model import (
        Model,
        fingerprint,
        load_model,
        random_model,
        save_diffusers,
        save_model,
    )
else:
    # Lazy: models can be found and downloaded without importing torch.
    _LAYOUTS = ("Checkpoint", "Report", "open_checkpoint")

    def __getattr__(name: str) -> object:
        if name in __all__:
            module = "layouts" if name in _LAYOUTS else "model"
            return getattr(import_module(f"kontext.checkpoint.{module}"), name)
        raise AttributeError(f"module 'kontext.checkpoint' has no attribute {name!r}")
