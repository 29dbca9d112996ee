"""ICC profiles and the curve of sRGB, for tests of colors."""

import struct

import numpy as np
from PIL import ImageCms


def icc(curve, *, space=b"RGB ", name="a profile", primaries=None):
    """An ICC 2 profile of one curve (gamma, or table of 16 bits), as matrix (sRGB's primaries) or gray."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).profile
    text = name.encode() + b"\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
    }
    if isinstance(curve, float):
        trc = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(curve * 256)) + b"\0\0"
    else:
        trc = b"curv\0\0\0\0" + struct.pack(">I", len(curve)) + np.asarray(curve, ">u2").tobytes()
        trc += b"\0" * (-len(trc) % 4)
    if space == b"GRAY":
        tags[b"kTRC"] = trc
    else:
        colors = primaries or [srgb.red_colorant[0], srgb.green_colorant[0], srgb.blue_colorant[0]]
        for letter, color in zip(b"rgb", colors):
            tags[bytes([letter]) + b"XYZ"], tags[bytes([letter]) + b"TRC"] = xyz(color), trc
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += tag + struct.pack(">II", at + len(body), len(content))
        body += content
    size = at + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + xyz((0.9642, 1.0, 0.8249))[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def xyz(values):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def srgb_curve(points=1024):
    x = np.linspace(0, 1, points)
    return np.rint(np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) * 65535)


def to_srgb(linear):
    x = np.asarray(linear, float)
    return 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
