"""How people word a request, whatever it asks for: polite, as a question, as a wish, as a complaint, sloppy.

A request is a form of its variant (`forms.py`) in a frame (`frames.py`), with synonyms, asides, the wish that
the rest stays, and typing errors. It is used in training only; held-out phrasings are never said. Each kind
of edit has thousands of frames before its slots are filled (`frame_count`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

from .forms import FORMS, Forms, count, expand
from .frames import FRAMES, Frames
from .held_out import is_held_out_pattern, says_held_out
from .synonyms import with_synonyms
from .vocabulary import Words, with_articles

Slots = Mapping[str, Words]


_PARTS: tuple[Words, ...] = (
    *(("hair", "头发"), ("hat", "帽子"), ("background", "背景"), ("shirt", "上衣"), ("glasses", "眼镜")),
    *(
        ("face", "脸"),
        ("sign", "牌子"),
        ("sky", "天空"),
        ("style", "风格"),
        ("clothes", "衣服"),
        ("pose", "姿势"),
    ),
    *(("expression", "表情"), ("colors", "颜色"), ("objects", "物体"), ("text", "文字"), ("hands", "手")),
)
_WIDE = (
    re.compile(r"outfit|clothes|wear|dress|image|style|picture|look|scene|everything|color|text|letter|word"),
    re.compile(r"衣服|穿|图|风格|画|一切|全部|所有|颜色|色|字|写"),
)
_PRONOUNS: dict[str, tuple[Words, ...]] = {
    "the kid": (("she", "her"), ("he", "him")),
    "the person": (("she", "her"), ("he", "him")),
    "the monster": (("it", "it"),),
}
_POSSESSIVES = {"she": "her", "he": "his", "it": "its"}
# Words of the forms after which {who} is a subject: "if she wore", "from the closet he takes".
_BEFORE_SUBJECTS = (
    "bet because can closet could did disguise does doesn't how if is isn't on should since so that think"
    " though today until what when wish would"
)
_AS_SUBJECT = re.compile(
    rf"(^|, |[.?!] |\b(?:{'|'.join(_BEFORE_SUBJECTS.split())}) )"
    r"\{who\}(?= (?!(?:of|from|in|with|on|for|without) )[a-z])"
)
_AS_OBJECT = re.compile(r"\{who\}(?! (?:of|from|in) (?:image|picture))")

_FORM_WEIGHTS = {"do": 0.38, "be": 0.22, "have": 0.16, "it": 0.1, "say": 0.14}
_BARE = 0.35  # of the imperatives stand alone
_PRONOUN = 0.25
_ABOUT = 0.12  # of the requests begin with what they are about, or with a complaint about it
_KEPT = 0.1
_LIMITED = 0.08  # name a part that is not to be changed
_REASONED = 0.05
_OPENED = 0.07
_THANKED = 0.07
_SYNONYMS = 0.3  # of the words of slots that have any, in half of the requests
_SLOPPY = 0.15
_TRIES = 40


def worded(r: random.Random, variant: str, slots: Slots, language: int) -> str | None:
    """A request in the words of some person (0: English, 1: Chinese); None where chance gave none."""
    for _ in range(_TRIES):
        request = _framed(r, variant, slots, language)
        if request is not None and not says_held_out(variant, language, request):
            return _with_asides(r, request, language, variant)
    return None


def part(r: random.Random, variant: str, slots: Slots, language: int) -> str | None:
    """A request that can be joined with another: an imperative, a wanted state or a sentence of its own."""
    forms = FORMS[variant][language]
    for _ in range(_TRIES):
        chance = r.random()
        if chance < 0.2 and forms.be:
            text = _stated(r, expand(r, r.choice(forms.be)), slots, language).rstrip("?？")
        else:
            text = expand(r, r.choice(forms.say if chance < 0.4 and forms.say else forms.do))
        if not is_held_out_pattern(text, language):
            return _filled(r, text, slots, language)
    return None


def finished(r: random.Random, text: str, language: int) -> str:
    """A request with synonyms in half of the cases and sometimes a slip."""
    if r.random() < 0.5:
        text = with_synonyms(r, text, language, _SYNONYMS)
    if language == 0:
        text = with_articles(text)
    return (sloppy, sloppy_chinese)[language](r, text) if r.random() < _SLOPPY else text


def frame_count(variant: str, language: int) -> int:
    """Frames of a variant before slots, asides and synonyms."""
    forms, words = FORMS[variant][language], FRAMES[language]
    sizes = {"do": 1 + len(words.do), "be": len(words.be), "have": len(words.have)}
    counts = [size * sum(map(count, getattr(forms, name))) for name, size in sizes.items()]
    by_pronoun = sum(map(count, forms.it)) * (len(words.complaints) + len(words.about))
    return sum(counts) + by_pronoun + sum(map(count, forms.say))


def _framed(r: random.Random, variant: str, slots: Slots, language: int) -> str | None:
    """A form in a frame, with its slots filled; None where that is a held-out phrasing."""
    forms, words = FORMS[variant][language], FRAMES[language]
    names = [name for name in _FORM_WEIGHTS if getattr(forms, name)]
    name = r.choices(names, [_FORM_WEIGHTS[name] for name in names])[0]
    pattern = expand(r, r.choice(getattr(forms, name)))
    if name == "do":
        frame = "{request}" if r.random() < _BARE else r.choice(words.do)
        text = frame.replace("{doing}", gerund(pattern)).replace("{request}", pattern)
    elif name == "have":
        text = r.choice(words.have).replace("{wanted}", pattern)
    elif name == "be":
        text = _stated(r, pattern, slots, language)
    elif name == "say":
        text = pattern
    else:
        text = _about(r, forms, words, pattern)
    if name in ("do", "be", "have") and forms.topic and r.random() < _ABOUT:
        text = r.choice(words.complaints).replace("{topic}", forms.topic) + words.comma + text
    return None if is_held_out_pattern(text, language) else _filled(r, text, slots, language)


def _stated(r: random.Random, pattern: str, slots: Slots, language: int) -> str:
    """A frame around a wanted state."""
    subject, predicate = pattern.split(" ~ ")
    frame = r.choice(FRAMES[language].be)
    if language == 1:
        return frame.replace("{s}", subject).replace("{p}", predicate)
    if subject == "there" and "{ping}" in frame:
        frame = "{s} should {p}"
    if subject == "there":
        frame = re.sub(r"\b(?:make|have|get) \{o\}( to)? \{p\}", "let {o} {p}", frame)
    pronouns = _PRONOUNS.get(slots["who"][0]) if "who" in slots else None
    as_subject = as_object = subject
    if subject == "{who}" and pronouns and r.random() < _PRONOUN:
        as_subject, as_object = r.choice(pronouns)
    if frame.startswith(("make {o}", "please make {o}", "can you make {o}", "could you make {o}")):
        predicate = predicate.removeprefix("be ")
    parts = {"s": as_subject, "o": as_object, "p": predicate}
    parts |= {"p3": third_person(predicate), "ping": gerund(predicate)}
    return re.sub(r"\{(s|o|p|p3|ping)\}", lambda name: parts[name.group(1)], frame)


def _about(r: random.Random, forms: Forms, words: Frames, request: str) -> str:
    """A request that refers to its topic by a pronoun, after the topic or a complaint about it."""
    opening = r.choice(words.complaints if r.random() < 0.6 else words.about).replace("{topic}", forms.topic)
    joint = r.choice(
        (words.comma, ". ", ": ", "; ", " - ") if words.space else ("，", "，", "。", "：", "；")
    )
    return opening + joint + request


def _filled(r: random.Random, text: str, slots: Slots, language: int) -> str:
    """A pattern with its slots filled, the character sometimes by a pronoun."""
    values = {name: words[language] for name, words in slots.items()}
    pronouns = _PRONOUNS.get(values.get("who", ""))
    if language == 0 and pronouns and "{who}" in text and r.random() < _PRONOUN:
        subject, other = r.choice(pronouns)
        text = text.replace("{who}'s", _POSSESSIVES[subject])
        text = _AS_SUBJECT.sub(rf"\g<1>{subject}", text)
        text = _AS_OBJECT.sub(other, text)
    return text.format_map(values)


def _with_asides(r: random.Random, text: str, language: int, variant: str) -> str:
    """With an opening, a part that stays, the wish that the rest stays, a reason, thanks."""
    words, whole_picture = FRAMES[language], variant.startswith(("generate", "nothing"))
    question = text.endswith(("?", "？"))
    body = text.rstrip("?？!！")
    chance = r.random()
    if not whole_picture and chance < _LIMITED:
        said = [pair[language] for pair in _PARTS if pair[language] not in text.lower()]
        if said and not _WIDE[language].search(text.lower()):
            name = r.choice(said)
            if r.random() < 0.5:
                before = r.choice(words.negated_before).replace("{part}", name)
                return before + words.space + text
            text = _joined(body, r.choice(words.negated_after).replace("{part}", name), words)
    elif not whole_picture and chance < _LIMITED + _KEPT:
        text = _joined(body, r.choice(words.keeping), words)
    elif chance < _LIMITED + _KEPT + _REASONED:
        text = _joined(body, r.choice(words.reasons), words)
    elif chance < _LIMITED + _KEPT + _REASONED + _THANKED:
        text = _joined(body, r.choice(words.thanks), words)
    elif question and chance > 0.8:
        text = body
    if r.random() < _OPENED:
        text = r.choice(words.openers) + words.space + text
    return text


def _joined(text: str, tail: str, words: Frames) -> str:
    return text + ("" if tail[0] in ",;， " else words.space) + tail


_DOUBLED = frozenset(
    (
        "begin bin blot chop clip crop cut dim dip drag drop expel fit flip get grab grip hop jot let"
        " omit pin plop pop put reset rid rub run scrap scrub set shut sit skip slap slip spin step"
        " stop strip sub swap transfer trim tug wrap zap"
    ).split()
)
_KEEP_E = frozenset(("be", "dye"))
_IRREGULAR = {"be": "is", "have": "has"}
_ADVERBS = frozenset("not now just suddenly simply no longer also".split())


def gerund(request: str) -> str:
    """From "dye the hair" to "dyeing the hair"."""
    return _inflected(request, _gerund)


def third_person(predicate: str) -> str:
    """From "be blue" to "is blue"."""
    verb = predicate.partition(" ")[2] if predicate.startswith("not ") else ""
    if verb:
        return f"is not {verb[3:]}" if verb.startswith("be ") else f"does not {verb}"
    return _inflected(predicate, _third_person)


def _inflected(predicate: str, form: Callable[[str], str]) -> str:
    """With its verb, the first word that is none of the adverbs, in another form."""
    words = predicate.split(" ")
    place = next((i for i, word in enumerate(words) if word not in _ADVERBS), 0)
    if words[place].strip(",:.").isalpha():
        words[place] = form(words[place])
    return " ".join(words)


def _gerund(verb: str) -> str:
    if verb in _DOUBLED:
        return verb + verb[-1] + "ing"
    if verb.endswith("e") and not verb.endswith("ee") and verb not in _KEEP_E:
        return verb[:-1] + "ing"
    return verb + "ing"


def _third_person(verb: str) -> str:
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if verb.endswith("y") and verb[-2] not in "aeou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s")


# ---- slips ------------------------------------------------------------------------------------------------
_QUOTED = re.compile(r"'[A-Z]+'|[\"“”‘’]")


def sloppy(r: random.Random, text: str) -> str:
    """English with one slip.

    An article left out, a letter too many, too few or in the wrong place, no punctuation. Quoted words,
    which are to be written, stay as they are.
    """
    slip = r.choice((_without_articles, _mistyped, _mistyped, _unpunctuated, _shouted))
    return text if _QUOTED.search(text) and slip is not _unpunctuated else slip(r, text)


def sloppy_chinese(r: random.Random, text: str) -> str:
    """Chinese with one slip: a particle left out, a homophone, no punctuation, or an exclamation."""
    if _QUOTED.search(text):
        return text
    kind = r.randrange(4)
    if kind == 0:
        return re.sub("的", "", text, count=1)
    if kind == 1:
        return re.sub("[，。？！、：；]", "", text)
    if kind == 2:
        return text.rstrip("。？！") + r.choice(("！", "！！", "。", "~", "…"))
    wrong = r.choice(_HOMOPHONES)
    return text.replace(*wrong, 1)


_HOMOPHONES = (
    *(("帽子", "冒子"), ("在", "再"), ("的", "得"), ("戴", "带"), ("做", "作"), ("像", "象"), ("换", "唤")),
    *(("背景", "背影"), ("眼镜", "眼睛"), ("他", "她"), ("改成", "改称"), ("变成", "变称"), ("衣服", "一服")),
)


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
