"""One table of options, and every surface held against it."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from kontext import cli, options
from kontext.batch import tables
from kontext.commands import batch, chat, edit, generate
from kontext.engine import EditOptions, Editor, GenerateOptions
from kontext.engine.checks import check_variants
from kontext.engine.requests import EditRequest
from kontext.errors import BadRequest
from kontext.mcp import MAX_VARIANTS, TOOLS
from kontext.options import SURFACES, TABLE, Option, offered, option
from kontext.server.jobs.requests import JobRequest
from kontext.server.routes.bfl import KontextInputs
from kontext.server.routes.edits import Edit, Variants
from kontext.server.routes.huggingface import Parameters
from kontext.server.routes.openai_fields import ROLES, ImageRequest
from kontext.server.settings import Settings
from kontext.server.workers.worker import load_editor
from kontext.session.provenance import SETTINGS
from kontext.session.settings import PICTURES

NEW = Option("sharpness", "plain", "number", None, "How sharp.", low=0, high=1)
ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "options.md"
PLAYGROUND = ROOT / "src" / "kontext" / "playground"
SETTINGS_ROW = PLAYGROUND / "elements" / "settings.js"


def switches(app):
    """The options of a command, by their long names without dashes."""
    command = typer.main.get_command(app)
    return {name[2:] for option in command.params for name in option.opts if name.startswith("--")}


TAKEN = {
    "python": lambda: {option.name for option in fields(EditRequest)},
    "edit": lambda: switches(edit.app),
    "generate": lambda: switches(generate.app),
    "batch": lambda: switches(batch.app),
    "chat": lambda: set(chat.Chat(None, None).commands),
    "table": lambda: set(tables.COLUMNS),
    "http": lambda: set(Edit.model_fields),
    "mcp edit": lambda: set(TOOLS["edit"][1]["properties"]),
    "mcp generate": lambda: set(TOOLS["generate"][1]["properties"]),
    "provenance": lambda: set(SETTINGS),
}
"""What each surface really takes, its other arguments among it."""


COMMANDS = {"edit": edit.app, "generate": generate.app, "batch": batch.app}
SWITCHES = [
    (surface, option) for surface in COMMANDS for option in offered(surface) if option.name != "variants"
]


class Reached(BadRequest):
    """Ends a command where it checks its settings."""


@pytest.mark.parametrize(
    "surface, option", SWITCHES, ids=lambda option: option if isinstance(option, str) else option.name
)
def test_a_switch_reaches_the_settings(surface, option, tmp_path, monkeypatch):
    given = {}

    def check_request(request, count=1):
        given.update({field.name: getattr(request, field.name) for field in fields(request)})
        raise Reached("reached")

    def check_settings(prompt, settings):
        given.update(settings)
        raise Reached("reached")

    monkeypatch.setattr("kontext.engine.checks.check_request", check_request)
    monkeypatch.setattr("kontext.engine.checks.check_settings", check_settings)
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for name in ("a.png", "hat.png", "mask.png", "overlay.png"):
        Image.new("RGB", (64, 64)).save(name)
    picture = {"edit": ["a.png"], "generate": [], "batch": ["folder"]}[surface]
    switch = f"--{'no-' if option.type == 'boolean' else ''}{option.name_on(surface)}"
    value = [] if option.type == "boolean" else [option.example]
    output = ["-o", "results"] if surface == "batch" else []
    with pytest.raises(Reached):
        typer.main.get_command(COMMANDS[surface])(
            [*picture, "Make it red", switch, *value, *output], standalone_mode=False
        )
    assert given[option.name] not in (None, option.default)


@pytest.mark.parametrize(
    "command",
    [
        *("edit a.png red", "generate red", "chat a.png", "mcp"),
        *("bench quality", "bench approximations", "bench speed", "bench kontextbench ."),
    ],
)
@pytest.mark.parametrize("option", ["fp8", "compile"])
def test_an_option_of_loading_reaches_the_editor_of_every_command(command, option, tmp_path, monkeypatch):
    def load(model, *_, **given):
        raise Reached(f"{model} {option}={given.get(option)}")

    monkeypatch.setattr(Editor, "load", load)
    monkeypatch.setattr("os.dup2", lambda *_: None)  # `mcp` takes standard output
    monkeypatch.setattr("kontext.mcp.McpServer.serve", lambda server, lines: server.tools.editor)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KONTEXT_HOME", str(tmp_path))
    Image.new("RGB", (64, 64)).save("a.png")
    for switch, value in (([f"--{option}"], "True"), ([], "False|None")):
        done = CliRunner().invoke(cli.app, [*command.split(), "--model", "tiny-random", *switch])
        assert done.exit_code == 1 and re.search(f"tiny-random {option}=({value})", done.output)


@pytest.mark.parametrize("option", ["fp8", "compile"])
def test_an_option_of_loading_reaches_the_workers_of_batches_and_of_the_service(option, monkeypatch):
    monkeypatch.setattr(Editor, "load", lambda *_, **given: given[option])
    assert batch.load_editor("nano", None, **{option: True}) is True
    assert load_editor("nano", None, **Settings(**{option: True}).editor_options) is True
    assert option not in Settings().editor_options  # factories that know no such option


def differences(surface):
    """Options that a surface lacks, and those it takes though the table says that it does not."""
    taken = TAKEN[surface]()
    known = {option.name_on(surface): option for option in options.TABLE}
    demanded = {option.name_on(surface) for option in offered(surface)}
    return demanded - taken, (taken & set(known)) - demanded


@pytest.mark.parametrize("surface", SURFACES)
def test_a_surface_takes_the_options_of_the_table_and_no_others(surface):
    assert differences(surface) == (set(), set())


@pytest.mark.parametrize("surface", SURFACES)
def test_a_new_option_is_demanded_of_every_surface(surface, monkeypatch):
    monkeypatch.setattr(options, "TABLE", (*TABLE, NEW))
    assert differences(surface) == ({"sharpness"}, set())


BODIES = {"BFL": KontextInputs, "OpenAI": ImageRequest, "Hugging Face": Parameters}
PARTS = {"OpenAI": {"image", *ROLES}}
"""Fields of a form that hold pictures."""
NARROWER = {("OpenAI", "variants"), ("OpenAI", "seed")}  # n is 1 to 10 there, of seeds seed to seed + n - 1
WIDER = {("BFL", "seed")}  # a 64-bit number there


@pytest.mark.parametrize("dialect", options.DIALECTS)
def test_a_dialect_has_the_fields_of_the_table(dialect):
    known = {*BODIES[dialect].model_fields, *PARTS.get(dialect, ())}
    assert set(options.DIALECTS[dialect].values()) <= known
    undeclared = {option.name for option in TABLE} & (known - set(options.DIALECTS[dialect].values()))
    assert not undeclared


def test_every_option_is_in_a_dialect_or_declared_to_be_in_none():
    assert undecided() == set()


def undecided():
    """Options about which `DIALECTS` and `NOT_IN_DIALECTS` say nothing, and those of which both speak."""
    named = {name for fields in options.DIALECTS.values() for name in fields}
    return {
        option.name
        for option in options.TABLE
        if (option.name in named) == (option.name in options.NOT_IN_DIALECTS)
    }


def test_a_new_option_is_demanded_of_the_dialects(monkeypatch):
    monkeypatch.setattr(options, "TABLE", (*TABLE, NEW))
    assert undecided() == {NEW.name}


DIALECT_NUMBERS = [
    (dialect, option(name), field)
    for dialect, fields in options.DIALECTS.items()
    for name, field in fields.items()
    if option(name).type in ("integer", "number")
]


@pytest.mark.parametrize("dialect, option, field", DIALECT_NUMBERS)
def test_ranges_of_a_dialect_are_those_of_the_table(dialect, option, field):
    def taken(value):
        try:
            BODIES[dialect].model_validate({"prompt": "a", field: value})
        except ValidationError:
            return False
        return True

    assert taken(option.low) and not taken(option.low - 1)
    assert taken(option.high) != ((dialect, option.name) in NARROWER)
    assert taken(option.high + 1) == ((dialect, option.name) in WIDER)


MADE_FROM_THE_TABLE = """
from kontext import options
new = options.Option("sharpness", "plain", "number", None, "How sharp.", low=0, high=1)
options.TABLE = (*options.TABLE, new)
from kontext.batch.tables import COLUMNS
from kontext.commands.chat_options import COMMANDS
from kontext.mcp import TOOLS
from kontext.server.jobs.requests import OPTIONS
from kontext.session.provenance import SETTINGS
assert SETTINGS["sharpness"](1) and not SETTINGS["sharpness"](2)
assert TOOLS["edit"][1]["properties"]["sharpness"]["maximum"] == 1
assert "sharpness" in COLUMNS and "sharpness" in COMMANDS and "sharpness" in OPTIONS
assert "sharpness" in TOOLS["generate"][1]["properties"] and "`sharpness` | number" in options.markdown()
"""


def test_a_new_option_appears_on_the_surfaces_that_are_made_from_the_table():
    """MCP, batch tables, chat, provenance, jobs and the documentation; the others are demanded above."""
    done = subprocess.run([sys.executable, "-c", MADE_FROM_THE_TABLE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_jobs_have_the_options_of_the_table():
    assert {option.name for option in offered("python")} <= {field.name for field in fields(JobRequest)}


def test_the_editor_takes_what_a_request_takes():
    assert set(EditOptions.__annotations__) == {option.name for option in offered("python")}
    assert set(GenerateOptions.__annotations__) == {option.name for option in offered("mcp generate")}
    kinds = {Editor.edit: EditOptions, Editor.variants: EditOptions, Editor.generate: GenerateOptions}
    for method, taken in kinds.items():
        assert method.__annotations__["options"] == f"Unpack[{taken.__name__}]"


def test_pictures_of_a_turn_are_those_of_the_table():
    assert set(PICTURES) == {option.name for option in TABLE if option.kind == "picture"}


@pytest.mark.parametrize(
    "option", [option for option in TABLE if "python" not in option.exempt], ids=lambda option: option.name
)
def test_defaults_are_those_of_requests(option):
    given = EditRequest(prompt="a").__getattribute__(option.name)
    assert given == option.default or (option.name, given) == ("size", None)  # None is match for an edit


def by_table(tmp_path, name, value):
    path = tmp_path / "table.jsonl"
    path.write_text(json.dumps({"picture": "a.png", name: value}))
    tables.read(path)


def by_schema(surface, name, value):
    schema = TOOLS[surface][1]["properties"][name]
    if not schema["minimum"] <= value <= schema["maximum"]:
        raise ValueError


def by_rule(name, value):
    if not SETTINGS[name](value):
        raise ValueError


def by_chat(name, value):
    current = SimpleNamespace(size=(64, 64))
    session = SimpleNamespace(variants=lambda count, *_, **__: [check_variants(count)][1:], current=current)
    chat.Chat(session, lambda text, facts: None).commands[name](str(value))


GIVEN = {
    "python": lambda tmp_path, option, value: EditRequest(prompt="a", **{option: value}),
    "chat": lambda tmp_path, option, value: by_chat(option, value),
    "table": by_table,
    "http": lambda tmp_path, option, value: Edit.model_validate({"prompt": "a", option: value}),
    "mcp edit": lambda tmp_path, option, value: by_schema("edit", option, value),
    "mcp generate": lambda tmp_path, option, value: by_schema("generate", option, value),
    "provenance": lambda tmp_path, option, value: by_rule(option, value),
}
NUMBERS = [
    (surface, option)
    for surface in GIVEN
    for option in offered(surface)
    if option.type in ("integer", "number")
]


@pytest.mark.parametrize(
    "surface, option", NUMBERS, ids=lambda option: option if isinstance(option, str) else option.name
)
def test_ranges_are_equal_on_every_surface(surface, option, tmp_path):
    for value in (option.low, option.high):
        GIVEN[surface](tmp_path, option.name_on(surface), value)
    for value in (option.low - 1, option.high + 1):
        with pytest.raises((BadRequest, ValidationError, ValueError)):
            GIVEN[surface](tmp_path, option.name_on(surface), value)


CHOICES = [(surface, option) for surface in GIVEN for option in offered(surface) if option.type == "choice"]


def by_enum(surface, name, value):
    if value not in TOOLS[surface.removeprefix("mcp ")][1]["properties"][name]["enum"]:
        raise ValueError


@pytest.mark.parametrize(
    "surface, option", CHOICES, ids=lambda option: option if isinstance(option, str) else option.name
)
def test_choices_are_equal_on_every_surface(surface, option, tmp_path):
    give = partial(by_enum, surface) if "mcp" in surface else partial(GIVEN[surface], tmp_path)
    for value in option.choices:
        give(option.name_on(surface), value)
        assert value in option.help
    with pytest.raises((BadRequest, ValidationError, ValueError)):
        give(option.name_on(surface), "nothing of the kind")


def test_variants_are_as_many_everywhere():
    most = option("variants").whole_range[1]
    assert MAX_VARIANTS == most and Variants(count=most).count == most
    with pytest.raises(ValidationError):
        Variants(count=most + 1)
    with pytest.raises(BadRequest, match="variants must be 1 to 16, got 17"):
        check_variants(most + 1)


@pytest.mark.parametrize(
    "option",
    [option for option in TABLE if option.high and option.high < 1000],
    ids=lambda option: option.name,
)
def test_words_name_the_largest_value(option):
    assert options.limit_text(option.high) in option.help


def test_documentation_is_that_of_the_table():
    assert options.markdown() in DOCS.read_text(), "run make docs"


def test_the_playground_has_the_limits_of_the_table():
    found = re.findall(
        r"number\('(\w+)', \w+, (?:limits\?\.\w+ \?\? )?\[([\d.]+), ([\d.]+)\]", SETTINGS_ROW.read_text()
    )
    table = {option.name: option for option in TABLE}
    assert {"steps", "guidance", "strength"} <= {name for name, *_ in found}
    for name, low, high in found:
        assert (float(low), float(high)) == (table[name].low, table[name].high), name


WITHOUT_FIELD = {"true_guidance", "nag", "guidance_steps", "reference_layout"}
"""Options of a turn that the page repeats but does not offer."""


def test_an_option_of_the_playground_has_a_field_and_is_shown_with_the_turn():
    named = re.search(r"export const OPTIONS = \[([^\]]*)\]", (PLAYGROUND / "core" / "state.js").read_text())
    assert named is not None
    names = set(re.findall(r"'(\w+)'", named[1])) - WITHOUT_FIELD
    assert {"steps", "strength", "expand"} <= names
    for file in (SETTINGS_ROW, PLAYGROUND / "elements" / "dialogs.js"):
        missing = {name for name in names if not re.search(rf"\b{name}\b", file.read_text())}
        assert not missing, file.name
    words = [json.loads(file.read_text()) for file in sorted((PLAYGROUND / "locales").glob("*.json"))]
    assert len(words) > 1 and all(names <= set(each) for each in words)
