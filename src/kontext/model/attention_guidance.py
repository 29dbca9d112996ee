"""Normalized attention guidance: every block moves attention away from that of a negative prompt.

Chen et al., "Normalized Attention Guidance" (arXiv 2505.21179). Unlike guidance of velocities, it works for
models distilled to few steps or to embedded guidance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionGuidance:
    """Guides the picture's rows of an attention over [prompts | negative prompts], stacked in the batch."""

    scale: float
    """How far the features move away from those of the negative prompt; 1: not at all."""
    limit: float = 2.5
    """tau: largest growth of a token's features, as a ratio of L1 norms."""
    share: float = 0.25
    """alpha: share of the guided features in the result; the rest are those of the prompt alone."""

    def __call__(self, attended: Tensor, text_rows: int) -> Tensor:
        """Guide attended (2b, n, width), text first. The picture's rows become equal in both halves."""
        text, picture = attended[:, :text_rows], attended[:, text_rows:]
        prompt, negative = picture.float().chunk(2)
        away = prompt + (self.scale - 1) * (prompt - negative)
        norm, norm_away = (part.abs().sum(-1, keepdim=True) for part in (prompt, away))
        away = away * (self.limit * norm / norm_away.clamp_min(1e-12)).clamp_max(1)
        guided = torch.lerp(prompt, away, self.share).to(attended.dtype)
        return torch.cat((text, guided.repeat(2, 1, 1)), dim=1)
