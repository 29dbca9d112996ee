"""The public face of the world: training pairs, chains of turns and plain pictures, each from a seed.

world = World(families=("kid",), kinds={"hair_color": 2, "background": 1})
sample = world.sample(7)
sample.source, sample.english, sample.target, sample.mask
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ...errors import BadConfig, BadRequest
from ..drawing.backgrounds import PLACES
from ..drawing.changes import change_mask, visible
from ..drawing.characters import FAMILIES
from ..drawing.objects import ART_SETS, CONCEPTS
from ..drawing.raster import SIZE
from ..drawing.signs import WORDS, made_up_words
from ..drawing.styles import STYLES
from ..edits import JOINABLE, KINDS, Value
from ..language.captions import described
from ..language.vocabulary import Words
from ..scenes.render import render
from ..scenes.scene import Pool, Scene, sample_scene
from ..seeds import generator
from .chains import Chain, draw_chain
from .orbits import Orbit, draw_orbit
from .splits import HELD_OUT_WORDS, SPLITS, admits
from .task_specs import CATEGORIES, CATEGORY, WEIGHTS, TaskSpec, draw_task, out_of_domain_scene

LANGUAGES = ("en", "zh")
_TRIES = 600  # for one kind of edit, before another one is tried
_WHOLE_PICTURE = ("style", "foreign_style", "style_from")


@dataclass(frozen=True)
class Sample:
    """One task with its exact answer; pictures are uint8, 256 x 256 x 3.

    `mask` (bool, 256 x 256) has the pixels that change, widened by two pixels: every pixel outside it is
    equal in source and target. Newly composed pictures have a full mask, "leave it as it is" an empty one.
    `references` are the pictures given after the source: image 2 of the sentence. `before`, `after` and
    `reference_scenes` are scenes (plain data, see scene.py), `value` is what the edit sets, `labels`
    describes the edit in words: kind of edit -> value.
    """

    source: np.ndarray | None
    references: tuple[np.ndarray, ...]
    target: np.ndarray
    english: str
    chinese: str
    mask: np.ndarray
    category: str
    kind: str
    value: Value
    before: Scene | None
    after: Scene
    labels: dict[str, str]
    seed: str
    split: str
    reference_scenes: tuple[Scene, ...] = ()

    @property
    def captions(self) -> Words:
        """The target in words, English and Chinese."""
        return described(self.after)


def kind_names() -> tuple[str, ...]:
    """All kinds of tasks."""
    return tuple(WEIGHTS)


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
    made_up_words: int = 0
    """Number of random sequences of letters that training scenes write besides the words."""
    _weights: tuple[tuple[str, float], ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        kinds = self.kinds
        if isinstance(kinds, Mapping):
            weights = {name: float(weight) for name, weight in kinds.items()}
            object.__setattr__(self, "kinds", tuple(weights))
        else:
            weights = {name: WEIGHTS.get(name, 0) for name in (WEIGHTS if kinds is None else kinds)}
        for name, allowed in _NAMES.items():
            _check_names(name, getattr(self, name), tuple(allowed))
        if self.made_up_words < 0:
            raise BadConfig(f"world made_up_words must be at least 0, got {self.made_up_words}")
        if min(weights.values()) < 0 or max(weights.values()) == 0:
            raise BadConfig(f"world kinds have weights {weights}; give at least one above 0, none below")
        object.__setattr__(self, "_weights", tuple(weights.items()))
        for name in _NAMES:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """How often each kind of task is drawn, against the others."""
        return self._weights

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
        weights = {kind: 1.0} if kind else dict(self._weights)
        if category and not kind:
            weights = {name: weight for name, weight in weights.items() if CATEGORY[name] == category}
        if not sum(weights.values()):
            raise BadRequest(
                f"no kind of category {category} in {self}; allow one, or ask for another category"
            )
        r = generator("sample", split, category, kind, seed)
        for attempt in range(4 * _TRIES):
            if attempt % _TRIES == 0:
                name = r.choices(list(weights), list(weights.values()))[0]
            spec = draw_task(r, name, pool, split)
            drawn = _drawn(spec) if spec and pictures else _NOT_DRAWN
            if spec and drawn:
                return self._sample(spec, drawn, str(seed), split)
        raise BadRequest(
            f"kind {name} cannot be drawn in split {split} with the limits of {self}; widen them"
        )

    def _sample(self, spec: TaskSpec, drawn: "_Pictures", seed: str, split: str) -> Sample:
        source, target, mask, references = drawn
        return Sample(
            source=source,
            references=references,
            target=target,
            english=spec.words[0] if "en" in self.languages else "",
            chinese=spec.words[1] if "zh" in self.languages else "",
            mask=mask,
            category=spec.category,
            kind=spec.kind,
            value=spec.value,
            before=spec.before,
            after=spec.after,
            labels=spec.labels,
            seed=seed,
            split=split,
            reference_scenes=() if spec.reference is None else (spec.reference,),
        )

    def without(self, *categories: str) -> "World":
        """The same world without some categories of tasks."""
        weights = {name: weight for name, weight in self._weights if CATEGORY[name] not in categories}
        return replace(self, kinds=weights)

    def scene_picture(self, seed: int | str, split: str = "train") -> np.ndarray:
        """Just a picture (uint8, 256 x 256 x 3): one in six out of domain, one in six in a style."""
        _check("split", split, SPLITS)
        pool = pool_of(self, split)
        r = generator("picture", split, seed)
        while True:
            scene = out_of_domain_scene(r, pool) if r.random() < 1 / 6 else sample_scene(r, pool)
            if r.random() < 1 / 6:
                scene["style"] = r.choice(pool.styles)
            if admits(split, None, scene):
                return render(scene)

    def chain(self, seed: int | str, length: int, split: str = "train", back: bool = False) -> Chain:
        """A picture and `length` edits, each applied to the previous result.

        Edits do not repeat. With `back`, every second turn reverts the previous turn: after an even number of
        turns the picture is the first one again. Raises BadRequest where the limits allow no chain of this
        length.
        """
        _check("split", split, SPLITS)
        pool = pool_of(self, split)
        r = generator("chain", split, length, back, seed)
        for _ in range(_TRIES if set(JOINABLE) & set(dict(self._weights)) else 0):
            chain = draw_chain(r, length, split, back, pool)
            if chain is not None:
                return chain
        raise BadRequest(f"no chain of {length} turns in split {split} with the limits of {self}; widen them")

    def orbit(self, seed: int | str, kinds: int = 4, values: int = 3, split: str = "train") -> Orbit:
        """One scene, edited in up to `kinds` kinds with `values` values each, and all exact edits between.

        Raises BadRequest where the limits allow none.
        """
        _check("split", split, SPLITS)
        pool = pool_of(self, split)
        r = generator("orbit", split, kinds, values, seed)
        for _ in range(_TRIES):
            orbit = draw_orbit(r, dict(self._weights), pool, split, kinds, values)
            if orbit is not None:
                return orbit
        raise BadRequest(f"no orbit in split {split} with the limits of {self}; widen them")


_NAMES: dict[str, Mapping | tuple] = {
    "families": FAMILIES,
    "kinds": WEIGHTS,
    "art_sets": ART_SETS,
    "styles": STYLES,
    "backgrounds": PLACES,
    "objects": CONCEPTS,
    "words": WORDS,
    "languages": LANGUAGES,
}
_Pictures = tuple[np.ndarray | None, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]
"""Source, target, mask, references."""
_EMPTY = np.zeros((0, 0, 3), np.uint8)
_NOT_DRAWN: _Pictures = (_EMPTY, _EMPTY, np.zeros((0, 0), bool), ())


def _check_names(what: str, names: tuple[str, ...] | None, allowed: tuple[str, ...]) -> None:
    if names is None:
        return
    unknown = [name for name in names if name not in allowed]
    if unknown or not names:
        problem = f"has unknown {', '.join(map(str, unknown))}" if unknown else "is empty"
        raise BadConfig(f"world {what} {problem}; must be among {', '.join(allowed)}")


def _check(what: str, name: str | None, allowed: tuple[str, ...]) -> None:
    if name is not None and name not in allowed:
        raise BadRequest(f"{what} must be one of {', '.join(allowed)}, got {name!r}")


@functools.lru_cache(maxsize=64)
def pool_of(world: World, split: str, every_word: bool = False) -> Pool:
    """What a world may draw in a split; `every_word` gives the words of all splits."""
    held_out = split == "words"
    words = tuple(word for word in world.words or WORDS if (word in HELD_OUT_WORDS) == held_out)
    if every_word:
        words = WORDS
    elif not words:
        words = tuple(word for word in WORDS if (word in HELD_OUT_WORDS) == held_out)
    if split == "train":
        words += made_up_words(world.made_up_words)
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


def _drawn(spec: TaskSpec) -> _Pictures | None:
    """Source, target and mask; None where an edit cannot be seen."""
    target = render(spec.after)
    everything = np.ones((SIZE, SIZE), bool)
    if spec.before is None:
        return None, target, everything, ()
    source = render(spec.before)
    references = () if spec.reference is None else (render(spec.reference),)
    if spec.kind in _WHOLE_PICTURE or (spec.kind not in KINDS and not references):
        return source, target, everything, references
    if spec.kind != "nothing" and not visible(source, target):
        return None
    return source, target, change_mask(source, target), references
