"""Edits of the whole picture: background, time of day, season, weather, style."""

import random

from ..drawing.backgrounds import PLACES, WEATHERS, outdoors, place_words
from ..drawing.styles import STYLES
from ..language.vocabulary import SEASON
from ..scenes.scene import Pool, Scene, copied, sample_background
from .kind import EditKind, Phrase, Value, other, who


def _propose_background(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    here = scene["background"]["place"]
    background = sample_background(
        r, pool, places=tuple(place for place in PLACES if place != here), new=True
    )
    return None if background["place"] == here else {"background": background}


def _phrase_background(scene: Scene, value: Value) -> Phrase:
    background = value["background"]
    english, chinese = place_words(background)
    if background["season"] not in (None, "summer"):
        season = SEASON[background["season"]]
        english, chinese = f"{english} in {season[0]}", f"{season[1]}的{chinese}"
    if background["time"] == "night":
        english, chinese = f"{english} at night", f"夜晚的{chinese}"
    return "background", {"who": who(scene), "place": (english, chinese)}


def _propose_time(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    times = PLACES[scene["background"]["place"]].times
    return {"time": other(r, times, scene["background"]["time"])} if times else None


def _propose_season(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    season = scene["background"]["season"]
    return {"season": other(r, SEASON, season)} if season else None


def _propose_weather(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    background = scene["background"]
    if not outdoors(background["place"]):
        return None
    return {"weather": None if background["weather"] else r.choice(WEATHERS)}


def phrase_weather(scene: Scene, value: Value) -> Phrase:
    """New weather, or the removal of the current weather."""
    old = (scene["foreign"] if "foreign" in scene else scene["background"])["weather"]
    return f"weather/{value['weather'] or f'clear_{old}'}", {}


def propose_style(r: random.Random, scene: Scene, pool: Pool) -> Value | None:
    """A style, and which of its two names to use."""
    return None if scene["style"] else {"style": r.choice(pool.styles), "phrase": r.randrange(2)}


def apply_style(scene: Scene, value: Value) -> None:
    scene["style"] = value["style"]


def phrase_style(scene: Scene, value: Value) -> Phrase:
    style, phrase = STYLES[value["style"]], value["phrase"]
    return "style", {"style": (style.english[phrase], style.chinese[phrase])}


def _set(scene: Scene, value: Value) -> None:
    scene["background"].update(value)


PICTURE_KINDS = (
    EditKind(
        name="background",
        category="global",
        weight=4.5,
        propose=_propose_background,
        apply=lambda scene, value: scene.update(copied(value)),
        phrase=_phrase_background,
        undo=lambda scene, value: ("background", {"background": scene["background"]}),
        part="background",
    ),
    EditKind(
        name="time",
        category="global",
        weight=3,
        propose=_propose_time,
        apply=_set,
        phrase=lambda scene, value: (f"time/{value['time']}", {}),
        undo=lambda scene, value: ("time", {"time": scene["background"]["time"]}),
        part="background",
    ),
    EditKind(
        name="season",
        category="global",
        weight=1.5,
        propose=_propose_season,
        apply=_set,
        phrase=lambda scene, value: ("season", {"season": SEASON[value["season"]]}),
        undo=lambda scene, value: ("season", {"season": scene["background"]["season"]}),
        needs={"places": tuple(name for name, place in PLACES.items() if place.seasons)},
        part="background",
    ),
    EditKind(
        name="weather",
        category="global",
        weight=1.5,
        propose=_propose_weather,
        apply=_set,
        phrase=phrase_weather,
        undo=lambda scene, value: ("weather", {"weather": scene["background"]["weather"]}),
        needs={"weather": 0.4, "places": tuple(filter(outdoors, PLACES))},
        part="background",
    ),
    EditKind(
        name="style",
        category="global",
        weight=7.5,
        propose=propose_style,
        apply=apply_style,
        phrase=phrase_style,
        part="style",
        style_hides=True,
    ),
)
