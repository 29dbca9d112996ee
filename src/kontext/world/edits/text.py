"""Edits of words on signs: other word, other color, write, erase."""

import random

from ..drawing.signs import INKS, NEW_WORD_FONT, SIGNS
from ..language.vocabulary import Words
from ..scenes.scene import Pool, Scene
from .kind import EditKind, Phrase, Value, other


def _written(scene: Scene) -> bool:
    return bool(scene["sign"] and scene["sign"]["word"])


def _slots(scene: Scene) -> dict[str, Words]:
    sign = SIGNS[scene["sign"]["kind"]]
    return {"sign": (sign.english, sign.chinese), "old": (scene["sign"]["word"],) * 2}


def _propose_text(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    if not _written(scene):
        return None
    old = scene["sign"]["word"]
    word = other(r, [word for word in pool.words if abs(len(word) - len(old)) <= 2], old)
    return {"word": word} if word else None


def _phrase_text(scene: Scene, value: Value) -> Phrase:
    return "text", {**_slots(scene), "word": (value["word"],) * 2}


def _propose_color(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    ink = other(r, SIGNS[scene["sign"]["kind"]].inks, scene["sign"]["ink"]) if _written(scene) else None
    return {"ink": ink} if ink else None


def _phrase_color(scene: Scene, value: Value) -> Phrase:
    return "text_color", {**_slots(scene), "color": INKS[value["ink"]].words}


def _propose_write(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    return {"word": r.choice(pool.words)} if scene["sign"] and not _written(scene) else None


def _apply_write(scene: Scene, value: Value) -> None:
    inks = SIGNS[scene["sign"]["kind"]].inks
    scene["sign"].update(word=value["word"], font=NEW_WORD_FONT, ink=inks[0])


def _phrase_write(scene: Scene, value: Value) -> Phrase:
    return "text_write", {**_slots(scene), "word": (value["word"],) * 2}


TEXT_KINDS = (
    EditKind(
        name="text",
        category="text",
        weight=9,
        propose=_propose_text,
        apply=lambda scene, value: scene["sign"].update(value),
        phrase=_phrase_text,
        undo=lambda scene, value: ("text", {"word": scene["sign"]["word"]}),
        needs={"sign": True},
        part="text",
        style_hides=True,
    ),
    EditKind(
        name="text_color",
        category="text",
        weight=2,
        propose=_propose_color,
        apply=lambda scene, value: scene["sign"].update(value),
        phrase=_phrase_color,
        undo=lambda scene, value: ("text_color", {"ink": scene["sign"]["ink"]}),
        needs={"sign": True},
        part="text",
        style_hides=True,
    ),
    EditKind(
        name="text_write",
        category="text",
        weight=1.2,
        propose=_propose_write,
        apply=_apply_write,
        phrase=_phrase_write,
        undo=lambda scene, value: ("text_remove", {}),
        needs={"sign": True, "empty_sign": True},
        part="text",
        style_hides=True,
    ),
    EditKind(
        name="text_remove",
        category="text",
        weight=1,
        propose=lambda r, scene, pool: {} if _written(scene) else None,
        apply=lambda scene, value: scene["sign"].update(word=""),
        phrase=lambda scene, value: ("text_remove", _slots(scene)),
        undo=lambda scene, value: ("text_write", {"word": scene["sign"]["word"]}),
        needs={"sign": True},
        part="text",
        style_hides=True,
    ),
)
