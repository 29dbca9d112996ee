"""Distillation of a trained flow model, by one of two methods: `student.py` and `ladd.py`."""

from __future__ import annotations

from pathlib import Path

from kontext.train.config import DistillTraining
from kontext.train.ladd import LaddTrainer
from kontext.train.student import DistillTrainer


def train(
    config: DistillTraining,
    folder: Path,
    autoencoder: Path,
    resume: bool = False,
    initial: Path | None = None,
) -> Path:
    """Distill and return the student's folder. initial: the `state.pt` of the teacher's flow run."""
    trainer = LaddTrainer if config.method == "ladd" else DistillTrainer
    return trainer(config, folder, autoencoder, resume, initial).train()
