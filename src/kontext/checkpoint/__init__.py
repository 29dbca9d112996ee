"""Bytes to networks and back: which model a path holds, loading it, saving it."""

from kontext.checkpoint.layouts import Checkpoint, Report, open_checkpoint
from kontext.checkpoint.model import (
    Model,
    fingerprint,
    load_model,
    random_model,
    save_diffusers,
    save_model,
)

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
