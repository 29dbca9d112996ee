"""Words for what characters have and do, in English and Chinese, and small rules of grammar."""

import re
from typing import Any

from ..drawing.colors import COLORS, HAIR_COLORS
from ..drawing.objects import CONCEPTS

Words = tuple[str, str]  # English, Chinese

HAIR: dict[str, Words] = {
    "short": ("short hair", "短发"),
    "bob": ("a bob haircut", "波波头"),
    "long": ("long hair", "长发"),
    "ponytail": ("a ponytail", "马尾辫"),
    "bun": ("hair in a bun", "丸子头"),
    "twintails": ("pigtails", "双马尾"),
    "afro": ("an afro", "爆炸头"),
    "curly": ("curly hair", "卷发"),
    "spiky": ("spiky hair", "刺猬头"),
    "mohawk": ("a mohawk", "莫西干头"),
    "bald": ("a bald head", "光头"),
    "bangs": ("straight hair with bangs", "齐刘海"),
    "flattop": ("a flat top haircut", "平头"),
}
EXPRESSION: dict[str, Words] = {  # in a caption
    "smile": ("smiling", "微笑"),
    "laugh": ("laughing", "大笑"),
    "sad": ("looking sad", "难过"),
    "surprised": ("looking surprised", "惊讶"),
    "angry": ("looking angry", "生气"),
    "closed": ("with closed eyes", "闭着眼睛"),
}
EXPRESS: dict[str, Words] = {  # after "make the kid"
    "smile": ("smile", "微笑"),
    "laugh": ("laugh", "大笑"),
    "sad": ("look sad", "显得难过"),
    "surprised": ("look surprised", "显得惊讶"),
    "angry": ("look angry", "显得生气"),
    "closed": ("close the eyes", "闭上眼睛"),
}
CLOTHES: dict[str, Words] = {
    "tshirt": ("t-shirt", "T恤"),
    "striped": ("striped shirt", "条纹衫"),
    "hoodie": ("hoodie", "连帽衫"),
    "dress": ("polka dot dress", "波点连衣裙"),
    "overalls": ("shirt and denim overalls", "衬衫配牛仔背带裤"),
    "suit": ("tie and a dark suit", "领带配深色西装"),
    "plain": ("plain shirt", "纯色上衣"),
    "checkered": ("checkered shirt", "格子衬衫"),
    "crew": ("round-neck sweater", "圆领毛衣"),
    "collared": ("collared shirt", "有领衬衫"),
}
COLORED_CLOTH: dict[str | None, Words] = {  # the part of an outfit that has the color
    "suit": ("tie", "领带"),
    "dress": ("dress", "裙子"),
    "hoodie": ("hoodie", "连帽衫"),
    "crew": ("sweater", "毛衣"),
}
HAT: dict[str, Words] = {
    "cap": ("baseball cap", "棒球帽"),
    "beanie": ("beanie", "毛线帽"),
    "tophat": ("top hat", "高礼帽"),
    "party": ("party hat", "派对帽"),
    "crown": ("crown", "王冠"),
    "strawhat": ("straw hat", "草帽"),
    "headphones": ("headphones", "耳机"),
    "hat": ("black hat", "黑色宽檐帽"),
}
GLASSES: dict[str, Words] = {"glasses": ("glasses", "眼镜"), "sunglasses": ("sunglasses", "墨镜")}
BEARD: dict[str, Words] = {"mustache": ("a mustache", "小胡子"), "beard": ("a beard", "大胡子")}
HORNS: dict[str, Words] = {
    "horns": ("horns", "犄角"),
    "antennae": ("antennae", "触角"),
    "earsPointy": ("pointy ears", "尖耳朵"),
    "crown": ("a spiky crown", "尖尖的小王冠"),
    "sprout": ("a leaf sprout", "嫩芽"),
    "bobble": ("a round bobble", "小圆球"),
}
POSE: dict[str, Words] = {  # after "make the kid"
    "stand": ("lower the arms", "放下手臂"),
    "wave": ("wave hello", "挥手打招呼"),
    "cheer": ("raise both arms", "举起双手"),
}
POSING: dict[str, Words] = {"wave": ("waving", "挥着手"), "cheer": ("with both arms up", "举着双手")}
TIME: dict[str, Words] = {
    "day": ("during the day", "白天"),
    "night": ("at night", "夜晚"),
    "sunset": ("at sunset", "日落时分"),
}
SEASON: dict[str, Words] = {
    "spring": ("spring", "春天"),
    "summer": ("summer", "夏天"),
    "autumn": ("autumn", "秋天"),
    "winter": ("winter", "冬天"),
}
WEATHER: dict[str, Words] = {"rain": ("in the rain", "下着雨"), "snowfall": ("while it snows", "下着雪")}


