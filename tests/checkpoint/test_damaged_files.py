"""Damaged files, headers and configurations are one line of ours, never an error of Python."""

import json
import random
import shutil

import pytest

from kontext.checkpoint import load_model, open_checkpoint
from kontext.errors import BadCheckpoint, KontextError


def refused(path, *said, **settings):
    """The message, after a check that it is one line of ours."""
    with pytest.raises(BadCheckpoint) as error:
        load_model(path, **settings)
    line = str(error.value)
    assert "\n" not in line and len(line) < 600, line
    for words in ("Error(", "object has no", "NoneType", "Traceback", "unpack", "got an unexpected"):
        assert words not in line, line
    assert all(word in line for word in said), line
    return line


def raw(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def as_json(**tensors):
    return json.dumps(tensors).encode()


def with_metadata(preset: str) -> bytes:
    return as_json(**{"__metadata__": {"kontext": preset}, "double_blocks.0.x": tensor()})


BROKEN = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "zero header": b"\0" * 8,
    "huge header": raw(b"{}", length=2**63),
    "100 MB header": raw(b"{}", length=99_999_999),
    "negative header": b"\xff" * 16,
    "empty object": raw(b"{}"),
    "list": raw(b"[]"),
    "null": raw(b"null"),
    "not UTF-8": raw(b'{"\xff\xfe": 1}'),
    "deep": raw(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "no offsets": raw(b'{"img_in.weight": {"dtype": "F32", "shape": [1]}}'),
    "offsets beyond": raw(as_json(x=tensor(offsets=(0, 800), shape=(200,))), b"\0" * 8),
    "offsets reversed": raw(as_json(x=tensor(offsets=(8, 0))), b"\0" * 8),
    "shape and offsets differ": raw(as_json(x=tensor(shape=(3,))), b"\0" * 8),
    "negative shape": raw(as_json(x=tensor(shape=(-2,))), b"\0" * 8),
    "overflowing shape": raw(as_json(x=tensor(shape=(2**62, 2**62))), b"\0" * 8),
    "unknown type": raw(as_json(x=tensor("Q3_X")), b"\0" * 8),
    "twice the same name": raw(as_json(x=tensor())[:-1] + b"," + as_json(x=tensor())[1:], b"\0" * 8),
    "overlapping": raw(as_json(x=tensor(), y=tensor()), b"\0" * 8),
    "gap": raw(as_json(x=tensor(offsets=(8, 16))), b"\0" * 16),
    "metadata of numbers": raw(b'{"__metadata__": {"kontext": 3}}'),
    "damaged preset": raw(with_metadata("[["), b"\0" * 8),
    "preset of lists": raw(with_metadata('{"t5": []}'), b"\0" * 8),
    "preset of a list": raw(with_metadata("[1]"), b"\0" * 8),
    "scalars": raw(
        as_json(
            **{"double_blocks.0.a": tensor("F32", (), (0, 4)), "img_in.weight": tensor("F32", (), (4, 8))}
        ),
        b"\0" * 8,
    ),
    "empty tensors": raw(
        as_json(
            **{
                "double_blocks.0.a": tensor("F32", (0,), (0, 0)),
                "img_in.weight": tensor("F32", (0, 0), (0, 0)),
                "single_blocks.0.norm.query_norm.scale": tensor("F32", (0,), (0, 0)),
            }
        )
    ),
    "pickle": b"\x80\x04\x95cos\nsystem\n",
    "zip": b"PK\x03\x04" + b"\0" * 40,
    "web page": b"<!DOCTYPE html><html>Access to this model is restricted</html>",
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    "GGUF": b"GGUF\x03\0\0\0" + b"\0" * 40,
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("suffix", [".safetensors", ".sft", ".gguf"])
def test_broken_files_are_one_line(folders, tmp_path, kind, suffix):
    if suffix == ".gguf":
        pytest.importorskip("gguf")
    (tmp_path / f"x{suffix}").write_bytes(BROKEN[kind])
    refused(tmp_path / f"x{suffix}", f"x{suffix}")
    if suffix != ".gguf":
        with pytest.raises(BadCheckpoint, match="x.s"):
            load_model("tiny-random", lora=[tmp_path / f"x{suffix}"])


def test_a_folder_named_like_a_file_is_told(folders, tmp_path):
    shutil.copytree(folders["bfl"], tmp_path / "m")
    (tmp_path / "m" / "ae.safetensors").unlink()
    (tmp_path / "m" / "ae.safetensors").mkdir()
    (tmp_path / "m" / "other.safetensors").mkdir()
    refused(tmp_path / "m", "missing the autoencoder")
    refused(tmp_path / "m" / "other.safetensors", "no .safetensors file")


def test_random_damage_to_header_shapes_and_types_is_never_a_python_error(folders, tmp_path):
    """Headers with one value changed, over every part: a model, or one line."""
    generator = random.Random(0)
    values = [
        0,
        -1,
        1,
        3,
        2**40,
        None,
        "F32",
        "F16",
        "I8",
        "U8",
        "BOOL",
        "F8_E4M3",
        [],
        [0],
        [0, 0],
        [1, 2, 3],
        {},
        "",
    ]
    for round_ in range(60):
        part = generator.choice(["transformer", "ae", "t5xxl", "clip_l"])
        data = (folders["bfl"] / f"{part}.safetensors").read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        name = generator.choice([key for key in header if key != "__metadata__"])
        change = generator.choice(
            ["shape", "dtype", "data_offsets", "drop", "rename", "reshape", "no preset"]
        )
        if change == "drop":
            del header[name]
        elif change == "rename":
            header[
                generator.choice(["x", "double_blocks.0.", ".weight", "..", name + ".weight", "é" * 300])
            ] = header.pop(name)
        elif change == "reshape":
            header[name]["shape"] = [1, *header[name]["shape"]]
        elif change == "no preset":
            header["__metadata__"] = {}
        else:
            header[name][change] = generator.choice(values)
        path = tmp_path / f"{round_}.safetensors"
        path.write_bytes(raw(json.dumps(header).encode(), data[8 + length :]))
        for attempt in (_open, _weights, _as_lora):
            try:
                attempt(path)
            except KontextError as error:
                assert "\n" not in str(error) and "Error(" not in str(error), error


def _open(path):
    open_checkpoint(path, companions=False)


def _weights(path):
    for part in open_checkpoint(path, companions=False).parts.values():
        assert part.weights


def _as_lora(path):
    load_model("tiny-random", lora=[path])


CONFIGURATIONS = [
    ("kontext/config.json", ("preset", "t5", "width"), [1, 2]),
    ("kontext/config.json", ("preset", "t5", "buckets"), 0),
    ("kontext/config.json", ("preset", "sizes"), 3),
    ("kontext/config.json", ("preset", "transformer", "axes"), [1, 2]),
    ("kontext/config.json", ("preset", "autoencoder", "groups"), 7),
    ("diffusers/transformer/config.json", ("num_layers",), [1]),
    ("diffusers/transformer/config.json", ("num_layers",), 10**9),
    ("diffusers/transformer/config.json", ("axes_dims_rope",), "x"),
    ("diffusers/text_encoder_2/config.json", ("d_model",), {"a": 1}),
    ("diffusers/text_encoder/config.json", ("hidden_size",), "x"),
    ("diffusers/vae/config.json", ("block_out_channels",), [[1]]),
    ("diffusers/vae/config.json", ("scaling_factor",), float("nan")),
]


@pytest.mark.parametrize(("file", "keys", "value"), CONFIGURATIONS)
def test_impossible_values_in_configurations_are_one_line(folders, tmp_path, file, keys, value):
    layout, _, name = file.partition("/")
    shutil.copytree(folders[layout], tmp_path / "m")
    data = json.loads((tmp_path / "m" / name).read_text())
    place = data
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (tmp_path / "m" / name).write_text(json.dumps(data))
    refused(tmp_path / "m")
