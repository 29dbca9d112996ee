"""Running metrics of a flow run, reported and reset with every log line."""

from __future__ import annotations

import torch
from torch import Tensor

TIME_BINS = 5


class RegionIou:
    """Intersection over union of predicted and true region tokens since the last log line."""

    def __init__(self) -> None:
        self.both: Tensor | None = None
        self.either: Tensor | None = None

    @torch.no_grad()
    def update(self, logits: Tensor, mask: Tensor, counts: Tensor) -> None:
        """logits and mask (b, tokens); counts (b,): 0 for samples that are ignored."""
        found, true = logits > 0, mask > 0.5
        both = ((found & true) * counts[:, None]).sum()
        either = ((found | true) * counts[:, None]).sum()
        self.both = both if self.both is None else self.both + both
        self.either = either if self.either is None else self.either + either

    def take(self) -> dict[str, object]:
        """The figure since the last call; it waits for the device, which `update` does not."""
        both, either, self.both, self.either = self.both, self.either, None, None
        if both is None or either is None or not float(either):
            return {}
        return {"region_iou": float(both) / float(either)}


class MetricAverager:
    """Means of metrics since the last log line; the loss also in bins of t."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def add(
        self, name: str, loss: Tensor, label_loss: Tensor, norm: Tensor, per_sample: Tensor, t: Tensor
    ) -> None:
        self._append(name, loss)
        self._append("norm", norm)
        if name == "loss":
            self._append("label", label_loss)
            self._append("_error", per_sample)
            self._append("_t", t)

    def add_value(self, name: str, value: Tensor) -> None:
        """Add a metric of its own, a scalar."""
        self._append(name, value)

    def take(self) -> dict[str, object]:
        errors, times = self.values.pop("_error", []), self.values.pop("_t", [])
        figures: dict[str, object] = {
            name: torch.stack(values).mean().item() for name, values in self.values.items()
        }
        if errors:
            error, bins = torch.cat(errors), (torch.cat(times) * TIME_BINS).long().clamp_max(TIME_BINS - 1)
            figures["by_t"] = [
                round(error[bins == i].mean().item(), 3) if (bins == i).any() else None
                for i in range(TIME_BINS)
            ]
        self.values = {}
        return figures

    def _append(self, name: str, value: Tensor) -> None:
        self.values.setdefault(name, []).append(value.detach())
