"""The public face of the world: training pairs, chains of turns, plain pictures and rivals, each from a seed.

world = World(families=("kid",), kinds={"hair_color": 2, "background": 1})
sample = world.sample(7)
sample.source, sample.english, sample.target, sample.mask
"""

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import BadConfig, BadRequest
from .backgrounds import PLACES
from .characters import FAMILIES
from .compositions import COMPOSITIONS, Draft
from .edits import JOINABLE, KINDS, EditKind, Value, inverse, value_label
from .foreign import sample_foreign
from .objects import ART_SETS, CONCEPTS
from .raster import SIZE
from .render import render
from .scene import Pool, Scene, sample_scene
from .seeds import generator
from .sentences import described, joined, sentence
from .signs import WORDS
from .splits import HELD_OUT_WORDS, SPLITS, admits, admits_start, shows_held_out_pair
from .styles import STYLES, channel_maximum, dilated
from .vocabulary import Words

CATEGORIES = ("local", "global", "text", "style_reference", "character_reference", "generate")
LANGUAGES = ("en", "zh")
_WEIGHTS = {**{k.name: k.weight for k in KINDS.values()}, **{c.name: c.weight for c in COMPOSITIONS.values()}}
_CATEGORY = {
    **{kind.name: kind.category for kind in KINDS.values()},
    **{composition.name: composition.category for composition in COMPOSITIONS.values()},
}
_VISIBLE = 10  # of 255: smaller differences are not seen
_VISIBLE_PIXELS = 120
_STYLED_SHARE = 0.08  # of edits happen inside a style
_WHOLE_PICTURE = ("style", "foreign_style")
_NO_PICTURE = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Sample:
    """One task with its exact answer.

    `mask` (bool, 256 x 256) has the pixels that change, widened by two pixels: every pixel outside it is
    equal in source and target. Pictures made anew have a full mask, "leave it as it is" an empty one.
    `labels` says what was asked for: kind of edit -> value. `references` are further pictures that are given.
    """

    source: np.ndarray | None
    references: tuple[np.ndarray, ...]
    target: np.ndarray
    english: str
    chinese: str
    mask: np.ndarray
    category: str
    kind: str
    value: Value | None
    before: Scene | None
    after: Scene
    labels: dict[str, str]
    seed: str
    split: str

    @property
    def captions(self) -> Words:
        """The target in words, English and Chinese."""
        return described(self.after)


@dataclass(frozen=True)
class Turn:
    """One turn of a chain: the instruction, the picture after it and what changed."""

    english: str
    chinese: str
    picture: np.ndarray
    mask: np.ndarray
    kind: str
    value: Value
    scene: Scene
    takes_back: bool


@dataclass(frozen=True)
class Chain:
    """A picture and what is done to it, turn after turn."""

    start: np.ndarray
    scene: Scene
    turns: tuple[Turn, ...]


def kind_names() -> tuple[str, ...]:
    """All kinds of tasks."""
    return tuple(_WEIGHTS)


