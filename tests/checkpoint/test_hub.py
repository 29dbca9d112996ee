"""Models by name on a hub: which files are downloaded, who may have them, what is left behind."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from kontext.checkpoint import load_model, open_checkpoint
from kontext.checkpoint.convert import quantize
from kontext.checkpoint.find import find_model
from kontext.checkpoint.hub import cache
from kontext.checkpoint.hub import models as hub
from kontext.checkpoint.hub.choice import choose
from kontext.checkpoint.hub.names import KONTEXT_DEV, OFFERED, parse
from kontext.errors import BadCheckpoint, BadRequest, NotFound, Unavailable
from support.hub import TRANSFORMER, nothing_left

OFFICIAL = [
    "LICENSE.md",
    "README.md",
    "ae.safetensors",
    "flux1-kontext-dev.safetensors",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "teaser.png",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model-00001-of-00002.safetensors",
    "text_encoder_2/model-00002-of-00002.safetensors",
    "text_encoder_2/model.safetensors.index.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/spiece.model",
    "tokenizer_2/tokenizer.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
    "transformer/diffusion_pytorch_model-00002-of-00003.safetensors",
    "transformer/diffusion_pytorch_model-00003-of-00003.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]
QUANTIZED = [f"flux1-kontext-dev-{kind}.gguf" for kind in ("Q2_K", "Q4_0", "Q4_K_M", "Q4_K_S", "Q8_0")]


# Names and choices


def test_names_of_a_hub_are_told_from_paths():
    assert parse("dev").source == KONTEXT_DEV
    assert parse("dev:q4").source == "QuantStack/FLUX.1-Kontext-dev-GGUF"
    assert parse(f"{KONTEXT_DEV}:fp8").source == "Comfy-Org/flux1-kontext-dev_ComfyUI"
    name = parse("someone/model@v1:Q4_K_M")
    assert (name.repo, name.revision, name.variant) == ("someone/model", "v1", "q4_k_m")
    assert parse("someone/model").folder != parse("someone/model:q4").folder
    for path in ("nano", "/someone/model", "./model", "a/b/c", "a/b.safetensors", "a/..", "~/model", "C:\\m"):
        assert parse(path) is None, path
    assert all(parse(name) for name in OFFERED)


def test_of_the_official_repository_only_one_form_is_downloaded():
    choice = choose(OFFICIAL)
    assert not choice.absent
    extra = set(OFFICIAL) - set(choice.files)
    assert set(choice.files) <= set(OFFICIAL) and "flux1-kontext-dev.safetensors" in choice.files
    assert "model_index.json" in extra and not any(
        path.startswith(("transformer/", "vae/", "README", "teaser", "scheduler", "LICENSE"))
        for path in choice.files
    )
    without = [path for path in OFFICIAL if "/" in path or path == "model_index.json"]
    diffusers = choose(without)
    assert not diffusers.absent and "transformer/config.json" in diffusers.files
    assert sum("diffusion_pytorch_model-" in path for path in diffusers.files) == 3


def test_incomplete_shards_are_no_component():
    without = [path for path in OFFICIAL if "/" in path or path == "model_index.json"]
    without.remove("text_encoder_2/model-00002-of-00002.safetensors")
    assert choose(without).absent == ("t5",)


@pytest.mark.parametrize(
    "variant, file",
    [("q4", "Q4_K_M"), ("q4_0", "Q4_0"), ("q4_k_s", "Q4_K_S"), ("q8", "Q8_0"), ("q2", "Q2_K")],
)
def test_variants_stand_for_the_usual_files(variant, file):
    choice = choose(QUANTIZED, variant)
    assert list(choice.files) == [f"flux1-kontext-dev-{file}.gguf"]
    assert choice.absent == ("autoencoder", "t5", "clip", "tokenizer of t5", "tokenizer of clip")


def test_several_models_and_none_are_told_apart():
    with pytest.raises(BadRequest, match="5 models; name one: a/b:flux1-kontext-dev-Q2_K, a/b:.*Q4_0"):
        choose(QUANTIZED, name="a/b")
    with pytest.raises(NotFound, match="no file .* variant q6; there are: a/b:.*Q2_K"):
        choose(QUANTIZED, "q6", "a/b:q6")
    with pytest.raises(NotFound, match="no FLUX model"):
        choose(["README.md", "model.bin", "style-lora.safetensors"], name="a/b")
    split = "split_files/diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors"
    assert choose(["README.md", split], "fp8").files == {Path(split).name: split}


# Whole models


@pytest.mark.parametrize("layout", ["kontext", "diffusers", "bfl"])
def test_a_model_is_downloaded_by_name_and_used_without_the_hub(stand_in, folders, tiny, layout, monkeypatch):
    repo = stand_in.add("someone/tiny", folders[layout])
    repo.files |= {"README.md": b"read me", "pictures/teaser.png": bytes(5000), "optimizer.pt": bytes(5000)}
    told = []
    folder = hub.pull("someone/tiny", told.append)
    downloaded = {path for path in stand_in.downloaded() if path}
    assert not downloaded & {"README.md", "pictures/teaser.png", "optimizer.pt"}
    assert told[-1].done == told[-1].total == hub.read(folder).bytes
    assert [request.done for request in told] == sorted(request.done for request in told)

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    before = len(stand_in.requests)
    model = load_model("someone/tiny")
    assert model.fingerprint == tiny.fingerprint and not model.warnings
    assert hub.pull("someone/tiny") == folder and len(stand_in.requests) == before


def dev_files(folders: dict[str, Path]) -> dict[str, bytes]:
    """The files of a tiny model, named as those of FLUX.1 Kontext [dev] are."""
    bfl, diffusers = folders["bfl"], folders["diffusers"]
    named = {"flux1-kontext-dev.safetensors": bfl / TRANSFORMER, "ae.safetensors": bfl / "ae.safetensors"}
    for path in sorted(diffusers.rglob("*")):
        if path.is_file():
            named[path.relative_to(diffusers).as_posix()] = path
    return {path: file.read_bytes() for path, file in named.items()}


def test_dev_is_the_official_repository(stand_in, folders, tiny, monkeypatch):
    stand_in.add(KONTEXT_DEV, dev_files(folders), gated=True)
    monkeypatch.setenv("HF_TOKEN", "accepted")
    assert load_model("dev").fingerprint == tiny.fingerprint
    assert not any(path.startswith(("vae/", "transformer/")) for path in stand_in.downloaded())
    assert find_model("dev") == hub.models_folder() / "dev"


def test_what_diffusers_downloaded_is_used_and_not_downloaded_again(stand_in, folders, tiny):
    from huggingface_hub import snapshot_download

    stand_in.add(KONTEXT_DEV, dev_files(folders))
    snapshot_download(
        KONTEXT_DEV,
        endpoint=stand_in.url,
        cache_dir=cache.cache_folder(),
        ignore_patterns=["flux1*", "ae.*"],
        etag_timeout=5,
    )
    before = len(stand_in.requests)
    assert load_model("dev").fingerprint == tiny.fingerprint
    assert len(stand_in.requests) == before


@pytest.fixture
def quantized(folders, tmp_path, stand_in):
    """The repositories of `dev:q4`: the transformer in one, the other parts in shared ones."""
    pytest.importorskip("gguf")
    folder = tmp_path / "quantized"
    folder.mkdir()
    quantize(folders["kontext"], folder / "flux1-kontext-dev-Q4_K_M.gguf", "Q4_0")
    quantize(folders["kontext"], folder / "flux1-kontext-dev-Q8_0.gguf", "Q8_0")
    stand_in.add("QuantStack/FLUX.1-Kontext-dev-GGUF", folder)
    t5, clip = (folders["bfl"] / f"{name}.safetensors" for name in ("t5xxl", "clip_l"))
    encoders = {
        "t5xxl_fp16.safetensors": bytes(9000),
        hub.SMALL_T5.path: t5.read_bytes(),
        "clip_l.safetensors": clip.read_bytes(),
    }
    stand_in.add(hub.ENCODERS, encoders)
    for part, file in (
        ("autoencoder", "ae.safetensors"),
        ("tokenizer of t5", "tokenizer_2/tokenizer.json"),
        ("tokenizer of clip", "tokenizer/tokenizer.json"),
    ):
        source = hub.ELSEWHERE[part]
        stand_in.add(source.repo, {source.path: (folders["bfl"] / file).read_bytes()})
    return stand_in


def test_what_a_quantized_repository_lacks_comes_from_elsewhere(quantized):
    folder = hub.pull("dev:q4")
    found = open_checkpoint(folder)
    assert not found.absent and found.parts["transformer"].source.name == "flux1-kontext-dev-Q4_K_M.gguf"
    assert "flux1-kontext-dev-Q8_0.gguf" not in quantized.downloaded()
    assert "t5xxl_fp16.safetensors" not in quantized.downloaded()
    downloaded = quantized.downloaded()
    hub.pull("dev:q8")
    assert [path for path in quantized.downloaded()[len(downloaded) :] if path] == [
        "flux1-kontext-dev-Q8_0.gguf"
    ]


def test_tokenizers_alone_are_downloaded(quantized, folders, tiny, tmp_path):
    shutil.copytree(folders["bfl"], tmp_path / "mine")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(tmp_path / "mine" / name)
    model = load_model(tmp_path / "mine" / TRANSFORMER)
    assert set(quantized.downloaded()) - {""} == {"tokenizer.json"} and not model.warnings
    expected = tiny.token_ids(["Make the hair blue"])
    assert all((a == b).all() for a, b in zip(model.token_ids(["Make the hair blue"])[:2], expected[:2]))


def test_tokenizers_that_cannot_be_downloaded_are_named(stand_in, folders, tmp_path, monkeypatch):
    shutil.copytree(folders["bfl"], tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine" / "tokenizer")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadCheckpoint, match="missing the tokenizer of clip") as caught:
        load_model(tmp_path / "mine")
    assert "HF_HUB_OFFLINE" in str(caught.value)


# Access


def test_a_gated_repository_names_the_page_and_the_command(stand_in, folders, monkeypatch):
    stand_in.add(KONTEXT_DEV, dev_files(folders), gated=True)
    page = f"{stand_in.url}/{KONTEXT_DEV}"
    with pytest.raises(Unavailable, match="is gated: accept its license") as caught:
        hub.pull("dev")
    assert page in str(caught.value) and "hf auth login" in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "known")
    with pytest.raises(Unavailable, match="your token has no access yet") as caught:
        hub.pull("dev")
    assert page in str(caught.value)
    assert not [path for path in stand_in.downloaded() if path] and nothing_left()


def test_a_token_goes_to_the_hub_and_not_to_its_storage(stand_in, folders, monkeypatch):
    stand_in.add("someone/tiny", folders["kontext"], gated=True)
    monkeypatch.setenv("HF_TOKEN", "accepted")
    hub.pull("someone/tiny")
    tokens = {request.path: request.token for request in stand_in.requests}
    assert tokens[""] == "accepted" and tokens["config.json"] == "accepted"
    assert tokens[TRANSFORMER] is None


def test_what_is_unknown_is_said_in_words(stand_in, folders, monkeypatch):
    stand_in.add("someone/tiny", folders["kontext"])
    with pytest.raises(NotFound, match="no repository someone/else at http://127.*hf auth login"):
        hub.pull("someone/else")
    with pytest.raises(NotFound, match="no such revision"):
        hub.pull("someone/tiny@v7")
    monkeypatch.setenv("HF_TOKEN", "invented")
    with pytest.raises(Unavailable, match="rejects your token"):
        hub.pull("someone/tiny")
    with pytest.raises(
        NotFound, match="someone/tiny is not on this machine; download it with: kontext models pull"
    ):
        find_model("someone/tiny")
    assert nothing_left()


def test_without_a_network_the_error_says_so(stand_in, folders, monkeypatch):
    stand_in.add("someone/tiny", folders["kontext"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE is set"):
        hub.pull("someone/tiny")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="http://127.0.0.1:9 cannot be reached .*HF_ENDPOINT"):
        hub.pull("someone/tiny")
    monkeypatch.setenv("HF_ENDPOINT", f"{stand_in.url}/page")
    with pytest.raises(Unavailable, match="is not a model hub"):
        hub.pull("someone/tiny")
    assert nothing_left()


# Afterwards


def test_removing_keeps_what_other_models_need(quantized):
    hub.pull("dev:q4")
    hub.pull("dev:q8")
    what = hub.removal("dev:q4")
    assert set(what.needed_elsewhere) >= {"ae.safetensors", "clip_l.safetensors"}
    assert what.bytes == sum(file.stat().st_size for file in what.files) == hub.remove(what)
    assert hub.local("dev:q4") is None and hub.local("dev:q8") is not None
    assert not open_checkpoint(hub.local("dev:q8")).absent
    hub.remove(hub.removal("dev:q8"))
    left = [path for path in cache.cache_folder().rglob("*") if path.is_file() and ".locks" not in path.parts]
    assert [path.name for path in left if path.name != "CACHEDIR.TAG"] == []
    with pytest.raises(NotFound, match="not downloaded from a hub"):
        hub.removal("dev:q8")


def test_a_model_whose_files_are_gone_from_the_cache_is_downloaded_again(stand_in, folders, tiny):
    stand_in.add("someone/tiny", folders["kontext"])
    hub.pull("someone/tiny")
    shutil.rmtree(cache.repo_folder("someone/tiny"))
    with pytest.raises(NotFound, match="kontext models pull"):
        find_model("someone/tiny")
    assert load_model("someone/tiny").fingerprint == tiny.fingerprint


def test_a_folder_of_the_user_is_never_replaced(stand_in, folders):
    stand_in.add(KONTEXT_DEV, dev_files(folders))
    own = hub.models_folder() / "dev"
    own.mkdir(parents=True)
    (own / "mine.txt").write_text("mine")
    assert find_model("dev") == own
    with pytest.raises(BadRequest, match="exists and was not downloaded from a hub"):
        hub.pull("dev")
    assert (own / "mine.txt").read_text() == "mine"


def test_sources_are_plain_data():
    assert {field.name for field in dataclasses.fields(hub.FileSource)} == {
        "place",
        "repo",
        "path",
        "revision",
    }
