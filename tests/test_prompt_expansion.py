"""Short prompts expanded by an endpoint that the user names; nothing leaks, nothing hangs."""

import logging
import time

import pytest
from tests.support.language_model import FAULTS, KEY, LanguageModel
from typer.testing import CliRunner

from kontext import cli
from kontext.errors import BadRequest, Unavailable
from kontext.prompt_expansion import MAX_CHARACTERS, SHORT_CHARACTERS, PromptExpander

ANSWER = "Make the hair a deep blue; keep the rest as it is."


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    endpoint = LanguageModel()
    yield endpoint
    endpoint.close()


def test_a_short_prompt_is_expanded_by_the_first_model_listed(endpoint):
    expander = PromptExpander(endpoint.url, key=KEY)
    assert expander.expand("blue hair", edits=True) == ANSWER
    assert expander.expand("red hair", edits=False) == ANSWER
    listing, first, second = endpoint.requests  # the list is asked for once
    assert listing[:2] == ("GET", "/v1/models") and first[:2] == ("POST", "/v1/chat/completions")
    assert first[3]["model"] == "small-model" and first[3]["messages"][1]["content"] == "blue hair"
    assert "edit a picture" in first[3]["messages"][0]["content"]
    assert "descriptions of pictures" in second[3]["messages"][0]["content"]
    assert all(request[2]["authorization"] == f"Bearer {KEY}" for request in endpoint.requests)


def test_a_named_model_is_asked_without_a_list_and_no_key_is_made_up(endpoint, monkeypatch):
    monkeypatch.delenv("KONTEXT_PROMPT_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # belongs to another service
    PromptExpander.from_environment(endpoint.url + "/chat/completions", "mine").expand("blue", edits=True)
    ((_, path, headers, body),) = endpoint.requests
    assert path == "/v1/chat/completions" and body["model"] == "mine"
    assert "authorization" not in {name.lower() for name in headers}


def test_a_long_prompt_is_used_as_it_is(endpoint):
    long = "x" * (SHORT_CHARACTERS + 1)
    assert PromptExpander(endpoint.url).expand(long, edits=True) == long and not endpoint.requests


CLEANED = {
    '  "A cat."  ': "A cat.",
    "<think>hmm, blue?</think>\n\nA blue cat.": "A blue cat.",
    "```text\nA cat\nin the rain\n```": "A cat in the rain",
    "“一只猫。”": "一只猫。",
    'Replace "CAKE" with "TEA"': 'Replace "CAKE" with "TEA"',
    '"CAKE" becomes "TEA"': '"CAKE" becomes "TEA"',
    "A\x00 cat\x1b.": "A cat.",
}


@pytest.mark.parametrize("answer", CLEANED)
def test_answers_are_reduced_to_the_prompt(endpoint, answer):
    endpoint.answer = answer
    assert PromptExpander(endpoint.url).expand("a cat", edits=False) == CLEANED[answer]


REASONS = {
    "denied": "status 401; is the key in KONTEXT_PROMPT_KEY right",
    "elsewhere": "status 302",
    "broken": "status 500",
    "no json": "not JSON",
    "deep json": "not JSON",
    "other json": "holds no text",
    "endless": "too long",
    "drip": "no answer within 0.5 seconds",
    "": "holds no text",
    "<think>never ending": "holds no text",
    "x" * (MAX_CHARACTERS + 1): f"more than {MAX_CHARACTERS} characters",
}


@pytest.mark.parametrize("answer", REASONS, ids=lambda answer: answer[:20])
def test_faults_end_in_one_line_in_time_and_without_the_key(endpoint, answer, caplog):
    assert set(FAULTS) <= set(REASONS)
    caplog.set_level(logging.DEBUG)
    endpoint.answer = answer
    expander, start = PromptExpander(endpoint.url, "m", key=KEY, seconds=0.5), time.monotonic()
    with pytest.raises(Unavailable) as error:
        expander.expand("a cat", edits=True)
    assert time.monotonic() - start < 3
    assert REASONS[answer] in str(error.value) and endpoint.url in str(error.value)
    assert "\n" not in str(error.value)
    assert KEY not in str(error.value) + caplog.text + repr(expander)


def test_slow_and_missing_endpoints_are_told(endpoint):
    endpoint.delay = 1.0
    with pytest.raises(Unavailable, match="no answer within 0.2 seconds"):
        PromptExpander(endpoint.url, "m", seconds=0.2).expand("a cat", edits=True)
    endpoint.models = []
    with pytest.raises(Unavailable, match="lists no model; name one"):
        PromptExpander(endpoint.url).expand("a cat", edits=True)
    with pytest.raises(Unavailable, match="cannot be reached"):
        PromptExpander("http://127.0.0.1:9/v1", "m").expand("a cat", edits=True)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:11434", "ftp://a/v1", "http://", "http://a:99999/v1", f"http://me:{KEY}@a/v1"]
    + [f"https://a/v1?key={KEY}", f"https://a/v1#{KEY}"],
)
def test_urls_that_are_none_or_hold_a_key_are_refused_and_not_repeated(url):
    with pytest.raises(BadRequest, match="the URL for expanding prompts") as error:
        PromptExpander(url)
    assert KEY not in str(error.value)


def edit(*arguments):
    return CliRunner().invoke(cli.app, [*map(str, arguments), "--model", "tiny-random", "--steps", "1"])


@pytest.fixture
def kid(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (48, 32), "teal").save("kid.png")
    return "kid.png"


def test_the_command_line_uses_and_tells_the_expanded_prompt(endpoint, kid, monkeypatch):
    import json

    from kontext.session.provenance import read_chain

    monkeypatch.setenv("KONTEXT_PROMPT_KEY", KEY)
    done = edit("edit", kid, "blue hair", "--expand-prompt", endpoint.url, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["prompt"] == ANSWER
    assert f"prompt: {ANSWER}\n" in done.stderr and KEY not in done.stdout + done.stderr
    assert read_chain("kid-edited.png")[-1].prompt == ANSWER
    made = edit("generate", "a cat", "--expand-prompt", endpoint.url, "--expand-model", "mine", "--json")
    assert json.loads(made.stdout)["prompt"] == ANSWER and endpoint.requests[-1][3]["model"] == "mine"


def test_the_command_line_falls_back_only_where_the_model_reads_too_little(endpoint, kid):
    endpoint.answer = "very " * 100 + "blue"
    done = edit("edit", kid, "blue hair", "--expand-prompt", endpoint.url)
    assert done.exit_code == 0 and "warning: not expanded: the prompt has" in done.stderr
    endpoint.answer = "denied"
    failed = edit("edit", kid, "blue hair", "--expand-prompt", endpoint.url, "-o", "other.png")
    assert failed.exit_code == 1 and failed.stderr.startswith("error: the prompt was not expanded")
    alone = edit("edit", kid, "blue hair", "--expand-model", "x")
    assert alone.exit_code == 1 and "--expand-model needs --expand-prompt" in alone.stderr
