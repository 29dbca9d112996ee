"""diffusers on our weights: FluxKontextPipeline as a function, to be timed and to be scored."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kontext.engine.context import device_of, parameter_type
from kontext.errors import BadRequest
from kontext.kernels import use_transformer_kernels

if TYPE_CHECKING:
    from kontext.checkpoint.model import Model
    from kontext.engine import Editor

LONG = 28  # steps that diffusers takes by default


@dataclasses.dataclass(frozen=True)
class EncodedInputs:
    """Inputs of both engines: the picture (1, 3, h, w) in 0..1, text states, noise (1, 16, h/8, w/8)."""

    picture: Tensor
    text: Tensor
    pooled: Tensor
    noise: Tensor
    steps: int
    guidance: float


def as_full(model: Model) -> Model:
    """The model with the same weights in memory, full attention as in FLUX.1 Kontext, and a single data type.

    Raises BadRequest for a network that diffusers does not have.
    """
    from kontext.checkpoint.configs import to_diffusers_config
    from kontext.checkpoint.placement import Placement, build

    config = dataclasses.replace(model.transformer.config, context_attention="full")
    for part in (config, model.preset.autoencoder):
        to_diffusers_config(part)
    dtype = parameter_type(model.transformer)
    transformer = model.transformer
    if transformer.config != config:
        placement = Placement.of(device_of(model), dtype)
        transformer = build("transformer", config, model.weights()["transformer"], placement)
        use_transformer_kernels(transformer)
    autoencoder = copy.deepcopy(model.autoencoder).to(dtype)  # a processor's decoder may be in bfloat16
    preset = dataclasses.replace(model.preset, transformer=config)
    return dataclasses.replace(
        model, preset=preset, transformer=transformer, autoencoder=autoencoder, source=None
    )


def diffusers_inputs(model: Model) -> Callable[[EncodedInputs], Tensor]:
    """FluxKontextPipeline on the model's weights, as a function. Raises BadRequest when it is missing."""
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise BadRequest("diffusers is not installed; pip install 'openkontext[test]'") from error
    from kontext.checkpoint.save import SCHEDULER
    from kontext.model.tokens import pack

    transformers.logging.set_verbosity_error()  # their warnings are not relevant here
    dtype = parameter_type(model.transformer)
    settings = {name: value for name, value in SCHEDULER.items() if not name.startswith("_")}
    if model.preset.sampling.shift is not None:  # models of our own bring their schedule
        settings |= {"shift": model.preset.sampling.shift, "use_dynamic_shifting": False}
    parts = {
        "transformer": diffusers_network(diffusers.FluxTransformer2DModel, model, "transformer"),
        "vae": diffusers_network(diffusers.AutoencoderKL, model, "autoencoder"),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**settings),
    }
    none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline: Any = diffusers.FluxKontextPipeline(**parts, **none)  # type: ignore[operator]
    pipeline.set_progress_bar_config(disable=True)

    def edit(inputs: EncodedInputs) -> Tensor:
        height, width = inputs.picture.shape[-2:]
        return pipeline(
            image=inputs.picture,
            height=height,
            width=width,
            num_inference_steps=inputs.steps,
            guidance_scale=inputs.guidance,
            prompt_embeds=inputs.text,
            pooled_prompt_embeds=inputs.pooled,
            latents=pack(inputs.noise).to(device_of(model), dtype),
            max_area=height * width,
            _auto_resize=False,
            output_type="pt",
        ).images.float()

    return edit


def diffusers_network(kind: Any, model: Model, part: str) -> torch.nn.Module:
    """A network of diffusers on our tensors; only what is stored in another order is copied."""
    from kontext.checkpoint.configs import to_diffusers_config
    from kontext.checkpoint.names import to_diffusers

    settings = to_diffusers_config(getattr(model.preset, part))
    with torch.device("meta"):
        network: torch.nn.Module = kind(**{k: v for k, v in settings.items() if not k.startswith("_")})
    weights = to_diffusers(part, model.weights()[part])
    network.load_state_dict({name: tensor.read() for name, tensor in weights.items()}, assign=True)
    return network.eval().requires_grad_(False)


class Peer:
    """FluxKontextPipeline on the weights of ``editor``; every picture is edited at its own size."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self._edit = diffusers_inputs(as_full(editor.model))

    def edit(self, picture: np.ndarray, prompt: str, seed: int, steps: int = LONG) -> np.ndarray:
        """uint8 (h, w, 3) -> the same; sides are multiples of 16."""
        model = self.editor.model
        text, pooled = self.editor.prompts.states(prompt)
        height, width, _ = picture.shape
        inputs = EncodedInputs(
            torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float().div(255).to(device_of(model)),
            text,
            pooled,
            torch.randn(1, 16, height // 8, width // 8, generator=torch.Generator().manual_seed(seed)),
            steps,
            max(1.0, model.preset.sampling.guidance),
        )
        with torch.inference_mode():
            output = self._edit(inputs)[0].permute(1, 2, 0)
        return (output * 255).round().byte().cpu().numpy()
