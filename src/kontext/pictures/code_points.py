"""Coding-independent code points (ITU-T H.273) to sRGB: the colors that PNG names in cICP and AVIF in nclx.

SDR is converted as its ICC profile would be: light of the file's primaries becomes light of sRGB's, and what
lies outside is cut off. HDR (PQ and HLG, ITU-R BT.2100) has its reference white of 203 cd/m2 (ITU-R BT.2408)
as 1; light above `KNEE` is compressed below 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WHITE = (0.3127, 0.3290)  # D65, that of all primaries here
PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),  # BT.709, sRGB
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),  # BT.601, 625 lines
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),  # BT.601, 525 lines
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),  # SMPTE 240M
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
"""(x, y) of red, green and blue (H.273, table 2)."""

PQ, HLG = 16, 18
REFERENCE_WHITE = 203.0  # cd/m2
PQ_PEAK, HLG_PEAK, HLG_GAMMA = 10_000.0, 1000.0, 1.2  # cd/m2; the exponent belongs to the peak
KNEE = 0.5  # of reference white, below which light of HDR stays as it is
STRIP_PIXELS = 2**20  # converted at once


@dataclass(frozen=True)
class CodePoints:
    """Colors of a picture whose samples are RGB."""

    primaries: int
    transfer: int
    full_range: bool = True
    """Whether 0 is black and the largest value white; otherwise they are 16 and 235 of 255, as in video."""

    @property
    def is_known(self) -> bool:
        """Whether `to_srgb` can convert them."""
        return self.primaries in PRIMARIES and self.transfer in _LIGHT

    @property
    def is_srgb(self) -> bool:
        return self == CodePoints(1, 13)

    @property
    def is_hdr(self) -> bool:
        return self.transfer in (PQ, HLG)


def to_srgb(values: np.ndarray, points: CodePoints) -> np.ndarray:
    """The 8-bit sRGB of RGB samples (height, width, 3), uint8 or uint16."""
    table = _table(points, 8 * values.dtype.itemsize)
    luminance = _xyz_of(points.primaries)[1].astype(np.float32)
    matrix = (np.linalg.inv(_xyz_of(1)) @ _xyz_of(points.primaries)).astype(np.float32)
    converted = np.empty(values.shape, np.uint8)
    rows = max(1, STRIP_PIXELS // values.shape[1])
    for top in range(0, len(values), rows):
        light = table[values[top : top + rows]]  # (rows, width, 3), 1 is white
        if points.transfer == HLG:  # from light of the scene to that of a display
            light *= (light @ luminance)[..., None] ** (HLG_GAMMA - 1) * (HLG_PEAK / REFERENCE_WHITE)
        if points.is_hdr:
            light = _compressed(light)
        converted[top : top + rows] = _encoded(light @ matrix.T)
    return converted


def _compressed(light: np.ndarray) -> np.ndarray:
    """Light of 0 to any value as 0 to 1, in the same hue: the largest channel decides."""
    largest = light.max(-1, keepdims=True)
    above = np.maximum(largest - KNEE, 0)
    shown = np.minimum(largest, KNEE) + (1 - KNEE) * above / (above + 1 - KNEE)
    return light * (shown / np.maximum(largest, 1e-6))


def _encoded(light: np.ndarray) -> np.ndarray:
    """Light as 8-bit values of sRGB (IEC 61966-2-1)."""
    light = light.clip(0, 1)
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * values).astype(np.uint8)


def _table(points: CodePoints, bits: int) -> np.ndarray:
    """The light of each value of a sample, float32."""
    values = np.arange(2**bits) / (2**bits - 1)
    if not points.full_range:
        values = ((np.arange(2**bits) / 2 ** (bits - 8) - 16) / 219).clip(0, 1)
    return _LIGHT[points.transfer](values).astype(np.float32)


def _srgb(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _pq(values: np.ndarray) -> np.ndarray:
    """BT.2100, table 4."""
    root = values ** (32 / 2523)
    light = (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)
    return light * (PQ_PEAK / REFERENCE_WHITE)


def _hlg(values: np.ndarray) -> np.ndarray:
    """BT.2100, table 5: light of the scene, 0 to 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)


_LIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    **dict.fromkeys((1, 6, 14, 15), _srgb),  # of cameras; browsers, too, show them by the curve of displays
    4: lambda values: values**2.2,
    5: lambda values: values**2.8,
    8: lambda values: values,
    13: _srgb,
    PQ: _pq,
    HLG: _hlg,
}
"""From values of 0 to 1 to light (H.273, table 3)."""


def _xyz_of(primaries: int) -> np.ndarray:
    """The matrix (3, 3) from red, green and blue light to CIE XYZ, with Y = 1 for white (SMPTE RP 177)."""
    colors = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*PRIMARIES[primaries], WHITE)]).T
    return colors[:, :3] * np.linalg.solve(colors[:, :3], colors[:, 3])
