"""Things in the picture: 95 concepts with short names in two languages, drawn in four parallel sets.

A concept says where it may be (on the ground, in the sky, in a hand: those also stand on the ground) and
whether its main hue can be changed without harm.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops

from .art import pack
from .colors import COLORS, recolored
from .raster import INK, Layer, Tint, cropped, paste, rasterize, shadow, svg_document

ART_SETS = ("flat", "noto", "twemoji", "line")


class Concept(NamedTuple):
    """A thing with a name: icon in the packages, words, where it may be, whether it can be recolored."""

    icon: str
    english: str
    chinese: str
    place: str
    colorable: bool


_TABLE = """\
cat-face|cat|猫|ground
dog-face|dog|狗|ground
rabbit-face|rabbit|兔子|ground
fox|fox|狐狸|ground
bear|bear|熊|ground
panda|panda|熊猫|ground
koala|koala|考拉|ground
tiger-face|tiger|老虎|ground
lion|lion|狮子|ground
pig-face|pig|小猪|ground
frog|frog|青蛙|ground
monkey-face|monkey|猴子|ground
penguin|penguin|企鹅|ground
hatching-chick|chick|小鸡|ground
owl|owl|猫头鹰|ground
unicorn|unicorn|独角兽|ground
snail|snail|蜗牛|ground
turtle|turtle|乌龟|ground
octopus|octopus|章鱼|ground
tropical-fish|fish|鱼|ground
spouting-whale|whale|鲸鱼|ground
butterfly|butterfly|蝴蝶|sky
honeybee|bee|蜜蜂|sky
sauropod|dinosaur|恐龙|ground
elephant|elephant|大象|ground
crab|crab|螃蟹|ground|colorable
bird|bird|小鸟|sky|colorable
hedgehog|hedgehog|刺猬|ground
red-apple|apple|苹果|hold|colorable
banana|banana|香蕉|hold
strawberry|strawberry|草莓|hold
pineapple|pineapple|菠萝|hold
pizza|slice of pizza|披萨|hold
hamburger|hamburger|汉堡|hold
doughnut|donut|甜甜圈|hold
birthday-cake|birthday cake|生日蛋糕|hold
shortcake|piece of cake|蛋糕|hold
cupcake|cupcake|纸杯蛋糕|hold
soft-ice-cream|ice cream cone|冰淇淋|hold
lollipop|lollipop|棒棒糖|hold
hot-beverage|cup of coffee|咖啡|hold
bubble-tea|bubble tea|奶茶|hold
cookie|cookie|饼干|hold
carrot|carrot|胡萝卜|hold
mushroom|mushroom|蘑菇|ground|colorable
balloon|balloon|气球|hold|colorable
wrapped-gift|gift box|礼物盒|hold
teddy-bear|teddy bear|泰迪熊|hold
guitar|guitar|吉他|hold
trumpet|trumpet|小号|hold
camera|camera|相机|hold
closed-book|book|书|hold|colorable
umbrella|umbrella|雨伞|hold|colorable
bouquet|bouquet of flowers|花束|hold
rose|rose|玫瑰|hold|colorable
sunflower|sunflower|向日葵|hold
tulip|tulip|郁金香|hold|colorable
key|key|钥匙|hold
light-bulb|light bulb|灯泡|hold
crystal-ball|crystal ball|水晶球|hold|colorable
red-paper-lantern|paper lantern|灯笼|hold|colorable
trophy|trophy|奖杯|hold
soccer-ball|soccer ball|足球|hold
basketball|basketball|篮球|hold|colorable
kite|kite|风筝|sky
red-heart|heart|爱心|hold|colorable
star|star|星星|hold
gem-stone|gem|宝石|hold|colorable
alarm-clock|alarm clock|闹钟|hold|colorable
mobile-phone|phone|手机|hold
laptop|laptop|笔记本电脑|ground
television|television|电视机|ground
backpack|backpack|背包|hold|colorable
potted-plant|potted plant|盆栽|ground
cactus|cactus|仙人掌|ground
evergreen-tree|pine tree|松树|ground
palm-tree|palm tree|棕榈树|ground
snowman-without-snow|snowman|雪人|ground
jack-o-lantern|pumpkin lantern|南瓜灯|ground
christmas-tree|Christmas tree|圣诞树|ground
automobile|car|汽车|ground|colorable
bus|bus|公交车|ground
bicycle|bicycle|自行车|ground
sailboat|sailboat|帆船|ground
rocket|rocket|火箭|sky
helicopter|helicopter|直升机|sky
airplane|airplane|飞机|sky
flying-saucer|UFO|飞碟|sky
house|house|房子|ground
tent|tent|帐篷|ground
castle|castle|城堡|ground
chair|chair|椅子|ground|colorable
rainbow|rainbow|彩虹|sky
robot|robot|机器人|ground
ghost|ghost|幽灵|sky
"""


def _concept(line: str) -> Concept:
    icon, english, chinese, place, *colorable = line.split("|")
    return Concept(icon, english, chinese, place, bool(colorable))


CONCEPTS = {concept.english: concept for concept in map(_concept, _TABLE.splitlines())}
GROUND = tuple(name for name, concept in CONCEPTS.items() if concept.place == "ground")
SKY = tuple(name for name, concept in CONCEPTS.items() if concept.place == "sky")
HOLD = tuple(name for name, concept in CONCEPTS.items() if concept.place == "hold")
ANIMALS = tuple(CONCEPTS)[:28]


def _filled_silhouette(ink: Image.Image, color: str) -> Image.Image:
    """Line art on a paper cut-out: whatever cannot be reached from the border is filled with `color`."""
    alpha = ink.getchannel("A")
    free = np.pad(np.asarray(alpha) <= 100, 1, constant_values=True)
    border = np.zeros_like(free)
    border[0] = border[-1] = border[:, 0] = border[:, -1] = True
    outside = border
    while True:
        grown = outside.copy()
        grown[1:] |= outside[:-1]
        grown[:-1] |= outside[1:]
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown = grown & free | border
        if (grown == outside).all():
            break
        outside = grown
    silhouette = Image.fromarray((~outside[1:-1, 1:-1] * 255).astype(np.uint8))
    paper = Image.new("RGBA", ink.size, (0, 0, 0, 0))
    paper.paste(color, (0, 0, *ink.size), ImageChops.lighter(silhouette, alpha))
    return Image.alpha_composite(paper, ink)


@functools.lru_cache(maxsize=4000)
def object_layer(art: str, name: str, size: int, color: str | None = None) -> Layer:
    """A concept in one drawing set, in a square of `size` pixels, its main hue changed to `color`."""
    width, height, body = pack()["objects"][art][name]
    if art == "line":
        ink = rasterize(svg_document(body.replace("currentColor", INK), width, height), size, size)
        return cropped(_filled_silhouette(ink, COLORS[color].hex if color else "#ffffff"))
    svg = svg_document(body, width, height)
    return cropped(rasterize(recolored(svg, color) if color else svg, size, size))


def object_box(thing: dict[str, Any], art: str) -> tuple[int, int, int, int]:
    """The pixels that a placed object covers: left, top, right, bottom."""
    drawing = object_layer(art, thing["name"], thing["size"], thing["color"])
    left = thing["x"] - thing["size"] // 2 + drawing.offset[0]
    top = thing["y"] - thing["size"] // 2 + drawing.offset[1]
    return left, top, left + drawing.mask.width, top + drawing.mask.height


def draw_object(canvas: Image.Image, thing: dict[str, Any], art: str, tint: Tint) -> None:
    """Draw a placed object centered on its (x, y), with a shadow where it stands on the ground."""
    if thing["ground"]:
        left, _, right, bottom = object_box(thing, art)
        width = max(20, int((right - left) * 0.86)) // 4 * 4
        paste(canvas, shadow(width), (left + right - width) // 2, bottom - 8)
    half = thing["size"] // 2
    drawing = object_layer(art, thing["name"], thing["size"], thing["color"])
    paste(canvas, drawing, thing["x"] - half, thing["y"] - half, tint)