@dataclass(frozen=True)
class World:
    """What is drawn. None means everything; a mapping of kinds gives their weights.

    Raises BadConfig for names that do not exist.
    """

    families: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | Mapping[str, float] | None = None
    art_sets: tuple[str, ...] | None = None
    styles: tuple[str, ...] | None = None
    backgrounds: tuple[str, ...] | None = None
    objects: tuple[str, ...] | None = None
    words: tuple[str, ...] | None = None
    languages: tuple[str, ...] = LANGUAGES
    _weights: tuple[tuple[str, float], ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        allowed = {
            "families": FAMILIES,
            "kinds": _WEIGHTS,
            "art_sets": ART_SETS,
            "styles": STYLES,
            "backgrounds": PLACES,
            "objects": CONCEPTS,
            "words": WORDS,
            "languages": LANGUAGES,
        }
        for name, values in allowed.items():
            given = getattr(self, name)
            if given is None:
                continue
            unknown = [value for value in given if value not in values]
            if unknown or not given:
                what = f"unknown: {', '.join(map(str, unknown))}" if unknown else "empty"
                raise BadConfig(f"world {name} {what}; allowed are {', '.join(values)}")
            if not isinstance(given, Mapping):
                object.__setattr__(self, name, tuple(given))
        kinds = self.kinds
        if kinds is None:
            weights = tuple((name, weight) for name, weight in _WEIGHTS.items() if weight > 0)
        elif isinstance(kinds, Mapping):
            weights = tuple((name, float(weight)) for name, weight in kinds.items() if weight > 0)
            object.__setattr__(self, "kinds", tuple(name for name, _ in weights))
        else:
            weights = tuple((name, _WEIGHTS[name] or 1.0) for name in kinds)
        object.__setattr__(self, "_weights", weights)

    def sample(
        self,
        seed: int | str,
        split: str = "train",
        category: str | None = None,
        kind: str | None = None,
        pictures: bool = True,
    ) -> Sample:
        """The task of a seed. Raises BadRequest for names that do not exist or cannot be drawn.

        Without `pictures` the arrays are empty (0 x 0), which is ten times faster; edits that would turn out
        to be invisible are then not drawn again.
        """
        _check("split", split, SPLITS)
        _check("category", category, CATEGORIES)
        _check("kind", kind, kind_names())
        pool = pool_of(self, split)
        weights = [(kind, 1.0)] if kind else list(self._weights)
        if category and not kind:
            weights = [(name, weight) for name, weight in weights if _CATEGORY[name] == category]
        if not weights:
            raise BadRequest(
                f"no kind of category {category} among {', '.join(name for name, _ in self._weights)}"
            )
        r = generator("sample", split, category, kind, seed)
        name = ""
        for attempt in range(2000):
            if attempt % 100 == 0:
                name = r.choices([name for name, _ in weights], [weight for _, weight in weights])[0]
            sample = self._try(r, name, pool, split, seed, pictures)
            if sample is not None:
                return sample
        raise BadRequest(f"kind {name} cannot be drawn in split {split} with the limits of {self}")

    def _try(
        self, r: random.Random, name: str, pool: Pool, split: str, seed: int | str, pictures: bool
    ) -> Sample | None:
        value: Value | None = None
        held_out = split == "phrasing"
        if name in COMPOSITIONS:
            draft = COMPOSITIONS[name].compose(r, pool)
            if not admits(split, draft.before, draft.after):
                return None
            words = sentence(r, draft.variant, draft.slots, held_out)
        else:
            kind = KINDS[name]
            before = _start(r, kind, pool)
            if not admits_start(split, before):
                return None
            value = kind.propose(r, before, pool)
            if value is None:
                return None
            after = kind.after(before, value)
            if not kind.style_hides and r.random() < _STYLED_SHARE:
                before = {**before, "style": r.choice(pool.styles)}
                after["style"] = before["style"]
            if "box" in value:
                before = {**before, "box": value["box"]}
            if not admits(split, before, after):
                return None
            words = _say(r, kind, before, value, held_out)
            draft = Draft(before, after, "", {})
        drawn = _draw(name, draft, value) if pictures else (_NO_PICTURE, _NO_PICTURE, _NO_PICTURE[..., 0] > 0)
        if drawn is None:
            return None
        source, target, mask = drawn
        category = _CATEGORY[name]
        if name == "compound" and any(_CATEGORY[part] == "global" for part, _ in value["edits"]):
            category = "global"
        return Sample(
            source=source,
            references=(),
            target=target,
            english=words[0] if "en" in self.languages else "",
            chinese=words[1] if "zh" in self.languages else "",
            mask=mask,
            category=category,
            kind=name,
            value=value,
            before=draft.before,
            after=draft.after,
            labels=_labels(name, value, draft),
            seed=str(seed),
            split=split,
        )

    def scene_picture(self, seed: int | str, split: str = "train") -> np.ndarray:
        """Just a picture (uint8, 256 x 256 x 3): one in six foreign, one in six in a style."""
        _check("split", split, SPLITS)
        pool = pool_of(self, split)
        r = generator("picture", split, seed)
        while True:
            if r.random() < 1 / 6:
                scene = _foreign_scene(r, pool)
            else:
                scene = sample_scene(r, pool)
            if r.random() < 1 / 6:
                scene["style"] = r.choice(pool.styles)
            if admits(split, None, scene):
                return render(scene)

    def chain(self, seed: int | str, length: int, split: str = "train", back: bool = False) -> Chain:
        """A picture and `length` edits, each on the result of the one before.

        No edit comes twice. With `back`, every second turn takes back the one before it, so that the picture
        after each even number of turns is the first one again.
        """
        _check("split", split, SPLITS)
        pool = pool_of(self, split)
        r = generator("chain", split, length, back, seed)
        for _ in range(400):
            chain = self._try_chain(r, length, split, back, pool)
            if chain is not None:
                return chain
        raise BadRequest(
            f"no chain of {length} turns can be drawn in split {split} with the limits of {self}"
        )

    def _try_chain(self, r: random.Random, length: int, split: str, back: bool, pool: Pool) -> Chain | None:
        scene = sample_scene(r, pool, character=r.random() < 0.9, new=True)
        if not admits_start(split, scene):
            return None
        allowed = {name for name, _ in self._weights}
        names = [name for name in JOINABLE if name in allowed and name != "style"]
        weights = [_WEIGHTS[name] for name in names]
        start, turns, used = scene, [], set()
        picture = render(scene)
        first = picture
        held_out = split == "phrasing"
        for _ in range(60 * length):
            if len(turns) >= length or not names:
                break
            kind = KINDS[r.choices(names, weights)[0]]
            value = kind.propose(r, scene, pool)
            key = (kind.name, str(value))
            if value is None or key in used or (kind.name in [turn.kind for turn in turns[-3:]]):
                continue
            undone = inverse(kind, scene, value)
            after = kind.after(scene, value)
            if (back and undone is None) or after == scene or not _fits(split, after):
                continue
            result = render(after)
            if not visible(picture, result):
                continue
            used.add(key)
            mask = change_mask(picture, result)
            words = _say(r, kind, scene, value, held_out)
            turns.append(Turn(*words, result, mask, kind.name, value, after, False))
            if back and undone is not None and len(turns) < length:
                words = _say(r, undone[0], after, undone[1], held_out)
                turns.append(Turn(*words, picture, mask, undone[0].name, undone[1], scene, True))
                continue
            scene, picture = after, result
        if len(turns) < length:
            return None
        if split in ("pairs", "words") and not any(admits(split, start, turn.scene) for turn in turns):
            return None
        return Chain(first, start, tuple(turns))


def _check(what: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise BadRequest(f"unknown {what} {value!r}; allowed are {', '.join(allowed)}")


def _fits(split: str, scene: Scene) -> bool:
    """Whether a scene in the middle of a chain may be of a split."""
    return split == "pairs" or not shows_held_out_pair(scene)


@functools.lru_cache(maxsize=64)
def pool_of(world: World, split: str, every_word: bool = False) -> Pool:
    """What a world may draw in a split; `every_word` gives the words of all splits."""
    held_out = split == "words"
    words = tuple(word for word in world.words or WORDS if (word in HELD_OUT_WORDS) == held_out)
    if every_word:
        words = WORDS
    elif not words:
        words = tuple(word for word in WORDS if (word in HELD_OUT_WORDS) == held_out)
    return Pool(
        families=world.families or tuple(FAMILIES),
        places=world.backgrounds or tuple(PLACES),
        art_sets=world.art_sets or ART_SETS,
        styles=world.styles or tuple(STYLES),
        objects=world.objects or tuple(CONCEPTS),
        words=words,
        always_sign=held_out,
        kinds=world._weights,
    )


def _foreign_scene(r: random.Random, pool: Pool, banner: bool | None = None) -> Scene:
    banner = (pool.always_sign or r.random() < 0.1) if banner is None else banner
    foreign = sample_foreign(r, pool.words, banner)
    return {"foreign": foreign, "style": None, "box": None, "sheet": None}


def _start(r: random.Random, kind: EditKind, pool: Pool) -> Scene:
    """A picture on which a kind of edit can probably be done."""
    if kind.on_foreign:
        return _foreign_scene(r, pool, kind.needs.get("banner"))
    needs = dict(kind.needs)
    empty = needs.pop("empty", False)
    if "family" in needs and needs["family"] not in pool.families:
        del needs["family"]
    scene = sample_scene(r, pool, **needs)
    if empty:
        scene["sign"]["word"] = ""
    return scene


def _say(r: random.Random, kind: EditKind, before: Scene, value: Value, held_out: bool) -> Words:
    if kind.name != "compound":
        return sentence(r, *kind.say(before, value), held_out)
    (first, first_value), (second, second_value) = value["edits"]
    between = KINDS[first].after(before, first_value)
    one = _say(r, KINDS[first], before, first_value, held_out)
    return joined(r, one, _say(r, KINDS[second], between, second_value, held_out), held_out)


def _draw(
    name: str, draft: Draft, value: Value | None
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray] | None:
    """Source, target and mask; None where an edit cannot be seen."""
    target = render(draft.after)
    if draft.before is None:
        return None, target, np.ones((SIZE, SIZE), bool)
    source = render(draft.before)
    if value is None or name in _WHOLE_PICTURE:
        return source, target, np.ones((SIZE, SIZE), bool)
    if name != "nothing" and not visible(source, target):
        return None
    return source, target, change_mask(source, target)


def _labels(name: str, value: Value | None, draft: Draft) -> dict[str, str]:
    """What was asked for, by kind of edit."""
    if name == "compound":
        return {part: value_label(said) for part, said in value["edits"]}
    if value is not None:
        return {name: value_label(value)}
    after = draft.after
    shown = (
        after["style"] if name == "style_reference" else after["background"] and after["background"]["place"]
    )
    view = after["character"]["view"] if name == "character_view" else None
    return {name: view or shown or "sheet"}


def _difference(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The largest difference of the three channels (uint8, height x width)."""
    return channel_maximum(np.maximum(source, target) - np.minimum(source, target))


def visible(source: np.ndarray, target: np.ndarray) -> bool:
    """Whether two pictures differ by more than somebody could overlook."""
    return np.count_nonzero(_difference(source, target) > _VISIBLE) >= _VISIBLE_PIXELS


def change_mask(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pixels that differ, widened by two pixels (bool, height x width)."""
    return dilated(_difference(source, target) > 0, 2)
