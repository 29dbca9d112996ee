"""The project speaks plain technical English: names and phrases that are not used, and where.

Words that are kept for a reason are listed in docs/glossary.md, in the table "Exceptions of the word check".
`python tests/test_words.py [PATH...]` lists what the check finds.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
SOURCES = ("src/kontext/**/*", "docs/*", "tests/**/*", "scripts/*", "examples/*", "*")
SUFFIXES = {
    ".py",
    ".md",
    ".toml",
    ".js",
    ".mjs",
    ".html",
    ".css",
    ".json",
    ".c",
    ".h",
    ".cff",
    ".yaml",
    ".yml",
}
NOT_OURS = (
    "*/vendor/*",
    "src/kontext/world/language/data/*",  # what users say, in their words
    "src/kontext/world/art/*",
    "src/kontext/weights/*.json",
    "docs/training-log/*",
    "tests/test_words.py",
    "docs/glossary.md",
)


class Rule(NamedTuple):
    pattern: str
    """Of a name: all of it. Of prose: any part, ignoring case."""
    example: str
    """Found by the pattern."""
    better: str
    scope: str = "*"
    """Files where it is a fault, as a pattern of paths."""


NAMES = [
    # Adjectives and participles without their noun.
    Rule(r"_?one|ones", "one", "the noun: request, blob, turn"),
    Rule(r"_?(made|kept|given|told|asked|wanted|seen|fresh|foreign|gone|looks)", "kept", "the noun", "src/*"),
    Rule(
        r"(flat|whole|inside|painted)",
        "whole",
        "opaque_rgb, as_given, edit_mask, decoded",
        "src/kontext/engine/*",
    ),
    Rule(r"(flat|whole|inside|painted)", "flat", "opaque_rgb, as_given", "src/kontext/pictures/*"),
    # Private words for things that the field has a word for.
    Rule(r"instead|later", "instead", "backend, cached", "src/kontext/model/*"),
    Rule(r"Decoding|Keep|evaluate_keeping", "Keep", "DecoderBackend, ContextKVRecorder"),
    Rule(r"_?(lend|lent)", "_lend", "project_kv, other_kv"),
    Rule(r"decode_noting|noting", "noting", "decode_with_norm_stats"),
    Rule(
        r"window|needs|has|_cut",
        "needs",
        "decode_window, receptive_windows, _crop",
        "src/kontext/model/decoder*",
    ),
    Rule(r"codec_view", "codec_view", "reconstruct"),
    Rule(r"quicken|put_on_tiles|decode_on_tiles", "quicken", "accelerate_cpu, use_decoder_kernels"),
    Rule(
        r"narrow|worth|FEWER|WORTH", "WORTH", "select_active_tokens, MAX_ACTIVE_SHARE", "src/kontext/engine/*"
    ),
    Rule(r"restless|CALM|SPECK|HALO", "HALO", "noise_floor, MIN_BLOB_PIXELS"),
    Rule(
        r"Stored|few|held|BESIDE|typed|fitted|unscaled|_placed",
        "BESIDE",
        "LazyTensor, SIBLING_DIRS",
        "src/kontext/checkpoint/*",
    ),
    Rule(r"Stored", "Stored", "StoredBlob", "src/kontext/session/*"),
    Rule(r"Ranks|Feeder|meet", "Ranks", "Distributed, ExampleLoader", "src/kontext/train/*"),
    Rule(
        r"_Sums|rate|opponent|_separate|misled",
        "opponent",
        "MetricAverager, discriminator_optimizer",
        "src/kontext/train/*",
    ),
    Rule(r"Hub|tell|listen", "tell", "EventBus.publish, subscribe", "src/kontext/server/service/*"),
    Rule(
        r"Station|Work|Tell|_hear|_mourn|_expect", "_mourn", "ModelHost, JobPayload", "src/kontext/server/*"
    ),
    Rule(r"Card", "Card", "ModelInfo", "src/kontext/server/*"),
    Rule(r"trouble|told_trouble", "trouble", "load_error, public_load_error"),
    Rule(
        r"moved|_positions|places", "moved", "notify_queue_changed, queue_positions", "src/kontext/server/*"
    ),
    Rule(r"last_word|_made|made_view", "last_word", "terminal_event, created_turn"),
    Rule(r"_give_back|blame|beat", "beat", "requeue(count_attempt=), heartbeat"),
    Rule(r"Gate|Figures|Program|life", "Gate", "RequestGuard, Metrics, Server", "src/kontext/server/*"),
    Rule(r"Nobody|All", "Nobody", "AllowAll, Composite", "src/kontext/server/*"),
    Rule(r"wish|spoken|storable", "storable", "request, non_blank, db_safe_text"),
    Rule(r"NoKey|TooOften|Refused|Stale", "TooOften", "Unauthorized, RateLimited"),
    Rule(
        r"plant|facts|stale|also", "plant", "insert_tree, result_info, allow_stale", "src/kontext/session/*"
    ),
    Rule(r"Link|continued|way|gone", "continued", "HistoryEntry, extend_history", "src/kontext/session/*"),
    Rule(
        r"rivals?|foreign|Draft|say", "rivals", "distractors, out_of_domain, TaskSpec", "src/kontext/world/*"
    ),
]

PROSE = [
    Rule(r"(?<!there )\bis no (?!longer|more|less)", "is no number", "is not a ..."),
    Rule(r"\bleav(e|es|ing) [^.;:]{1,30} away\b", "leave it away", "omit"),
    Rule(r"\bnot to be had\b", "not to be had here", "not available"),
    Rule(r"\ballowed (are|is)\b", "allowed are 1 to 16", "must be 1 to 16, got 17"),
    Rule(r"\bit never was\b", "it never was", "unknown or expired"),
    Rule(r"\b(goes|went|going) on\b|\bgo on (with|where|from)\b", "goes on", "resumes, continues"),
    Rule(r"\bin (its|their) stead\b", "in its stead", "replaces"),
    Rule(r"\bhears?\b", "the worker hears", "receives"),
    Rule(r"\b(tells?|told)\b", "it tells the user", "reports, says, distinguishes"),
    Rule(r"\bbeside\b", "beside it", "next to, in addition to"),
    Rule(r"\b(some|no|every)body\b", "nobody", "the role: user, client, worker"),
    Rule(r"\bso many\b", "so many pixels", "the name of the argument"),
    Rule(r"\b(whoever|of whom|thereof|therein|whereof)\b", "whoever", "two short sentences"),
    Rule(r"\bso that (it|they)\b", "so that it", "which, to"),
    Rule(r"\bstands? (in|at|beside|there|written)\b", "stands in the file", "is"),
    Rule(
        r"\b(what|all that) (is|was|are) (asked|wanted|given|told|made|needed)\b", "what is asked", "the noun"
    ),
    Rule(r"\bthe house\b|\bits own kernels\b", "The house", "Architecture, custom kernels", "*.md"),
    Rule(r"\bcolour", "colour", "color"),
    Rule(
        r"\b(grey|behaviour|licence|centre|favour|neighbour|catalogue|honour|labell|modell|travell|whilst|amongst|towards"
        r"|(organ|recogn|initial|optim|normal|serial|synthes)is(e|es|ed|ing|ation)\b|analys(e|ed|ing)\b|cancell)",
        "behaviour",
        "US spelling",
    ),
    Rule(r"\bthe one (that|which|who|of|before|after|below|above)\b", "the one before", "the noun"),
    Rule(r"\bas (large|big|long|wide) as the [a-z]+ one\b", "as large as the edited one", "the same size as"),
]
"""Phrases in comments, docstrings, messages and documents."""


class Finding(NamedTuple):
    place: str
    """`path:line`."""
    word: str
    rule: Rule


def files() -> list[Path]:
    found = {path for pattern in SOURCES for path in ROOT.glob(pattern) if path.suffix in SUFFIXES}
    ours = [path for path in sorted(found) if path.is_file() and ".venv" not in path.parts]
    return [path for path in ours if not any(fnmatch.fnmatch(_name(path), skip) for skip in NOT_OURS)]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def exceptions() -> dict[str, set[str]]:
    """Words that the glossary keeps, in lower case, and the paths where they may stand."""
    text = GLOSSARY.read_text("utf-8")
    table = text.split("## Exceptions of the word check", 1)[1]
    kept: dict[str, set[str]] = defaultdict(set)
    for word, where in re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| \S", table, re.MULTILINE):
        kept[word.lower()].add(where)
    return kept


def is_exception(finding: Finding) -> bool:
    path = finding.place.split(":")[0]
    return any(fnmatch.fnmatch(path, where) for where in exceptions().get(finding.word.lower(), ()))


def defined_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that a module defines: functions, classes, arguments, variables, attributes; with their line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno
            case ast.ExceptHandler(name=str()) | ast.MatchAs(name=str()):
                yield node.name, node.lineno


def prose(path: Path) -> Iterator[tuple[str, int]]:
    """Pieces of English of a file, with their line."""
    text = path.read_text("utf-8")
    match path.suffix:
        case ".py":
            yield from _python_prose(text, messages=_has_messages(_name(path)))
        case ".md" | ".cff" | ".html":
            plain = re.sub(
                r"^```.*?^```|`[^`\n]*`", lambda code: "\n" * code[0].count("\n"), text, flags=re.M | re.S
            )
            yield plain, 1
        case ".json":
            if "locales" in path.parts:
                yield from ((line, number) for number, line in enumerate(text.splitlines(), start=1))
        case ".js" | ".mjs" | ".css" | ".c" | ".h":
            for comment in re.finditer(r"(?<!:)//[^\n]*|/\*.*?\*/", text, re.S):
                yield comment[0], text.count("\n", 0, comment.start()) + 1
        case _:
            for comment in re.finditer(r"(?<!\S)#[^\n]*", text):
                yield comment[0], text.count("\n", 0, comment.start()) + 1


def _has_messages(name: str) -> bool:
    """Whether strings are our own words, not those of test data or of users in training."""
    return name.startswith("src/") and not name.startswith("src/kontext/world/language/")


def _python_prose(text: str, messages: bool) -> Iterator[tuple[str, int]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string, token.start[0]
    tree = ast.parse(text)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            if messages or id(node) in docstrings:
                yield node.value, node.lineno


def findings(path: Path) -> Iterator[Finding]:
    name = _name(path)
    if path.suffix == ".py":
        for word, line in defined_names(ast.parse(path.read_text("utf-8"))):
            for rule in NAMES:
                if re.fullmatch(rule.pattern, word) and fnmatch.fnmatch(name, rule.scope):
                    yield Finding(f"{name}:{line}", word, rule)
    for text, line in prose(path):
        for rule in PROSE:
            if not fnmatch.fnmatch(name, rule.scope):
                continue
            for match in re.finditer(rule.pattern, text, re.IGNORECASE):
                yield Finding(f"{name}:{line + text.count(chr(10), 0, match.start())}", match[0], rule)


@pytest.mark.parametrize("rule", [*NAMES, *PROSE], ids=lambda rule: rule.example)
def test_a_rule_finds_its_example(rule: Rule) -> None:
    assert re.search(rule.pattern, rule.example, re.IGNORECASE)


@functools.cache
def everything_found() -> list[Finding]:
    return [finding for path in files() for finding in findings(path)]


def test_no_word_of_the_list_is_used() -> None:
    faults = [finding for finding in everything_found() if not is_exception(finding)]
    assert not faults, "\n" + "\n".join(map(_shown, faults))


def test_every_exception_is_needed() -> None:
    used = {(finding.word.lower(), finding.place.split(":")[0]) for finding in everything_found()}
    for word, places in exceptions().items():
        for where in places:
            assert any(found == word and fnmatch.fnmatch(path, where) for found, path in used), (word, where)


def test_a_class_name_means_one_thing() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for path in files():
        if path.suffix == ".py" and _name(path).startswith("src/"):
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes[node.name].add(_name(path))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def _shown(finding: Finding) -> str:
    return f"{finding.place}: {finding.word!r}; better: {finding.rule.better}"


if __name__ == "__main__":
    paths = [Path(argument).resolve() for argument in sys.argv[1:]]
    for path in files():
        if not paths or any(path.is_relative_to(chosen) for chosen in paths):
            for finding in findings(path):
                if not is_exception(finding):
                    print(_shown(finding))
