"""Settings of `kontext serve` from options, variables and a file: all reachable, unknown ones refused."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from kontext import cli
from kontext.commands import serve, serve_settings
from kontext.errors import BadConfig
from kontext.loras import Lora
from kontext.server.settings import CHOICES, RANGES, Settings
from support.serving import LOCAL, Program

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
KEYS = list(serve_settings.types())

SAMPLES: dict[str, tuple[str, str, Any]] = {
    "public_url": ('"https://a.example.org"', "https://a.example.org", "https://a.example.org"),
    "memory": ('"8GB"', "8GB", "8GB"),
    "expand_prompt": ('"http://localhost:9/v1"', "http://localhost:9/v1", "http://localhost:9/v1"),
    "loras.always": (
        '["knit:0.5", "ink"]',
        "knit:0.5, ink",
        (Lora(name="knit", scale=0.5), Lora(name="ink")),
    ),
}
"""In TOML, in a variable, and as a field of `Settings`; other keys have the sample of their type."""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in map(serve_settings.variable, KEYS):
        monkeypatch.delenv(name, raising=False)


def sample(key: str) -> tuple[str, str, Any]:
    """A value that is not the default: in TOML, in a variable, and as a field of `Settings`."""
    kind = serve_settings.types()[key]
    if key in SAMPLES:
        return SAMPLES[key]
    if key in CHOICES:
        return f'"{CHOICES[key][1]}"', CHOICES[key][1], CHOICES[key][1]
    kinds = {kind, *get_args(kind)}
    if bool in kinds:
        value = not serve_settings.collect(None, {}, {})[key].value
        return str(value).lower(), str(value).lower(), value
    if int in kinds or float in kinds:
        number = int(RANGES[key][0]) + 65
        return str(number), str(number), number
    if ... in kinds:
        return '["a.example.org", "b"]', "a.example.org,b", ("a.example.org", "b")
    return '"a-b"', "a-b", Path("a-b") if Path in kinds else "a-b"


def field(settings: Settings, key: str) -> object:
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


def file_of(folder: Path, text: str) -> Path:
    path = folder / "server.toml"
    path.write_text(text, encoding="utf-8")
    return path


def show(*arguments: object, **variables: str) -> Result:
    command = ["serve", "--show-config", *map(str, arguments)]
    return CliRunner().invoke(cli.app, command, env=variables)


def refused(*arguments: object, **variables: str) -> str:
    """The one line of a command that fails."""
    done = show(*arguments, **variables)
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done.output
    return done.stderr


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_can_be_given_in_a_file_and_in_a_variable(key: str, tmp_path: Path) -> None:
    in_file, in_variable, expected = sample(key)
    name = key.removeprefix("loras.")
    table = "[loras]\n" if name != key else ""
    path = file_of(tmp_path, f"{table}{name} = {in_file}\n")
    assert field(Settings(), key) != expected
    for settings in (
        serve_settings.collect(path, {}, {}),
        serve_settings.collect(None, {serve_settings.variable(key): in_variable}, {}),
    ):
        assert field(serve_settings.build(settings), key) == expected
        assert [other for other in KEYS if settings[other].origin != "default"] == [key]


def test_every_option_is_a_setting_with_the_same_default() -> None:
    defaults = serve_settings.collect(None, {}, {})
    for option in typer.main.get_command(serve.app).params:
        name = str(option.name)
        if name in serve.NOT_SETTINGS or name == "help":
            continue
        setting = defaults[serve.SETTING_OF.get(name, name)].value
        given = option.default * 2**30 if name == "storage" else option.default
        assert given == setting or (given is None and setting in ((), Settings.editor, False)), name


def test_an_option_overrides_a_variable_and_a_variable_the_file(tmp_path: Path) -> None:
    path = file_of(tmp_path, 'host = "::1"\nport = 1\nworkers = 2\nnsfw = true\n')
    done = show("--config", path, "--port", 3, "--no-nsfw", KONTEXT_PORT="2", KONTEXT_WORKERS="4")
    assert done.exit_code == 0
    rows = dict(re.findall(r"^(?:# )?(\w+) .*?  # (.+)$", done.stdout, re.MULTILINE))
    assert rows["host"] == str(path)
    assert rows["port"] == "--port" and "port = 3 " in done.stdout
    assert rows["workers"] == "KONTEXT_WORKERS" and "workers = 4 " in done.stdout
    assert rows["nsfw"] == "--no-nsfw" and "nsfw = false " in done.stdout
    assert rows["max_batch"] == rows["device"] == "default"
    assert len(rows) == len(KEYS)


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    written = "".join(f"{key} = {sample(key)[0]}\n" for key in KEYS if "." not in key)
    written += "[loras]\n" + "".join(f"{key[6:]} = {sample(key)[0]}\n" for key in KEYS if "." in key)
    first = serve_settings.collect(file_of(tmp_path, written), {}, {})
    shown = show("--config", tmp_path / "server.toml").stdout
    second = serve_settings.collect(file_of(tmp_path, shown), {}, {})
    assert {key: setting.value for key, setting in second.items()} == {
        key: setting.value for key, setting in first.items()
    }


def test_variables_name_the_file_and_may_be_empty(tmp_path: Path) -> None:
    path = file_of(tmp_path, "workers = 3\n")
    done = show(KONTEXT_CONFIG=str(path), KONTEXT_MAX_BATCH="")
    assert "workers = 3 " in done.stdout and "max_batch = 8 " in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "unknown setting 'prot'; did you mean port?"),
        ("[lora]\nfolder = 1", "unknown setting 'lora'"),
        ("[loras]\nfolders = 1", "unknown setting 'loras.folders'; did you mean loras.folder?"),
        ("loras = 1", "loras must be a table"),
        ('port = "8000"', "port must be a valid integer, got '8000'"),
        ("workers = true", "workers must be a valid integer, got True"),
        ("port = 65536", "port must be 0 to 65535, got 65536"),
        ("cost = nan", "cost"),
        ("max_batch = 0", "max_batch must be at least 1, got 0"),
        ('log_format = "xml"', "log_format must be text or json, got 'xml'"),
        ('more_models = "dev"', "more_models must be a valid array, got 'dev'"),
        ("data = 1979-05-27", None),
        ("port = ", "is not TOML"),
    ],
)
def test_a_file_is_refused_with_the_key_that_is_wrong(text: str, message: str | None, tmp_path: Path) -> None:
    path = file_of(tmp_path, text)
    if message is None:  # a date is text where text is taken
        assert show("--config", path).exit_code == 0
        return
    line = refused("--config", path)
    assert str(path) in line and message in line


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none.toml'}: cannot be read" in refused("--config", tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("KONTEXT_PROT", "1", "unknown variable KONTEXT_PROT; did you mean KONTEXT_PORT?"),
        ("KONTEXT_PORT", "eight", "KONTEXT_PORT must be a valid integer"),
        ("KONTEXT_PORT", "70000", "KONTEXT_PORT: port must be 0 to 65535, got 70000"),
        ("KONTEXT_NSFW", "perhaps", "KONTEXT_NSFW must be a valid boolean"),
        ("KONTEXT_LORAS_ALWAYS", "knit:99", "KONTEXT_LORAS_ALWAYS: the scale of a LoRA"),
    ],
)
def test_a_variable_is_refused_by_its_name(name: str, text: str, message: str) -> None:
    assert message in refused(**{name: text})


def test_an_option_is_refused_by_its_name() -> None:
    assert "--executor: executor must be local or ray, got 'cloud'" in refused("--executor", "cloud")
    assert "invalid public URL" in refused("--public-url", "pictures")


def test_variables_that_address_a_service_are_not_settings() -> None:
    links = {
        "KONTEXT_PORT": "tcp://10.0.0.7:8000",
        "KONTEXT_SERVICE_HOST": "10.0.0.7",
        "KONTEXT_SERVICE_PORT_HTTP": "8000",
        "KONTEXT_PORT_8000_TCP_ADDR": "10.0.0.7",
        "KONTEXT_DB_PORT": "tcp://10.0.0.8:5432",
    }
    assert serve_settings.from_environment(links) == {}


def test_passwords_are_not_shown() -> None:
    done = show(
        KONTEXT_DATABASE="postgresql://me:se-cret@db/kontext?sslmode=require&password=se-cret",
        KONTEXT_BLOBS="s3://key:se-cret@pictures",
    )
    assert "se-cret" not in done.stdout
    assert '"postgresql://me:***@db/kontext?sslmode=require&password=***"' in done.stdout


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", OPERATIONS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    settings = serve_settings.build(serve_settings.collect(file_of(tmp_path, text), {}, {}))
    assert settings.loras.always == (Lora(name="house-style", scale=0.8),)
    assert set(tomllib.loads(text)) >= {"host", "database", "max_batch"}


def test_a_folder_of_loras_that_does_not_exist_is_refused_at_start(tmp_path: Path) -> None:
    missing, file = tmp_path / "none", file_of(tmp_path, f"[loras]\nfolder = '{tmp_path / 'none'}'\n")
    for arguments, origin in ((["--loras", missing], "--loras"), (["--config", file], file)):
        done = CliRunner().invoke(
            cli.app, ["serve", *map(str, arguments)], env={"KONTEXT_HOME": str(tmp_path)}
        )
        assert done.exit_code == 1
        assert done.stderr == f"error: {origin}: there is no folder {missing}; make it first\n"


def test_a_server_starts_with_the_settings_of_its_file(tmp_path: Path) -> None:
    path = file_of(tmp_path, "workers = 2\npicture_pixels = 4096\nlog_format = 'json'\n")
    program = Program(tmp_path, "--config", str(path))
    try:
        program.ready()
        assert len(program.workers()) == 2
        about = httpx.get(f"{program.url}/api/capabilities", **LOCAL).json()
        assert about["limits"]["picture_pixels"] == 4096
    finally:
        program.stop()
    assert (tmp_path / "log").read_text("utf-8").count('{"') > 0


def test_settings_made_in_python_are_checked() -> None:
    with pytest.raises(BadConfig, match="workers must be at least 1, got 0"):
        Settings(workers=0)
