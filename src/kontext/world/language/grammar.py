"""How people word a request, whatever it asks for: polite, as a question, as a wish, short, sloppy.

`paraphrases.py` phrases each edit in several ways; this grammar puts such a sentence into frames, swaps words
that mean the same, adds that the rest stays, and adds typing errors. It is used in training only. With
it each kind of edit has several hundred frames before its slots are filled (`frame_count`).
"""

import random
import re

IMPERATIVES = """
    add apply bring change clear color convert copy create cut delete draw dress dye empty erase fill give
    hand insert let make move paint place put recolor redraw remove replace restyle set shave show swap switch
    take turn use wipe write
""".split()
_IMPERATIVE = re.compile(rf"(?:{'|'.join(IMPERATIVES)})\b[^?.:]*")
_CHINESE_IMPERATIVE = re.compile(r"(?:把|给|让|将|去掉|加上|删|换|改成|擦掉|移除|变成|用|在)[^？。：]*")

POLITE = (
    *(
        "please {request}",
        "{request} please",
        "{request}, please",
        "could you {request}?",
        "can you {request}?",
    ),
    *("would you {request}?", "could you please {request}?", "can you please {request}?", "kindly {request}"),
    *("would you mind: {request}", "{request}, thanks", "{request}, thank you", "be so kind and {request}"),
    *("I need you to {request}", "I want you to {request}", "I'd like you to {request}", "help me {request}"),
    *("I would like you to {request}", "is it possible to {request}?", "are you able to {request}?"),
    *("how about you {request}?", "why don't you {request}?", "let's {request}", "we should {request}"),
    *("you should {request}", "you need to {request}", "your task: {request}", "task: {request}"),
    *("edit: {request}", "my request: {request}", "next step: {request}", "the edit is to {request}"),
    *("now {request}", "next, {request}", "then {request}", "ok, {request}", "okay now {request}"),
    *("hey, {request}", "hi, {request}", "just {request}", "simply {request}", "try to {request}"),
    *("go ahead and {request}", "first {request}", "this time {request}", "once more: {request}"),
    *("in this picture, {request}", "in the image, {request}", "for this one, {request}", "here, {request}"),
)
KEEPING = (
    *(", nothing else", " and nothing else", " and keep the rest", ", keep everything else", " only"),
    *(", leave the rest alone", " without changing anything else", ", the rest stays as it is"),
    *(" but keep everything else the same", ", do not touch the rest", "; everything else stays the same"),
    *(" while keeping the rest unchanged", ", all else as before", ", but leave the other things alone"),
    *(", keeping the same style", " and don't change anything else"),
)
CHINESE_POLITE = (
    *("请{request}", "帮我{request}", "请帮我{request}", "麻烦{request}", "麻烦你{request}", "请你{request}"),
    *("现在{request}", "接下来{request}", "然后{request}", "好，{request}", "那就{request}", "试着{request}"),
    *(
        "{request}吧",
        "{request}，谢谢",
        "{request}一下",
        "能{request}吗？",
        "可以{request}吗？",
        "能否{request}？",
    ),
    *("可不可以{request}？", "你能{request}吗？", "我想{request}", "我要{request}", "我需要{request}"),
    *("希望你{request}", "想请你{request}", "要求：{request}", "任务：{request}", "修改：{request}"),
    *(
        "在这张图里，{request}",
        "这张图，{request}",
        "图中{request}",
        "只{request}",
        "就{request}",
        "直接{request}",
    ),
)
CHINESE_KEEPING = (
    *("，其他不变", "，其余保持不变", "，别的都不要动", "，其他地方保持原样", "，剩下的不变"),
    *("，其他部分不动", "，背景和其他都别变", "，只改这里"),
)

_PARTS: dict[str, str] = {
    **{"hair": "头发", "hat": "帽子", "background": "背景", "shirt": "上衣", "glasses": "眼镜", "face": "脸"},
    **{"sign": "牌子", "sky": "天空", "style": "风格", "clothes": "衣服", "pose": "姿势"},
}
_WIDE = re.compile(r"outfit|clothes|wear|dress|image|style|picture|look|scene|everything")
_NEGATED = (
    *("not the {part}, only this: {request}", "leave the {part} alone, just {request}"),
    *("don't touch the {part}; {request}", "{request}, but not the {part}", "keep the {part} and {request}"),
)
_CHINESE_NEGATED = ("不要动{part}，只{request}", "{part}别变，{request}", "{request}，但{part}不变")

_SYNONYMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\bchange (?=the\b|\{)", ("alter ", "modify ", "adjust ", "switch ")),
    (r"\bput on\b", ("wear",)),
    (r"\bremove\b", ("delete", "erase", "take out", "take away", "cut out", "clear away")),
    (r"\bdelete\b", ("remove", "erase", "take out")),
    (r"\badd\b", ("put in", "insert", "include", "place")),
    (r"\breplace (.+) with\b", (r"substitute \1 with", r"switch \1 for")),
    (r"\bpicture\b", ("image", "photo", "pic", "drawing", "illustration", "scene")),
    (r"\bimage\b(?! \d)", ("picture", "pic")),
    (r"\bbackground\b", ("backdrop", "scenery", "surroundings", "setting")),
    (r"\bcolor\b", ("colour",)),
    (r"\bgray\b", ("grey",)),
    (r"\bturn (.+) into\b", (r"transform \1 into", r"convert \1 into", r"change \1 into")),
    (r"\bmake it\b(?! look)", ("turn it", "let it be", "have it be")),
    (r"\bshould have\b", ("needs", "must have", "gets", "ought to have")),
    (r"\bshould wear\b", ("is wearing", "wears", "must wear", "has to wear")),
    (r"\bmake (the \w+) wear\b", (r"have \1 wear", r"let \1 wear")),
    (r"\bthe same\b", ("this same", "exactly the same")),
)
_CHINESE_SYNONYMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"换成", ("变成", "改成", "替换成", "换为")),
    (r"改成", ("变成", "换成", "改为", "调成")),
    (r"去掉", ("删掉", "移除", "拿掉", "除去", "弄掉")),
    (r"加上", ("添上", "加个", "放上", "加入")),
    (r"^把", ("将",)),
    (r"图片", ("图", "画面", "照片")),
    (r"背景", ("场景", "后面的背景")),
)
_SWAPPED = 0.25  # of the sentences in which a word has others that mean the same
FRAMED = 0.35  # of the imperatives
_KEPT = 0.12  # of the imperatives also say that the rest stays
_LIMITED = 0.05  # of the imperatives name a part that is not to be changed
_SLOPPY = 0.12  # of the sentences have a slip
_QUOTED = re.compile(r"['\"“”‘’]")


def worded(r: random.Random, english: str, chinese: str) -> tuple[str, str]:
    """A request in the words of some person; what is asked for stays the same."""
    english = _swapped(r, english, _SYNONYMS)
    chinese = _swapped(r, chinese, _CHINESE_SYNONYMS)
    english, chinese = _limited(r, english, chinese)
    english = _framed(r, english, _IMPERATIVE, POLITE, KEEPING)
    chinese = _framed(r, chinese, _CHINESE_IMPERATIVE, CHINESE_POLITE, CHINESE_KEEPING)
    return (sloppy(r, english) if r.random() < _SLOPPY else english), chinese


def frame_count(templates: int) -> int:
    """English frames of a kind with so many templates, before slots and synonyms."""
    return templates * (1 + len(POLITE)) * (1 + len(KEEPING))


def sloppy(r: random.Random, text: str) -> str:
    """English with one slip: an article left out, a letter too many, too few or in the wrong place, no
    punctuation. Quoted words, which are to be written, stay as they are.
    """
    slip = r.choice((_without_articles, _mistyped, _mistyped, _unpunctuated, _shouted))
    return text if _QUOTED.search(text) and slip is not _unpunctuated else slip(r, text)


def _swapped(r: random.Random, text: str, synonyms: tuple[tuple[str, tuple[str, ...]], ...]) -> str:
    for pattern, others in synonyms:
        if r.random() < _SWAPPED and re.search(pattern, text) and not _QUOTED.search(text):
            text = re.sub(pattern, r.choice(others), text, count=1)
    return text


def _limited(r: random.Random, english: str, chinese: str) -> tuple[str, str]:
    """With a part named that is not to be changed, which the request itself does not name."""
    fits = _IMPERATIVE.fullmatch(english) and _CHINESE_IMPERATIVE.fullmatch(chinese)
    part = r.choice(list(_PARTS))
    said = part in english or _PARTS[part] in chinese or _WIDE.search(english)
    if r.random() >= _LIMITED or not fits or said:
        return english, chinese
    return (
        r.choice(_NEGATED).replace("{part}", part).replace("{request}", english),
        r.choice(_CHINESE_NEGATED).replace("{part}", _PARTS[part]).replace("{request}", chinese),
    )


def _framed(
    r: random.Random, text: str, fits: re.Pattern[str], polite: tuple[str, ...], keeping: tuple[str, ...]
) -> str:
    if not fits.fullmatch(text):
        return text
    if r.random() < _KEPT:
        text += r.choice(keeping)
    return r.choice(polite).replace("{request}", text) if r.random() < FRAMED else text


def _without_articles(r: random.Random, text: str) -> str:
    return re.sub(r"\b(?:the|a|an) ", "", text)


def _unpunctuated(r: random.Random, text: str) -> str:
    return re.sub(r"[,.?!;:]", "", text)


def _shouted(r: random.Random, text: str) -> str:
    return text.rstrip(".?!") + r.choice(("!", "!!", ".", " :)", "..."))


