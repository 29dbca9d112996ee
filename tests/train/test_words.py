"""Pretraining of the text encoders on sentences."""

import json

from safetensors.torch import load_file
from tokenizers import Tokenizer

from kontext.model.presets import PRESETS
from kontext.train import words
from kontext.train.config import WordsTraining


def test_encoders_learn_from_sentences_and_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "TOKENIZER_SAMPLES", 60)
    settings = dict(
        preset="tiny",
        steps=16,
        batch=16,
        fresh=4,
        first_fill=40,
        validation_sentences=4,
        warmup=2,
        muon_rate=0.02,
        adamw_rate=2e-3,
        log_every=5,
        validate_every=16,
        save_seconds=60,
    )
    made = words.train(WordsTraining(**settings), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] / 2
    assert {"test_t5_english", "phrasing_clip_chinese"} <= lines[-1].keys()
    weights = load_file(made)
    assert weights["t5.shared.weight"].shape[0] == PRESETS["tiny"].t5.vocab
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("Make the hair blue").ids
