"""A network with smaller tokens starts from the weights of the same network with larger ones."""

import torch

from kontext.model.presets import PRESETS
from kontext.train.networks import Networks, for_smaller_tokens, take

COARSE, FINE = PRESETS["nano-256"], PRESETS["nano-256-p16"]


def test_weights_for_smaller_tokens_do_to_four_equal_ones_what_they_did_to_one():
    torch.manual_seed(0)
    coarse, fine = Networks(COARSE), Networks(FINE)
    for parameter in coarse.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    fine.load(coarse.state_dict(), complete=False)
    small = torch.randn(2, 5, 64)
    large = small[..., None].expand(-1, -1, -1, 4).flatten(2)  # tokens (channels, 2, 2)
    read, expected = fine.transformer.img_in(small), coarse.transformer.img_in(large)
    assert torch.allclose(read, expected, atol=1e-5)
    hidden = torch.randn(2, 5, 192)
    painted, whole = (
        fine.transformer.final_layer.linear(hidden),
        coarse.transformer.final_layer.linear(hidden),
    )
    assert torch.allclose(painted, whole.unflatten(-1, (-1, 4)).mean(-1), atol=1e-5)
    for name, value in fine.state_dict().items():
        if not name.startswith(("letters.", "transformer.img_in.weight", "transformer.final_layer.linear")):
            assert torch.equal(value, coarse.state_dict()[name]), name


def test_weights_for_tokens_of_the_same_size_are_left_as_they_are():
    weights = Networks(FINE).state_dict()
    assert for_smaller_tokens(weights, FINE.transformer) is weights


def test_values_of_some_tokens_are_those_of_each_sample():
    values = torch.arange(24).reshape(2, 4, 3)
    taken = take(values, torch.tensor([[0, 3], [1, 2]]))
    assert taken.tolist() == [[[0, 1, 2], [9, 10, 11]], [[15, 16, 17], [18, 19, 20]]]