def _mistyped(r: random.Random, text: str) -> str:
    """One letter slipped inside a word of five letters or more."""
    words = [match for match in re.finditer(r"[a-z]{5,}", text)]
    if not words:
        return text
    word = r.choice(words)
    place = r.randrange(word.start() + 1, word.end() - 1)
    kind = r.randrange(3)
    if kind == 0:  # left out
        return text[:place] + text[place + 1 :]
    if kind == 1:  # twice
        return text[:place] + text[place] + text[place:]
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]  # exchanged with the next


# ---- asking for nothing, and for what the world does not have -------------------------------------------
_KEEP_VERBS = ("keep", "leave", "preserve", "return", "give back")
_KEPT_THINGS = (
    "it",
    "this",
    "the picture",
    "the image",
    "everything",
    "all of it",
    "the scene",
    "every pixel",
)
_AS_IS = (
    *("as it is", "unchanged", "the way it is", "exactly as it is", "just like this", "the same", "as is"),
    *("untouched", "exactly the same", "without any change", "as before", "like it was"),
)
_NO_CHANGE = (
    *("no changes", "no edits", "no change at all", "nothing to change", "zero changes", "no modification"),
    *("don't change a thing", "do not edit this", "don't touch anything", "do not alter the picture"),
    *("change nothing at all", "make no changes", "leave it alone", "hands off", "skip this one"),
    *("it is perfect already", "it's fine like this", "it looks good as it is", "I like it the way it is"),
    *("this is already right", "nothing needs to change", "stay exactly like this", "do nothing", "pass"),
    *(
        "keep the hair, the clothes and the background",
        "not a single pixel should change",
        "same picture again",
    ),
)
_CHINESE_NO_CHANGE = (
    *(
        "不用改",
        "不要修改",
        "不要动",
        "别动",
        "保持不变",
        "维持原样",
        "就这样",
        "原图就好",
        "无需修改",
        "不做改动",
    ),
    *(
        "一点也不要改",
        "什么也别改",
        "照原样",
        "原封不动",
        "保持这样",
        "这样就很好",
        "已经很好了",
        "不需要任何变化",
    ),
    *("图片别改", "画面保持原样", "全部保留", "都不要变", "请不要改动", "没有要改的", "保持一模一样"),
)
_UNKNOWN_THINGS = (
    *(
        "a windmill at full speed",
        "a waterfall",
        "a spaceship engine",
        "the Eiffel Tower",
        "a marching band",
        "a volcano",
    ),
    *("my grandmother", "a roller coaster", "a wedding cake with candles", "a herd of zebras", "a submarine"),
    *(
        "a chess tournament",
        "a traffic jam",
        "a mirror that shows the room",
        "a swarm of bees",
        "a jellyfish",
    ),
    *(
        "a knight in armor",
        "a barbecue party",
        "a hologram",
        "a suspension bridge",
        "an escalator",
        "fireworks",
    ),
)
_UNKNOWN_EDITS = (
    *("rotate the camera by ninety degrees", "zoom out to see the whole city", "make it a video"),
    *("translate this into French", "show it from above", "increase the resolution", "make it stereo"),
    *("blur the edges like a lens", "let them dance tango", "tell me a joke", "what is in this picture?"),
    *("make the shadows longer", "add motion blur", "turn the page", "use a wider lens", "print it on a mug"),
)
_CHINESE_UNKNOWN = (
    *(
        "把镜头旋转九十度",
        "拉远镜头看整座城市",
        "做成视频",
        "翻译成法语",
        "从上面看",
        "提高分辨率",
        "讲个笑话",
    ),
    *(
        "加一架直升机",
        "放一个瀑布",
        "画上埃菲尔铁塔",
        "添一群斑马",
        "加一座火山",
        "这张图里有什么？",
        "加上烟花",
    ),
    *("让他们跳探戈", "加上运动模糊", "印在杯子上", "换成广角镜头"),
)
_ADD_UNKNOWN = ("add {thing}", "put {thing} in the picture", "draw {thing} in the middle", "I want {thing}")


def nothing(r: random.Random) -> tuple[str, str]:
    """A way to ask for no change at all, English and Chinese."""
    if r.random() < 0.5:
        english = f"{r.choice(_KEEP_VERBS)} {r.choice(_KEPT_THINGS)} {r.choice(_AS_IS)}"
    else:
        english = r.choice(_NO_CHANGE)
    return english, r.choice(_CHINESE_NO_CHANGE)


def out_of_reach(r: random.Random) -> tuple[str, str]:
    """A request that the world has no answer to: nothing should change, English and Chinese."""
    if r.random() < 0.6:
        english = r.choice(_ADD_UNKNOWN).replace("{thing}", r.choice(_UNKNOWN_THINGS))
    else:
        english = r.choice(_UNKNOWN_EDITS)
    return english, r.choice(_CHINESE_UNKNOWN)
