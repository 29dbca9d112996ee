"""Expressions of `alpha_pattern` match what PEFT's matcher matches, and none takes long."""

import json
import re
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from kontext.checkpoint import lora_patterns
from kontext.checkpoint.lora import merged
from kontext.checkpoint.lora_patterns import MAX_LENGTH, Patterns
from kontext.checkpoint.tensors import stored
from kontext.errors import BadCheckpoint

NAMES = st.text("ab.0_", max_size=12)
ATOMS = st.sampled_from(["a", "b", r"\.", ".", r"\d", r"\w", "[ab]", "[^b]", "[a-b0]", "^", "$", "_"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,3}", "{2,}"])).map(
            lambda both: f"({both[0]}){both[1]}"
        ),
    ),
    max_leaves=6,
)
NAME = "transformer_blocks.17.attn.to_out.0"
HOSTILE = {
    "nested": r"(a+)+$",
    "alternatives": r"(a|a)*b",
    "optional": "a?" * 30 + "a" * 30,
    "many": r".*.*.*.*.*.*.*.*b",
    "deep": "(" * 40 + "a" + ")*" * 40 + "b",
    "counted": r"((a{1,99}){1,99}){1,99}b",
    "huge": r"(a{0,4000000000}){4000000000}b",
}


@given(EXPRESSIONS, NAMES)
def test_the_same_names_match_as_in_peft(text, name):
    expected = re.match(rf"(.*\.)?({text})$", name) is not None
    assert Patterns({text: 2.0}).value_of(name, None) == (2.0 if expected else None)


def test_the_first_expression_that_matches_decides():
    patterns = Patterns({r"to_k": 1.0, r"transformer_blocks\.\d+\..*": 2.0, "to_out.0": 3.0})
    assert patterns.value_of(NAME, None) == 2.0
    assert patterns.value_of("single.0.to_out.0", None) == 3.0
    assert patterns.value_of("single.0.to_v", 4.0) == 4.0


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_expression_takes_long(text):
    start = time.process_time()
    try:
        patterns = Patterns({text: 1.0})
        for index in range(500):
            assert patterns.value_of("a" * 100 + f"!.{index}", None) is None
    except ValueError:
        pass
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    "text",
    [
        "(",
        "a**",
        r"(a)\1",
        "(?=a)a",
        "(?<!b)a",
        "(?i)a",
        "(?i:a)",
        r"\ba*",
        "a*+",
        "(?>a*)",
        "(" * 5000,
        "a" * (MAX_LENGTH + 1),
    ],
)
def test_what_cannot_be_followed_is_refused(text):
    with pytest.raises(ValueError):
        Patterns({text: 1.0})


def test_a_file_with_a_hostile_expression_is_refused_in_one_line(tiny, tmp_path, monkeypatch):
    module = "transformer.transformer_blocks.0.attn.to_q"
    width = tiny.preset.transformer.width
    matrices = {
        f"{module}.lora_A.weight": torch.ones(2, width),
        f"{module}.lora_B.weight": torch.ones(width, 2),
    }
    adapter = {"transformer.lora_alpha": 4, "transformer.r": 2, "transformer.alpha_pattern": {"(.+)+x": 3.0}}
    save_file(matrices, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(adapter)})
    parts = {"transformer": stored(tiny.transformer.state_dict())}
    merged(parts, [tmp_path / "a.safetensors"])  # a name is short, so that this does no harm
    monkeypatch.setattr(lora_patterns, "MAX_STEPS", 50)
    with pytest.raises(BadCheckpoint, match="^a.safetensors.*alpha_pattern[^\n]*takes too long"):
        merged(parts, [tmp_path / "a.safetensors"])
