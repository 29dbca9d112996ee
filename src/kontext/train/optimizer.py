"""Muon for the matrices, AdamW for the rest, behind one optimizer.

Muon (Jordan et al., 2024) replaces the momentum of a matrix by the nearest orthogonal one, found with five
Newton-Schulz steps; matrices of one shape are iterated together. Convolutions count as (out, in * kernel).
The iteration tolerates bfloat16 and uses it on hardware with fast bfloat16 products. In float32 it runs on
the small Gram matrices of wide matrices, which takes half the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kontext.errors import BadCheckpoint
from kontext.precision import bfloat16_is_faster

POSITION_RATE = 20
"""Rate of T5's position biases over that of AdamW: a score must move by several units to change attention."""


COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of a Newton-Schulz step: x -> (a + b g + c g^2) x with g = x x^T."""

STEPS = 5


def orthogonalize(momentum: Tensor) -> Tensor:
    """Nearest matrices with all singular values near 1: (n, rows, columns) -> the same shape, float32."""
    low_precision = bfloat16_is_faster(momentum.device.type)
    x = momentum.bfloat16() if low_precision else momentum
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    # All steps are polynomials of one Gram matrix, whose rounding bfloat16 would amplify too much.
    x = _all_steps(x @ x.mT) @ x if not low_precision and x.shape[2] >= 2 * x.shape[1] else _steps(x)
    return (x.mT if tall else x).float()


def _steps(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def _all_steps(gram: Tensor) -> Tensor:
    """The product of all steps' polynomials, from the Gram matrices (n, rows, rows) before the first."""
    a, b, c = COEFFICIENTS
    product: Tensor | None = None
    for step in range(STEPS):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        product = polynomial if product is None else product @ polynomial
        if step < STEPS - 1:
            gram = polynomial @ (gram @ polynomial)
    assert product is not None
    return product


class MuonAdamW(torch.optim.Optimizer):
    """Groups carry `kind` ("muon" or "adamw") and `lr`; weight decay is decoupled in both."""

    def __init__(
        self,
        muon: Iterable[nn.Parameter],
        adamw: Iterable[nn.Parameter],
        positions: Iterable[nn.Parameter] = (),
        *,
        muon_rate: float,
        adamw_rate: float,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
    ):
        position_rate = POSITION_RATE * adamw_rate
        groups = [
            {"params": list(muon), "kind": "muon", "lr": muon_rate, "peak": muon_rate},
            {"params": list(adamw), "kind": "adamw", "lr": adamw_rate, "peak": adamw_rate},
            {"params": list(positions), "kind": "adamw", "lr": position_rate, "peak": position_rate},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, {"weight_decay": weight_decay, "momentum": momentum, "betas": betas})

    def scale_rates(self, factor: float) -> None:
        """Set every learning rate to `factor` times its peak."""
        for group in self.param_groups:
            group["lr"] = factor * group["peak"]

    def resume(self, state: dict[str, object]) -> None:
        """Load the state of a run with the same parameters. Raises BadCheckpoint."""
        try:
            self.load_state_dict(state)
        except ValueError as error:
            raise BadCheckpoint(
                f"the run is of an earlier version ({error}); start a new one from its weights: --start"
            ) from None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (self._muon if group["kind"] == "muon" else self._adamw)(group)

    def _muon(self, group: dict) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is not None:
                by_shape[(p.shape[0], p[0].numel())].append(p)
        beta = group["momentum"]
        for (rows, columns), parameters in by_shape.items():
            grads = [p.grad.float() for p in parameters if p.grad is not None]
            momenta = [self._state(p, "momentum") for p in parameters]
            torch._foreach_lerp_(momenta, grads, 1 - beta)
            nesterov = torch._foreach_lerp(grads, momenta, beta)
            update = torch.stack([u.reshape(rows, columns) for u in nesterov])
            update = orthogonalize(update) * (0.2 * max(rows, columns) ** 0.5)
            updates = [u.reshape(p.shape) for p, u in zip(parameters, update)]
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _adamw(self, group: dict) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        beta1, beta2 = group["betas"]
        grads = [p.grad.float() for p in parameters if p.grad is not None]
        first = [self._state(p, "first") for p in parameters]
        second = [self._state(p, "second") for p in parameters]
        group["count"] = count = group.get("count", 0) + 1
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        root = torch._foreach_sqrt(second)
        torch._foreach_div_(root, (1 - beta2**count) ** 0.5)
        torch._foreach_add_(root, 1e-8)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_addcdiv_(parameters, first, root, -group["lr"] / (1 - beta1**count))

    def _state(self, p: Tensor, name: str) -> Tensor:
        state = self.state[p]
        if name not in state:
            state[name] = torch.zeros_like(p, dtype=torch.float32)
        return state[name]


def split_parameters(
    modules: Iterable[nn.Module], adamw_names: tuple[str, ...]
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Parameters for Muon (matrices, convolutions), AdamW (vectors, `adamw_names`), and position biases."""
    muon: list[nn.Parameter] = []
    adamw: list[nn.Parameter] = []
    positions: list[nn.Parameter] = []
    for module in modules:
        for name, p in module.named_parameters():
            if "relative_attention_bias" in name:
                positions.append(p)
            elif p.ndim < 2 or any(part in name for part in adamw_names):
                adamw.append(p)
            else:
                muon.append(p)
    return muon, adamw, positions
