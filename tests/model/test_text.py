"""The text encoders against `transformers`, on random weights."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, T5EncoderModel
from transformers import T5Config as ReferenceT5Config

from kontext.model.presets import ClipConfig, T5Config
from kontext.model.text import ClipText, T5Encoder, distance_buckets
from support.numeric import difference

T5 = T5Config(
    vocab=60, width=24, heads=3, head_width=10, layers=3, feed_forward=40, buckets=32, max_distance=128
)

ROUNDED = 1e-5
"""Relative to norms of size 1: 80 times float32's eps, for three layers; softmax multiplies roundings."""


def reference_t5() -> T5EncoderModel:
    config = ReferenceT5Config(
        vocab_size=60, d_model=24, num_heads=3, d_kv=10, num_layers=3, d_ff=40, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config).eval()


def clip_pair(end_id: int, activation: str = "quick_gelu") -> tuple[ClipText, CLIPTextModel]:
    config = ClipConfig(
        vocab=50,
        width=24,
        heads=3,
        layers=3,
        feed_forward=48,
        length=20,
        end_id=end_id,
        activation=activation,
    )
    reference = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=50,
            hidden_size=24,
            num_attention_heads=3,
            num_hidden_layers=3,
            intermediate_size=48,
            max_position_embeddings=20,
            eos_token_id=end_id,
            bos_token_id=0,
            hidden_act=activation,
        )
    ).eval()
    torch.manual_seed(0)
    for parameter in reference.parameters():  # biases and norms start at 0 and 1 and would hide mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    ours = ClipText(config)
    ours.load_state_dict(
        {f"text_model.{k.removeprefix('text_model.')}": v for k, v in reference.state_dict().items()}
    )
    return ours, reference


@pytest.fixture(scope="module")
def t5_pair() -> tuple[T5Encoder, T5EncoderModel]:
    reference = reference_t5()
    torch.manual_seed(1)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    state = reference.state_dict()
    state.pop("encoder.embed_tokens.weight", None)
    ours = T5Encoder(T5)
    ours.load_state_dict(state)
    return ours, reference


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 7, 300])
def test_t5_equals_transformers(t5_pair, length):
    ours, reference = t5_pair
    ids = torch.randint(60, (2, length), generator=torch.Generator().manual_seed(length))
    expected = reference(ids).last_hidden_state
    assert difference(ours(ids), expected, size=1) <= ROUNDED
    assert expected.std() > 0.05


@torch.no_grad()
def test_t5_in_bfloat16_stays_near_float32(t5_pair):
    ours, _ = t5_pair
    ids = torch.randint(60, (2, 30), generator=torch.Generator().manual_seed(0))
    exact = ours(ids)
    low = T5Encoder(T5).to(torch.bfloat16)
    low.load_state_dict(ours.state_dict())
    rounded = low(ids)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() / exact.norm() < 0.05


def test_distance_buckets_are_exact_near_and_logarithmic_far():
    distance = torch.tensor([0, 1, 7, 8, 127, 128, 5000])
    # 16 buckets per side: 8 exact, then 8 + floor(8 * log(d / 8) / log(128 / 8)), at most 15
    assert distance_buckets(-distance, 32, 128).tolist() == [0, 1, 7, 8, 15, 15, 15]
    assert distance_buckets(distance, 32, 128).tolist() == [0, 17, 23, 24, 31, 31, 31]


@torch.no_grad()
@pytest.mark.parametrize("end_id", [49, 30])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip_pooled_equals_transformers(end_id, activation):
    ours, reference = clip_pair(end_id, activation)
    ids = torch.randint(1, 29, (3, 20), generator=torch.Generator().manual_seed(2))
    ids[0, 5:], ids[1, 19], ids[2, 11:] = end_id, end_id, end_id  # padded with the end token, as FLUX does
    expected = reference(ids).pooler_output
    assert difference(ours(ids), expected, size=1) <= ROUNDED
    alone = ours(ids[:1, :6])
    assert difference(alone, expected[:1], size=1) <= ROUNDED, "what follows the end token must not matter"


def test_clip_is_the_same_with_and_without_gradients():
    ours, _ = clip_pair(end_id=49)
    ids = torch.tensor([[5, 9, 12, 3, 49, 49], [7, 2, 49, 49, 49, 49]])
    with torch.no_grad():
        expected = ours(ids)
    assert difference(ours(ids).detach(), expected, size=1) <= ROUNDED


@torch.no_grad()
def test_clip_legacy_end_id_pools_at_the_largest_id():
    ours, reference = clip_pair(end_id=2)
    ids = torch.tensor([[1, 2, 9, 49, 49, 3], [1, 4, 49, 2, 2, 2]])
    assert difference(ours(ids), reference(ids).pooler_output, size=1) <= ROUNDED


def test_names_are_those_of_transformers():
    with torch.device("meta"):
        assert set(T5Encoder(T5).state_dict()) == set(reference_t5().state_dict()) - {
            "encoder.embed_tokens.weight"
        }
