"""Reading from text alone: batches of one padded length, labels of both languages, heads by label."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from kontext.errors import BadCheckpoint
from kontext.model.autoencoder import Autoencoder
from kontext.model.presets import PRESETS
from kontext.train import attributes, words
from kontext.train.attributes import (
    IGNORED,
    MAX_LETTERS,
    AttributeHeads,
    Predictions,
    Sentence,
    SentencePool,
    Targets,
    accuracy,
    attribute_loss,
    by_kind,
    correct,
    draw,
    letter_positions,
)
from kontext.train.config import FlowTraining, Stage, WordsTraining
from kontext.train.flow import FlowTrainer
from kontext.train.tokenizer import train_tokenizer
from kontext.world import World

SIMPLE = {"families": ("kid",), "art_sets": ("flat",), "kinds": ("hair_color", "cloth_color", "background")}

PRESET = PRESETS["nano-256"]
TEXTS = ["make the hair blue", "change the background to a forest with some cats", "把头发染成蓝色"]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 9, 320)


def filled(tokenizer: Tokenizer, dropout: float = 0.0) -> SentencePool:
    pool = SentencePool(64, ["kind:hair_color", "color:blue", "place:forest"], tokenizer, PRESET, dropout)
    for _ in range(24):
        pool.add(Sentence(TEXTS[0], TEXTS[2], frozenset({"kind:hair_color", "color:blue"})))
        pool.add(Sentence(TEXTS[1], TEXTS[2] * 3, frozenset({"place:forest", "unknown:label"})))
    return pool


def test_a_batch_of_sentences_has_one_padded_length(tokenizer):
    pool, generator, seen = filled(tokenizer), torch.Generator().manual_seed(0), set()
    for _ in range(20):
        ids, targets = pool.draw(8, generator)
        lengths = {PRESET.padded_length(int(n)) for n in (ids != 0).sum(1)}
        assert lengths == {ids.shape[1]} and targets.labels.shape == (8, 3)
        assert ((targets.letters == IGNORED) == (ids == 0)).all() and targets.letters.max() == 0
        seen |= lengths
    assert len(seen) > 1


def test_a_sentence_has_its_labels_in_both_languages(tokenizer):
    pool = filled(tokenizer)
    assert pool.targets[0].tolist() == [True, True, False] and pool.targets[1].tolist() == [
        False,
        False,
        True,
    ]
    assert (pool.ids[0, 0] != pool.ids[0, 1]).any()


def test_tokens_break_in_one_sentence_of_two(tokenizer):
    pool = filled(tokenizer, dropout=0.5)
    plain = filled(tokenizer)
    assert (pool.ids[::2] == plain.ids[::2]).all()
    assert (pool.ids[1:48:2] != plain.ids[1:48:2]).any()


def test_accuracy_counts_sentences_of_which_everything_is_told(tokenizer):
    pool = filled(tokenizer)

    def told(ids):
        of = {pool.ids[i, j, :k].tobytes(): i for i in (0, 1) for j in (0, 1) for k in (8, 16, 24, 32, 40)}
        right = torch.tensor(np.stack([pool.targets[of[row.numpy().tobytes()]] for row in ids])) * 2.0 - 1
        wrong = right.clone()
        wrong[:, 2] = -1.0  # never says forest
        return Predictions(right, wrong, torch.zeros(*ids.shape, 1 + MAX_LETTERS))

    right = correct(told, pool)
    expected = {"t5": 1, "clip": 0.5, "both": 0.5}  # by both: 1 - 1 says nothing
    assert accuracy(right) == {f"{k}_{of}": v for k, v in expected.items() for of in ("english", "chinese")}
    assert by_kind(right, pool) == {"hair_color": [1.0, 1.0]}


def test_the_loss_is_that_of_independent_labels(tokenizer):
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    targets = torch.tensor([[1.0, 0.0, 1.0]])
    said = torch.tensor([2.0, 1.0, 0.5])
    expected = 2 * torch.log1p(torch.exp(-said)).sum()
    letters = torch.tensor([[[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    expected += torch.log1p(2 * torch.exp(torch.tensor([-3.0, -2.0]))).sum()
    loss = attribute_loss(Predictions(logits, logits, letters), Targets(targets, torch.tensor([[0, 1]])))
    assert loss.item() == pytest.approx(expected.item())


SPELLED = ["change 'TEA' to 'TEAK'", "把“TEA”改成“TEAK”"]


def test_letters_of_the_new_word_are_counted(tokenizer):
    pool = SentencePool(4, ["kind:text"], tokenizer, PRESET)
    pool.add(Sentence(*SPELLED, frozenset({"kind:text"}), ("TEAK",)))
    pool.add(Sentence(TEXTS[0], TEXTS[2], frozenset()))
    for language in range(2):
        ids, letters = pool.ids[0, language], pool.letters[0, language]
        assert letters[letters > 0].tolist() == [1, 2, 3, 4]
        assert [tokenizer.id_to_token(i) for i in ids[letters > 0]] == list("teak")
        assert not letters[: np.flatnonzero(ids == tokenizer.token_to_id("t"))[0] + 3].any()  # of 'TEA'
    assert not pool.letters[1].any()


@pytest.mark.parametrize("wrong", [False, True])
def test_accuracy_of_letters_is_that_of_sentences_that_spell(tokenizer, wrong):
    pool = SentencePool(4, ["kind:text"], tokenizer, PRESET)
    pool.add(Sentence(*SPELLED, frozenset({"kind:text"}), ("TEAK",)))
    pool.add(Sentence(TEXTS[0], TEXTS[2], frozenset()))

    def predict(ids):
        language = int(not (pool.ids[:2, 0, : ids.shape[1]] == ids[0].numpy()).all(1).any())
        letters = torch.from_numpy(pool.letters[:2, language, : ids.shape[1]]).long()
        rows = [int((pool.ids[:2, language, : ids.shape[1]] == row.numpy()).all(1).argmax()) for row in ids]
        chosen = F.one_hot(letters[rows], 1 + MAX_LETTERS).float()
        if wrong and language == 1:
            chosen = chosen.roll(1, -1)
        return Predictions(torch.zeros(len(ids), 1), torch.zeros(len(ids), 1), chosen)

    figures = accuracy(correct(predict, pool))
    assert figures["letters_english"] == 1 and figures["letters_chinese"] == float(not wrong)


def test_a_word_is_found_where_it_comes_last():
    def positions(ids, words, letters=()):
        return letter_positions(np.array(ids), words, letters).tolist()

    assert positions([5, 6, 9, 5, 6, 7], [[5, 6]]) == [0, 0, 0, 1, 2, 0]
    assert positions([5, 6, 9, 8], [[9], [5, 6], [4], [None]]) == [1, 2, 1, 0]
    assert positions(range(20), [list(range(15))])[10:16] == [11, 12, 12, 12, 12, 0]


def test_a_word_inside_another_one_is_not_the_word():
    letters = {1, 5, 6, 7}
    assert (
        letter_positions(np.array([2, 5, 6, 2, 1, 5, 6, 2]), [[5, 6]], letters).tolist()
        == [0, 1, 2] + [0] * 5
    )
    assert not letter_positions(np.array([2, 5, 6, 7]), [[5, 6]], letters).any()


def test_heads_are_loaded_by_label(tmp_path):
    preset = PRESETS["tiny"]
    saved, other = AttributeHeads(preset, 3), AttributeHeads(preset, 2)
    before = other.clip_head.weight.detach().clone()
    save_file(saved.state_dict(), tmp_path / "heads.safetensors")
    (tmp_path / "labels.json").write_text(json.dumps(["a", "b", "c"]))
    other.load(tmp_path, ["c", "new"])
    assert torch.equal(other.clip_head.weight[0], saved.clip_head.weight[2])
    assert torch.equal(other.clip_head.weight[1], before[1])
    other.load(tmp_path / "missing", ["c", "new"])
    assert other.fits(other.state_dict(), ["c"], ["c"]) and not other.fits(other.state_dict(), ["c"], ["d"])
    assert not other.fits(saved.state_dict(), ["c"], ["c"])


def test_heads_of_another_kind_are_left_out():
    heads = AttributeHeads(PRESETS["tiny"], 2)
    before = heads.t5_head.weight.detach().clone()
    heads.copy({"t5_head.weight": torch.ones(2, 5), "t5_head.bias": torch.ones(2)}, ["a", "b"], ["b", "a"])
    assert torch.equal(heads.t5_head.weight, before) and heads.t5_head.bias.tolist() == [1, 1]


@pytest.fixture
def few_labels(monkeypatch):
    monkeypatch.setattr(attributes, "LABEL_SAMPLES", 60)
    monkeypatch.setattr(words, "TOKENIZER_SAMPLES", 60)


def words_settings(**changes) -> WordsTraining:
    plain = dict(preset="tiny", steps=30, batch=16, fresh=4, pool=100, first_fill=40, world=SIMPLE)
    plain |= dict(log_every=5, validate_every=30, validation_sentences=8, warmup=1, decay_share=0.0)
    return WordsTraining(**{**plain, **changes})


def test_words_are_learned_and_a_later_run_starts_from_them(tmp_path, few_labels):
    words.train(words_settings(), tmp_path / "first")
    lines = [json.loads(line) for line in (tmp_path / "first" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert {"phrasing_clip_english", "test_t5_chinese", "kinds"} <= lines[-1].keys()
    words.train(words_settings(steps=1), tmp_path / "second", initial=tmp_path / "first")
    first, second = (load_file(tmp_path / run / "words.safetensors") for run in ("first", "second"))
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 0.1
    tokenizers = [(tmp_path / run / "tokenizer.json").read_text() for run in ("first", "second")]
    assert tokenizers[0] == tokenizers[1]
    with pytest.raises(BadCheckpoint, match="words.safetensors"):
        words.train(words_settings(), tmp_path / "third", initial=tmp_path)


@pytest.fixture
def codec(tmp_path):
    """An untrained autoencoder with a small tokenizer."""
    save_file(Autoencoder(PRESETS["tiny"].autoencoder).state_dict(), tmp_path / "autoencoder.safetensors")
    (tmp_path / "latents.json").write_text(json.dumps({"scale": 1.0, "shift": 0.0}))
    return tmp_path / "autoencoder.safetensors"


def flow_run(folder, codec, resume=False, initial=None, words=None, **changes) -> FlowTrainer:
    plain = dict(preset="tiny", steps=2, batch=4, fresh=2, pool=16, first_fill=4, workers=0, warmup=1)
    plain |= dict(decay_share=0.0, log_every=1, validate_every=5, validation_pairs=2, validation_sentences=4)
    config = FlowTraining(**plain | {"curriculum": (Stage(world=SIMPLE),), "save_seconds": 0.0} | changes)
    folder.mkdir(exist_ok=True)
    train_tokenizer(TEXTS * 9, 300).save(str(folder / "tokenizer.json"))
    return FlowTrainer(config, folder, codec, resume, initial, words)


def test_a_flow_run_reads_beside_pictures_and_resumes_with_its_heads(tmp_path, codec, few_labels):
    folder = tmp_path / "run"
    flow_run(folder, codec).train()
    resumed = flow_run(folder, codec, resume=True, steps=5, words_batch=8)
    heads = resumed.attribute_task.heads.clip_head.weight.detach().clone()
    resumed.train()
    assert not torch.equal(resumed.attribute_task.heads.clip_head.weight, heads)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert any("words" in line for line in lines) and "phrasing_t5_english" in lines[-1]
    again = flow_run(folder, codec, resume=True, steps=5, words_batch=8)
    assert torch.equal(
        again.attribute_task.heads.clip_head.weight, resumed.attribute_task.heads.clip_head.weight
    )
    assert (
        again.attribute_task.labels == resumed.attribute_task.labels
        and again.attribute_task.loader.seed == resumed.attribute_task.loader.seed
    )


def test_the_gradient_of_the_attributes_reaches_both_encoders_and_is_clipped(tmp_path, codec, few_labels):
    run = flow_run(tmp_path / "run", codec, words_batch=8, words_norm=0.25)
    run.attribute_task.backward()
    encoders = [run.networks.t5, run.networks.clip]
    for module in (*encoders, run.attribute_task.heads):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters() if p.ndim > 1)
    gradients = [p.grad for module in encoders for p in module.parameters()]
    assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(0.25, rel=1e-4)
    assert all(p.grad is None for p in run.networks.transformer.parameters())


def test_sentences_of_the_world_are_drawn_by_seed():
    assert draw(World(), 3) == draw(World(), 3) != draw(World(), 4)


def test_the_encoders_train_alone_through_a_frozen_transformer(tmp_path, codec, few_labels):
    run = flow_run(tmp_path / "run", codec, words_batch=8, freeze_transformer=True)
    before = {name: weight.clone() for name, weight in run.networks.state_dict().items()}
    run.train()
    changed = {name for name, weight in run.networks.state_dict().items() if not weight.equal(before[name])}
    assert not any(name.startswith("transformer.") for name in changed)
    assert {name.split(".")[0] for name in changed} == {"t5", "clip", "label"}


@pytest.mark.parametrize("words_batch", [0, 8])
def test_the_transformer_trains_alone_with_frozen_encoders(tmp_path, codec, few_labels, words_batch):
    run = flow_run(tmp_path / "run", codec, words_batch=words_batch, freeze_encoders=True)
    before = {name: weight.clone() for name, weight in run.networks.state_dict().items()}
    heads = run.attribute_task and copy.deepcopy(run.attribute_task.heads.state_dict())
    run.train()
    changed = {name for name, weight in run.networks.state_dict().items() if not weight.equal(before[name])}
    assert {name.split(".")[0] for name in changed} == {"transformer", "label"}
    if heads:
        after = run.attribute_task.heads.state_dict()
        assert not after["clip_head.weight"].equal(heads["clip_head.weight"])


def test_sentences_go_on_from_a_flow_run_and_come_back_to_it(tmp_path, codec, few_labels):
    flow_run(tmp_path / "first", codec, words_batch=8).train()
    state = tmp_path / "first" / "state.pt"
    words.train(words_settings(steps=1, muon_rate=1e-9, adamw_rate=1e-9), tmp_path / "words", initial=state)
    averaged = torch.load(state, weights_only=True)["averaged"]
    encoders = load_file(tmp_path / "words" / "words.safetensors")
    for name, weight in encoders.items():
        torch.testing.assert_close(weight, averaged[name], rtol=0, atol=1e-4)
    save_file({k: w + 1 for k, w in encoders.items()}, tmp_path / "words" / "words.safetensors")
    run = flow_run(tmp_path / "second", codec, initial=state, words=tmp_path / "words", words_batch=8)
    for name, weight in run.networks.state_dict().items():
        expected = encoders[name] + 1 if name in encoders else averaged[name]
        torch.testing.assert_close(weight, expected, rtol=0, atol=0)
    heads = load_file(tmp_path / "words" / "heads.safetensors")
    labels, own = json.loads((tmp_path / "words" / "labels.json").read_text()), run.attribute_task.labels
    for label in set(labels) & set(own):
        weight = run.attribute_task.heads.clip_head.weight[own.index(label)]
        torch.testing.assert_close(weight, heads["clip_head.weight"][labels.index(label)], rtol=0, atol=0)
    torch.save({"step": 1}, tmp_path / "other.pt")
    for path in (tmp_path / "other.pt", tmp_path / "missing.pt"):
        with pytest.raises(BadCheckpoint, match="not the state of a|no such file"):
            words.train(words_settings(), tmp_path / "third", initial=path)
    train_tokenizer(TEXTS, 290).save(str(tmp_path / "words" / "tokenizer.json"))
    for folder, message in (
        (tmp_path / "missing", "no such file"),
        (tmp_path / "first", "words.safetensors"),
    ):
        with pytest.raises(BadCheckpoint, match=message):
            flow_run(tmp_path / "fourth", codec, initial=state, words=folder)
    with pytest.raises(BadCheckpoint, match="different tokenizers"):
        flow_run(tmp_path / "fourth", codec, initial=state, words=tmp_path / "words")
