"""The official clients, unmodified, against a running server with the shipped weights."""

import base64
import json
import shutil
import subprocess
from importlib.resources import files

import httpx
import numpy as np
import pytest

from kontext import Editor
from support.serving import opened

TRUE = "kontext.server.workers.worker:load_editor"
PROMPT, SEED = "Make the hair blue", 3

pytestmark = pytest.mark.skipif(
    not (files("kontext") / "weights" / "nano" / "config.json").is_file(),
    reason="the shipped weights are not in this checkout",
)


@pytest.fixture(scope="module")
def nano(start):
    return start(editor=TRUE, model="nano").ready()


@pytest.fixture(scope="module")
def example():
    """A file, and what the editor itself makes of it."""
    table = json.loads((files("kontext") / "examples" / "examples.json").read_text())
    data = (files("kontext") / "examples" / table[0]["file"]).read_bytes()
    return data, Editor.load("nano").edit(data, PROMPT, seed=SEED).picture


def assert_edited(picture, example):
    """It is the editor's own result; other threads and batches round otherwise."""
    source, made = (
        np.asarray(image.convert("RGB")).astype(int) for image in (opened(example[0]), example[1])
    )
    served = np.asarray(picture.convert("RGB")).astype(int)
    assert served.shape == made.shape and np.abs(served - made).mean() < 0.5
    assert np.abs(served - source).mean() > np.abs(served - made).mean()


def test_an_example_is_edited_in_a_session(nano):
    first = nano.http.get("/api/examples").json()["examples"][0]
    session = nano.http.post("/api/sessions", json={"example": first["name"]}).json()
    assert nano.ended(nano.edit(session, first["prompts"][0], seed=1)[0])["state"] == "done"


def test_blackforest_edits(nano, example):
    blackforest = pytest.importorskip("blackforest")
    from blackforest.types.general.client_config import ClientConfig

    client = blackforest.BFLClient(api_key="bfl_any", base_url=nano.url)
    inputs = {"prompt": PROMPT, "input_image": base64.b64encode(example[0]).decode(), "seed": SEED}
    answer = client.generate("flux-kontext-pro", inputs, ClientConfig(sync=True, timeout=60))
    sample = answer.result["sample"] if isinstance(answer.result, dict) else answer.result
    assert_edited(opened(httpx.get(sample, trust_env=False).content), example)


def test_openai_edits_streams_and_generates(nano, example):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(
        base_url=f"{nano.url}/v1", api_key="any", http_client=openai.DefaultHttpxClient(trust_env=False)
    )
    given = dict(model="kontext", prompt=PROMPT, extra_body={"seed": SEED})
    answer = client.images.edit(image=("kid.png", example[0]), **given)
    assert_edited(opened(base64.b64decode(answer.data[0].b64_json)), example)
    image = ("kid.png", example[0])
    events = list(client.images.edit(image=image, stream=True, partial_images=2, **given))
    assert [event.type for event in events] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    assert_edited(opened(base64.b64decode(events[-1].b64_json)), example)
    made = client.images.generate(model="kontext", prompt="A kid on a beach", size="256x256")
    assert opened(base64.b64decode(made.data[0].b64_json)).size == (256, 256)


def test_huggingface_hub_edits(nano, example, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client = hub.InferenceClient(provider="hf-inference", token="x")
    url = f"{nano.url}/hf/nano"
    assert_edited(client.image_to_image(example[0], prompt=PROMPT, model=url, seed=SEED), example)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="node is not installed")
@pytest.mark.parametrize("ai, provider", [("^6", "^1"), ("^7", "^2")])
def test_the_bfl_provider_of_the_ai_sdk_edits(nano, example, tmp_path, ai, provider):
    """From npm: its addresses, its schemas, its refusal of private hosts."""
    packages = {"dependencies": {"ai": ai, "@ai-sdk/black-forest-labs": provider}, "type": "module"}
    (tmp_path / "package.json").write_text(json.dumps(packages))
    installed = subprocess.run(
        ["npm", "install", "--silent"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    if installed.returncode:
        pytest.skip("the package registry is not reachable")
    (tmp_path / "kid.png").write_bytes(example[0])
    (tmp_path / "edit.mjs").write_text(
        """
import { readFileSync, writeFileSync } from 'node:fs';
import { generateImage } from 'ai';
import { createBlackForestLabs } from '@ai-sdk/black-forest-labs';
const [url, text, seed] = process.argv.slice(2);
const bfl = createBlackForestLabs({ baseURL: url + '/v1', apiKey: 'any' });
const prompt = { text, images: [readFileSync('kid.png')] };
const { image } = await generateImage({ model: bfl.image('flux-kontext-pro'), prompt, seed: Number(seed) });
writeFileSync('out.png', image.uint8Array);
"""
    )
    ended = subprocess.run(
        ["node", "edit.mjs", nano.url, PROMPT, str(SEED)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert_edited(opened((tmp_path / "out.png").read_bytes()), example)


def test_a_prompt_that_is_too_long_is_refused_at_once_by_every_dialect(nano, example):
    limit = nano.http.get("/api/capabilities").json()["limits"]["prompt_tokens"]
    assert limit == Editor.load("nano").model.preset.text_length
    session = nano.http.post("/api/sessions", files={"picture": example[0]}).json()
    image = base64.b64encode(example[0]).decode()
    before = nano.service.queue.count()
    for words in (0, 4, limit - 1, limit, 99):
        prompt, count = " ".join(["hat"] * words), words + 1  # with an end mark
        counted = nano.http.post("/api/tokens", json={"prompt": prompt}).json()
        assert counted == {"tokens": count, "limit": limit}
    for prompt in ("hat " * (limit + 20), "\u5e3d" * (4 * limit)):
        for path, body in {
            f"/api/sessions/{session['id']}/edits": {"prompt": prompt},
            "/v1/flux-kontext-pro": {"prompt": prompt, "input_image": image},
            "/v1/images/generations": {"prompt": prompt},
            "/v1/images/edits": {"prompt": prompt, "images": [{"image_url": f"data:;base64,{image}"}]},
            "/hf/nano": {"inputs": image, "parameters": {"prompt": prompt}},
        }.items():
            answer = nano.http.post(path, json=body)
            assert answer.status_code == 400, (path, answer.text)
            error = answer.json()["error"]
            assert f"reads at most {limit}" in error["message"] and error["param"] == "prompt"
    assert nano.service.queue.count() == before
