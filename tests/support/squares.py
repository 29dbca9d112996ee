"""Squares that a model of the engine's tests paints, and where they lie."""

import numpy as np


def paint_square(x0=40, y0=48, side=32, color=(0.9, -0.8, -0.8)):
    def paint(pixels):
        for channel, value in zip(pixels, color):
            channel[y0 : y0 + side, x0 : x0 + side] = value

    return paint


def array(image):
    return np.asarray(image).astype(int)


def square(x0, y0, side, size=(128, 128)):
    mask = np.zeros(size[::-1], bool)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


def expected_tokens(x0, y0, x1, y1):
    where = np.zeros((8, 8), bool)
    where[y0:y1, x0:x1] = True
    return where
