"""Scenes to pixels: background, far objects, character, near objects, sign, weather, style, red box."""

import numpy as np
from PIL import Image, ImageDraw

from ..drawing.backgrounds import background_picture, tint_of, weather_layer
from ..drawing.characters import draw_character
from ..drawing.objects import draw_object
from ..drawing.out_of_domain import draw_out_of_domain
from ..drawing.raster import SIZE, paste
from ..drawing.signs import draw_sign
from ..drawing.styles import styled
from .scene import Scene


def render(scene: Scene) -> np.ndarray:
    """A scene as pixels: uint8, 256 x 256 x 3, red green blue."""
    if "foreign" in scene:
        canvas = draw_out_of_domain(scene["foreign"])
    elif scene["sheet"]:
        canvas = _draw_sheet(scene)
    else:
        canvas = _draw_scene(scene)
    pixels = np.asarray(canvas)
    if scene["style"]:
        pixels = styled(pixels, scene["style"])
    if scene["box"]:
        picture = Image.fromarray(pixels)
        ImageDraw.Draw(picture).rectangle(tuple(scene["box"]), outline=(255, 0, 0), width=4)
        pixels = np.asarray(picture)
    return pixels


def _draw_scene(scene: Scene) -> Image.Image:
    background, sign, art = scene["background"], scene["sign"], scene["art"]
    canvas = background_picture(background).copy()
    tint = tint_of(background)
    for thing in scene["objects"]:
        if not thing["ground"]:
            draw_object(canvas, thing, art, tint)
    if scene["character"]:
        draw_character(canvas, scene["character"], scene["held"], art, tint)
    for thing in scene["objects"]:
        if thing["ground"]:
            draw_object(canvas, thing, art, tint)
    if sign:
        draw_sign(canvas, sign, None if sign["kind"] == "bubble" else tint)
    if background["weather"]:
        paste(canvas, weather_layer(background["weather"]), 0, 0)
    return canvas


def _draw_sheet(scene: Scene) -> Image.Image:
    """Several views of one character side by side on paper."""
    canvas = Image.new("RGB", (SIZE, SIZE), "#f7f3ea")
    ImageDraw.Draw(canvas).rectangle((0, 222, SIZE, SIZE), fill="#e9e1d0")
    for view, x in zip(scene["sheet"], (45, 128, 211)):
        c = {
            **scene["character"],
            "x": x,
            "base": 244,
            "height": 190,
            "view": view,
            "pose": "stand",
            "full": True,
        }
        draw_character(canvas, c, None, "flat", None)
    return canvas
