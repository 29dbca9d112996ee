"""Negative prompts: true guidance, attention guidance, the steps in which they act, and what contradicts."""

import numpy as np
import pytest

from kontext.engine import EditRequest
from kontext.engine.guidance import Guidance, plan_guidance, step_range
from kontext.errors import BadRequest


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def edit(editor):
    def run(**options):
        return editor.edit(noise(), "make it red", seed=1, steps=3, lock=False, **options)

    return run


def same(first, other):
    return first.picture.tobytes() == other.picture.tobytes()


def test_without_a_negative_prompt_guidance_goes_away_from_the_empty_one(edit, editor):
    guided = edit(guidance=3.0)
    assert guided.evaluations == 6 and guided.guidance == 3.0
    assert same(guided, edit(true_guidance=3.0)) and same(guided, edit(guidance=3.0, negative_prompt="  "))
    assert not same(guided, edit())


def test_a_negative_prompt_takes_the_place_of_the_empty_one(edit):
    blurry, grey = (edit(guidance=3.0, negative_prompt=words) for words in ("blurry", "grey"))
    assert blurry.evaluations == 6 and not same(blurry, grey) and not same(blurry, edit(guidance=3.0))
    assert blurry.settings["negative_prompt"] == "blurry"
    alone = edit(negative_prompt="blurry")
    assert same(alone, edit(negative_prompt="blurry", true_guidance=2.0)) and alone.guidance == 2.0


def test_a_longer_negative_prompt_lengthens_the_padding_of_both(edit, editor, monkeypatch):
    monkeypatch.setattr(type(editor.model.preset), "padded_length", lambda self, tokens: min(64, tokens + 3))
    asked = []
    states = editor.prompts.states
    monkeypatch.setattr(
        editor.prompts,
        "states",
        lambda prompt, tokens=None, loras=(): asked.append(tokens) or states(prompt, tokens, loras),
    )
    edit(negative_prompt="a long list of what shall never be seen in this picture")
    assert len(asked) == 2 and asked[0] == asked[1] > editor.prompts.tokens("make it red")


def test_steps_without_the_negative_prompt_cost_one_evaluation(edit):
    whole, part = (edit(negative_prompt="blurry", guidance_steps=steps) for steps in (None, "2-3"))
    assert (whole.evaluations, part.evaluations) == (6, 5) and not same(whole, part)
    assert same(whole, edit(negative_prompt="blurry", guidance_steps="1-3"))
    assert same(part, edit(negative_prompt="blurry", guidance_steps="2-200"))


def test_attention_guidance_needs_both_prompts_and_differs_from_true_guidance(edit):
    attention = edit(negative_prompt="blurry", nag=5)
    assert attention.evaluations == 6 and not same(attention, edit(negative_prompt="blurry"))
    assert not same(attention, edit()) and not same(attention, edit(nag=5))


def test_a_prompt_that_is_its_own_negative_changes_nothing_by_attention(edit):
    pixels = [
        np.asarray(edit(**options).picture, int)
        for options in ({}, dict(negative_prompt="make it red", nag=9))
    ]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1  # rounding of a batch of two


def test_pictures_of_a_batch_have_their_own_negative_prompts(editor):
    requests = [
        EditRequest(picture=noise(), prompt="make it red", seed=1, steps=2, lock=False, negative_prompt=words)
        for words in ("blurry", "grey")
    ]
    together = editor.edit_batch(requests)
    for request, result in zip(requests, together):
        (alone,) = editor.edit_batch([request])
        assert np.abs(np.asarray(alone.picture, int) - np.asarray(result.picture)).max() <= 1
    assert not same(*together)


@pytest.mark.parametrize("embeds", [True, False])
def test_guidance_of_requests(embeds):
    def planned(**options):
        return plan_guidance(EditRequest(prompt="a", **options), 1.5, embeds, steps=8)

    default = 1.5 if embeds else 2.0
    assert planned(true_guidance=3) == Guidance(1.5 if embeds else 3.0, 3.0)
    assert planned(guidance=4) == (Guidance(4.0) if embeds else Guidance(4.0, 4.0))
    if embeds:
        assert planned() == Guidance(1.5) and not planned().negative
        assert planned(negative_prompt="b") == Guidance(default, 2.0)
        assert planned(guidance=2.5, nag=5) == Guidance(2.5, attention=5.0)
        assert planned(guidance=1, negative_prompt="b", guidance_steps="2-4") == Guidance(1.0, 2.0, 1.0, 2, 4)


WRONG = {
    "nag above 1": dict(negative_prompt="a", true_guidance=1),
    "give one of them": dict(true_guidance=2, nag=5),
    "begin after the last step, 4": dict(true_guidance=2, guidance_steps="5-8"),
    "needs true_guidance or nag": dict(guidance_steps="1-2"),
    "counted from 1": dict(true_guidance=2, guidance_steps="0-3"),
    "negative prompt has a control character": dict(negative_prompt="a\x00"),
    "negative_prompt must be text": dict(negative_prompt=7),
}


@pytest.mark.parametrize("words", WRONG)
def test_contradictions_are_refused(words):
    with pytest.raises(BadRequest, match=words):
        plan_guidance(EditRequest(prompt="a", **WRONG[words]), 2.5, True, steps=4)


def test_two_names_of_one_setting_must_agree():
    with pytest.raises(BadRequest, match="the same setting"):
        plan_guidance(EditRequest(prompt="a", guidance=3, true_guidance=2), 1.0, False, steps=4)
    assert plan_guidance(EditRequest(prompt="a", guidance=2, true_guidance=2), 1.0, False, steps=4).true == 2


def test_a_negative_prompt_that_is_too_long_is_refused(editor):
    with pytest.raises(BadRequest, match="the negative prompt has .* tokens") as error:
        editor.edit(noise(), "make it red", negative_prompt="not " * 300)
    assert error.value.param == "negative_prompt"


@pytest.mark.parametrize("text", ["1", "3-2", "a-b", "1-2-3", "", "1000-2000"])
def test_step_ranges_that_are_none(text):
    with pytest.raises(BadRequest, match="FIRST-LAST"):
        step_range(text)
