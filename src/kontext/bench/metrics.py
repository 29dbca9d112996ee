"""Exact metrics of one edit: was the requested change made, and nothing else?

The world knows the one right answer of every edit, so no judge is needed. Distances are CIE L*a*b* (D65,
dE76) after a blur of one pixel, because the softness of a codec is not a wrong edit. The headline is a forced
choice: the result must be nearer to the target than to every *distractor* (the untouched source, the same
edit on another thing, another value, an additional stray change), and near enough in absolute terms.
Requires numpy only, so that training can use it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kontext.world import Sample

Picture = NDArray[np.uint8]  # (height, width, 3), sRGB
Mask = NDArray[np.bool_]  # (height, width)
Floats = NDArray[np.float32]
Numbers = NDArray[np.integer | np.floating]

BLUR_PIXELS = 1.0
CHANGED_LEVELS = 10  # the edit is where any channel of source and target differs by more than this ...
UNTOUCHED_LEVELS = 2  # ... and what must be preserved is where none does (in between: not scored)
RING_PIXELS = 4  # around the edit at 256 pixels: scored neither as edit nor as preserved
DISTANCE_CAP = 30.0  # maximum dE of a pixel in the forced choice
ACCURACY_NEEDED = 0.7  # a success needs this share of the edit's pixels within dE 10 of the target ...
ERROR_ALLOWED = 0.2  # ... and at most this edit error (a half-done edit has 0.25)
PSNR_CAP = 100.0  # stands for "bit for bit"
WHOLE_CATEGORIES = frozenset({"style_reference", "character_reference", "generate"})  # new pictures
KEEP_FIGURES = (
    *("keep@2", "keep@5", "keep@10", "keep_psnr", "keep_p99", "spill"),
    *("iou@5", "iou@10", "precision", "recall"),
)


# ---------------------------------------------------------------- color


@lru_cache(maxsize=1)
def _linear_table() -> Floats:
    s = np.linspace(0, 1, 4096, dtype=np.float64)
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4).astype(np.float32)


def blur(picture: Numbers, sigma: float) -> Floats:
    """Gaussian blur, edge-replicated. (h, w) or (h, w, c), any number type -> float32 of the same shape."""
    out = np.asarray(picture, np.float32)
    if sigma <= 0:
        return out
    radius = max(1, int(np.ceil(3 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(out.ndim)]
        wide, length = np.pad(out, pad, mode="edge"), out.shape[axis]
        out = sum(t * np.take(wide, range(i, i + length), axis=axis) for i, t in enumerate(taps))
    return out


def lab(picture: Numbers) -> Floats:
    """sRGB 0..255 (h, w, 3), any number type -> CIE L*a*b* under D65 (h, w, 3) float32."""
    linear = _linear_table()[np.clip(picture * np.float32(4095 / 255) + 0.5, 0, 4095).astype(np.int32)]
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    white = to_xyz.sum(1, keepdims=True)
    xyz = linear @ (to_xyz / white).T.astype(np.float32)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def color_distance(a: Floats, b: Floats) -> Floats:
    """dE76 per pixel of two Lab arrays (..., 3) -> (...)."""
    return np.sqrt(np.square(a - b).sum(-1))


def dilate(mask: Mask, radius: int) -> Mask:
    """Grow a mask by a square of ``radius`` pixels each way."""
    out = mask.copy()
    for axis in (0, 1):
        wide = np.pad(out, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)])
        length = out.shape[axis]
        out = np.any([np.take(wide, range(i, i + length), axis=axis) for i in range(2 * radius + 1)], axis=0)
    return out


def share(good: Mask, where: Mask) -> float:
    """Share of the pixels of ``where`` that are good; 1 when ``where`` is empty."""
    return float(good[where].mean()) if where.any() else 1.0


# ---------------------------------------------------------------- plain measures, used in training too


def psnr(a: Numbers, b: Numbers, where: Mask | None = None) -> float:
    """Peak signal to noise in dB on ``where`` (None: all): at most 100, nan when nothing is compared."""
    square = np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    square = square if where is None else square[where]
    if square.size == 0:
        return float("nan")
    return float(min(PSNR_CAP, 10 * np.log10(255**2 / max(square.mean(), 1e-12))))


def edit_error(result: Numbers, source: Numbers | None, target: Numbers, mask: Mask) -> float:
    """Squared error to the target inside the mask over that of the untouched source: 0 done, 1 not begun.

    Without a source (text to picture) a mid-gray picture takes its place.
    """
    truth = target[mask].astype(np.float64)
    start = np.full_like(truth, 127.5) if source is None else source[mask].astype(np.float64)
    untouched = np.square(start - truth).sum()
    return float(np.square(result[mask].astype(np.float64) - truth).sum() / max(untouched, 1e-9))


def keep_psnr(result: Picture, source: Picture, mask: Mask) -> float:
    """PSNR in dB to the source outside the mask: 100 when bit for bit, nan when the mask is everything."""
    return psnr(result, source, ~mask)


# ---------------------------------------------------------------- one item, prepared


@dataclass(frozen=True, eq=False)
class Case:
    """One item to score results against: source, target and distractors.

    ``whole`` means that the target is a new picture (references, text to picture): every pixel belongs to the
    edit and nothing must be kept. The source is always a distractor; those equal to the target are dropped.
    """

    source: Picture | None
    target: Picture
    distractors: tuple[Picture, ...] = ()
    whole_picture: bool = False

    @classmethod
    def of(cls, sample: Sample, distractors: Iterable[Picture | tuple[str, Picture]] = ()) -> Case:
        """From a world sample and its distractors, which are pictures or (label, picture) pairs."""
        whole_picture = sample.source is None or sample.category in WHOLE_CATEGORIES
        pictures = tuple(r[1] if isinstance(r, tuple) else r for r in distractors)
        return cls(sample.source, sample.target, pictures, whole_picture)

    @property
    def scale(self) -> float:
        """The picture's longer side over 256; scales the unscored ring."""
        return max(self.target.shape[:2]) / 256

    @cached_property
    def changed(self) -> Mask:
        """E: the pixels that the edit changes."""
        if self.whole_picture or self.source is None:
            return np.ones(self.target.shape[:2], bool)
        return np.abs(self.source.astype(np.int16) - self.target).max(-1) > CHANGED_LEVELS

    @cached_property
    def keep_mask(self) -> Mask:
        """P: the pixels that must be preserved, excluding an unscored ring around the edit."""
        if self.whole_picture or self.source is None:
            return np.zeros(self.target.shape[:2], bool)
        touched = np.abs(self.source.astype(np.int16) - self.target).max(-1) > UNTOUCHED_LEVELS
        reach = int(np.ceil(3 * BLUR_PIXELS))  # the edit's own colors are blurred this far
        return ~dilate(touched, max(reach, round(RING_PIXELS * self.scale)))

    @cached_property
    def target_soft(self) -> Floats:
        return blur(self.target, BLUR_PIXELS)

    @cached_property
    def target_lab(self) -> Floats:
        return lab(self.target_soft)

    @cached_property
    def source_soft(self) -> Floats | None:
        return None if self.source is None else blur(self.source, BLUR_PIXELS)

    @cached_property
    def contested(self) -> Mask:
        """A: where target and distractors disagree, with the edit itself."""
        mask = self.changed.copy()
        for distractor in self._wrong.values():
            mask |= np.any(distractor != self.target, axis=-1)
        return mask

    @cached_property
    def _wrong(self) -> dict[int, Picture]:
        """The source as 0, the distractors from 1 on; without those equal to the target or to the source."""
        out = {} if self.source is None else {0: self.source}
        out |= dict(enumerate(self.distractors, 1))
        same = [i for i, p in out.items() if i and self.source is not None and np.array_equal(p, self.source)]
        return {i: p for i, p in out.items() if i not in same and not np.array_equal(p, self.target)}

    @cached_property
    def _wrong_labs(self) -> dict[int, Floats]:
        return {i: lab(blur(p, BLUR_PIXELS))[self.contested] for i, p in self._wrong.items()}

    def choose(self, result_lab: Floats) -> tuple[bool, float, int]:
        """Forced choice: (target strictly nearest?, margin 1 - d_target / d_nearest, index of the nearest).

        Index 0 is the source, i + 1 distractor i; -1 when there is none.
        """
        if not self._wrong:
            return True, 1.0, -1
        here = result_lab[self.contested]

        def distance(other: Floats) -> float:
            return float(np.minimum(color_distance(here, other), DISTANCE_CAP).mean())

        right = distance(self.target_lab[self.contested])
        wrong = {index: distance(other) for index, other in self._wrong_labs.items()}
        nearest = min(wrong, key=wrong.__getitem__)
        return right < wrong[nearest], 1 - right / max(wrong[nearest], 1e-9), nearest

    def score(self, result: Picture) -> dict[str, float]:
        """All figures of one result (uint8, the target's size): shares are 0..1, nan when undefined.

        Raises ValueError when the sizes differ: results are never resized to fit.
        """
        if result.shape != self.target.shape:
            raise ValueError(f"result is {result.shape}, target is {self.target.shape}")
        soft = blur(result, BLUR_PIXELS)
        result_lab, edit, keep = lab(soft), self.changed, self.keep_mask
        chosen, margin, nearest = self.choose(result_lab)
        to_target = color_distance(result_lab, self.target_lab)
        figures: dict[str, float] = {
            "choice": float(chosen),
            "margin": margin,
            "chosen": -1.0 if chosen else float(nearest),
            "accuracy@5": share(to_target <= 5, edit),
            "accuracy@10": share(to_target <= 10, edit),
            "edit_error": edit_error(soft, self.source_soft, self.target_soft, edit),
            "psnr": psnr(result, self.target),
        }
        near_enough = figures["accuracy@10"] >= ACCURACY_NEEDED and figures["edit_error"] <= ERROR_ALLOWED
        figures["success"] = float(chosen and near_enough)
        followed = chosen * figures["accuracy@10"]
        if self.source_soft is None or keep.mean() < 0.01:
            return figures | dict.fromkeys(KEEP_FIGURES, float("nan")) | {"combined": followed}
        shift_lab = color_distance(result_lab, lab(self.source_soft))
        touched = shift_lab > 10
        near = dilate(edit, max(1, round(2 * self.scale)))
        figures |= {
            "keep@2": share(to_target <= 2, keep),  # the target equals the source here
            "keep@5": share(to_target <= 5, keep),
            "keep@10": share(to_target <= 10, keep),
            "keep_psnr": psnr(result, self.target, keep),
            "keep_p99": float(np.percentile(to_target[keep], 99)),
            "spill": share(touched, keep),
            "iou@5": share((to_target <= 5) & edit, edit | ((shift_lab > 5) & keep)),
            "iou@10": share((to_target <= 10) & edit, edit | (touched & keep)),
            "precision": share(near, touched),
            "recall": share(touched, edit),
        }
        return figures | {"combined": float(np.sqrt(followed * figures["keep@5"]))}


def success(result: Picture, sample: Sample, distractors: Iterable[Picture | tuple[str, Picture]]) -> bool:
    """True when the result is nearer to the target than to every distractor, and near enough."""
    return bool(Case.of(sample, distractors).score(result)["success"])
