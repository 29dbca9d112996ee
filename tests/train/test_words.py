"""Pretraining of the text encoders on sentences."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from kontext.errors import BadCheckpoint, BadConfig
from kontext.model.presets import PRESETS
from kontext.train import words
from kontext.train.attributes import IGNORED, Targets, accuracy, correct
from kontext.train.config import WordsTraining
from kontext.train.tokenizer import train_tokenizer
from kontext.world import World


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


def test_the_anchor_counts_sentences_that_the_initial_heads_predict():
    torch.manual_seed(0)
    initial = words.TextEncoders(PRESETS["tiny"], 5)
    ids = torch.randint(4, PRESETS["tiny"].t5.vocab, (6, 8))
    outputs = initial.outputs(ids)
    letters = torch.full((6, 8), IGNORED)
    letters[:, :5] = 0
    letters[2, 3] = 1
    for encoder, logits in enumerate(initial.heads(ids, *outputs)[:2]):
        targets = Targets((logits > 0).float(), letters)
        targets.labels[3:] = 1 - targets.labels[3:]  # the last three are wrong
        wanted = outputs[encoder]
        for moved, expected in ((slice(0, 0), 0.0), (slice(2, 6), 0.0), (slice(1, 2), None)):
            got = wanted.clone()
            got[moved] += 1
            both = (got, outputs[1]) if encoder == 0 else (outputs[0], got)
            loss = words.anchor_loss(both, initial, ids, targets)
            if expected is None:
                expected = 1 / (6 * (wanted - wanted.mean(0)).square().mean())
            torch.testing.assert_close(loss, torch.as_tensor(expected), rtol=1e-4, atol=1e-9)


def test_an_anchored_run_resumes_with_its_anchor_and_needs_a_start(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "TOKENIZER_SAMPLES", 60)
    common = dict(preset="tiny", batch=4, fresh=2, first_fill=8, validation_sentences=2, validate_every=100)
    with pytest.raises(BadConfig, match="--start"):
        words.train(WordsTraining(steps=1, anchor=1.0, **common), tmp_path / "none")
    words.train(WordsTraining(steps=2, **common), tmp_path / "first")
    initial = load_file(tmp_path / "first" / "words.safetensors")
    anchored = WordsTraining(steps=2, anchor=1.0, **common)
    words.train(anchored, tmp_path / "second", initial=tmp_path / "first")
    words.train(anchored.model_copy(update={"steps": 4}), tmp_path / "second", resume=True)
    state = torch.load(tmp_path / "second" / "state.pt", weights_only=True)
    assert state["step"] == 4
    for name, weight in initial.items():
        torch.testing.assert_close(state["anchor"][name], weight, rtol=0, atol=0)
    # or of another run than the start's
    words.train(WordsTraining(steps=1, **common), tmp_path / "other", initial=tmp_path / "first")
    other = load_file(tmp_path / "other" / "words.safetensors")
    folders = tmp_path / "first", tmp_path / "other"
    words.train(anchored, tmp_path / "third", initial=folders[0], anchored_to=folders[1])
    state = torch.load(tmp_path / "third" / "state.pt", weights_only=True)
    for name, weight in other.items():
        torch.testing.assert_close(state["anchor"][name], weight, rtol=0, atol=0)
    (folders[1] / "tokenizer.json").write_text(train_tokenizer(["another"] * 9, 300).to_str())
    with pytest.raises(BadCheckpoint, match="another tokenizer"):
        words.train(anchored, tmp_path / "fourth", initial=folders[0], anchored_to=folders[1])


TRAINED = Path(__file__).parents[2] / "training/nano-256/words"


@pytest.mark.skipif(not TRAINED.exists(), reason="the training state is not part of the package")
def test_the_trained_encoders_understand_phrasings_that_they_have_never_seen():
    start = words.TextStart.read(TRAINED)
    encoders = words.TextEncoders(PRESETS["nano-256"], len(start.labels))
    start.load(encoders, start.labels)
    tokenizer = Tokenizer.from_str(start.tokenizer)
    pools = words.held_out_sentences(World(), 400, start.labels, tokenizer, PRESETS["nano-256"])
    figures = accuracy(correct(encoders, pools["phrasing"]))
    assert min(figures["both_english"], figures["both_chinese"]) >= 0.95  # everything a sentence says