_ARTICLE = re.compile(r"\b([Aa])n? (?=\w)")
_VOWEL = re.compile(r"[aeioAEIO8]|[uU](?:m|n(?!i)|g|p)")


def with_article(noun: str) -> str:
    """`a` or `an` before an English noun phrase."""
    return f"{'an' if _VOWEL.match(noun) else 'a'} {noun}"


def with_articles(text: str) -> str:
    """English with `a` or `an` as the word after it asks for."""

    def article(match: re.Match[str]) -> str:
        return match.group(1) + ("n " if _VOWEL.match(text, match.end()) else " ")

    return _ARTICLE.sub(article, text)


def hat_words(hat: str, color: str) -> Words:
    """A hat with its color: "a blue beanie"."""
    english, chinese = COLORS[color].words
    special = {
        "headphones": (f"{english} headphones", f"{chinese}耳机"),
        "hat": ("a black hat", "黑色宽檐帽"),
        "tophat": (f"a black top hat with {with_article(english)} band", f"带{chinese}帽带的高礼帽"),
        "strawhat": (f"a straw hat with {with_article(english)} ribbon", f"带{chinese}丝带的草帽"),
        "crown": (f"a golden crown with {with_article(english)} gem", f"镶{chinese}宝石的王冠"),
    }
    plain = (with_article(f"{english} {HAT[hat][0]}"), chinese + HAT[hat][1])
    return special.get(hat, plain)


def hair_words(hair: str, color: str) -> Words:
    """Hair with its color: "long green hair", "a blue mohawk"."""
    english, chinese = HAIR[hair]
    name, name_chinese = HAIR_COLORS[color].words
    adjective = re.match(r"(short|long|curly|spiky|straight) hair", english)
    if adjective:
        english = f"{adjective.group(1)} {name} hair" + english[adjective.end() :]
    elif english.startswith(("hair", "pigtails")):
        english = f"{name} {english}"
    else:
        english = re.sub(r"^an? ", f"a {name} ", english)
    return english, name_chinese + chinese


def clothes_words(c: dict[str, Any]) -> Words:
    """What a character wears, with its color: "a red hoodie"."""
    english, chinese = CLOTHES[c["clothes"] or "tshirt"]
    color = COLORS[c["cloth_color"]]
    return with_article(f"{color.english} {english}"), color.chinese + chinese


def object_words(thing: dict[str, Any], article: str = "a") -> Words:
    """A thing with its color, with `a` or `the`."""
    concept, color = CONCEPTS[thing["name"]], thing.get("color")
    english = f"{COLORS[color].english} {concept.english}" if color else concept.english
    chinese = (COLORS[color].chinese if color else "") + concept.chinese
    return (with_article(english) if article == "a" else f"the {english}"), chinese


def side_words(x: int) -> Words:
    """Where something stands, from its center."""
    if x < 100:
        return "on the left", "左边"
    return ("on the right", "右边") if x > 156 else ("in the middle", "中间")


def spot_words(thing: dict[str, Any]) -> Words:
    """Where something stands or flies: also "in the top left"."""
    english, chinese = side_words(thing["x"])
    if thing["ground"] or 100 <= thing["x"] <= 156:
        return english, chinese
    side = english.removeprefix("on the ")
    return f"in the top {side}", {"左边": "左上角", "右边": "右上角"}[chinese]
