"""Tokenizers: CLIP's published files against `transformers`, bytes, cutting and padding."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTokenizer

from kontext.checkpoint.tokenizer import byte_tokenizer, clip_tokenizer, read_tokenizer, with_fixed_length
from kontext.errors import BadCheckpoint

TEXTS = [
    "Make the girl's hair blue!!",
    "  It's   12 o'clock,\nwe're LATE ",
    "Ünïcode café & 蓝色 頭髮 🎨",
    "",
]


@pytest.fixture(scope="module")
def clip_files(tmp_path_factory):
    """A small vocabulary in the form of CLIP's: bytes, also at the end of a word, a few merges."""
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("t", "h"),
        ("th", "e</w>"),
        ("h", "a"),
        ("i", "r</w>"),
        ("ha", "ir</w>"),
        ("b", "l"),
        ("1", "2</w>"),
    ]
    tokens = letters + [letter + "</w>" for letter in letters] + [a + b for a, b in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n"
    )
    return folder


def test_clip_files_give_the_ids_of_transformers(clip_files):
    ours = with_fixed_length(read_tokenizer(clip_files), 40)
    theirs = CLIPTokenizer.from_pretrained(clip_files)
    expected = theirs(TEXTS, padding="max_length", max_length=40, truncation=True).input_ids
    assert [encoding.ids for encoding in ours.encode_batch(TEXTS)] == expected
    assert len({tuple(ids) for ids in expected}) == len(TEXTS)


def test_a_long_prompt_is_cut_before_the_end_token_and_says_so(clip_files):
    tokenizer = with_fixed_length(clip_tokenizer(clip_files / "vocab.json", clip_files / "merges.txt"), 10)
    short, long = tokenizer.encode_batch(["a b", "a b c d e f g h i j k"])
    assert len(short.ids) == len(long.ids) == 10
    end = tokenizer.token_to_id("<|endoftext|>")
    assert long.ids[-1] == end and long.ids.count(end) == 1
    assert long.overflowing and not short.overflowing


def test_bytes_tokenize_every_language_without_loss():
    tokenizer = byte_tokenizer()
    assert tokenizer.get_vocab_size() == 258
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert len(ids) == len(text.encode()) + 1 and ids[-1] == 1
        assert tokenizer.decode(ids) == text


def test_padding_of_the_file_is_kept():
    tokenizer = byte_tokenizer()
    tokenizer.enable_padding(pad_id=5, pad_token="!")
    assert with_fixed_length(tokenizer, 4).encode("").ids == [1, 5, 5, 5]
    assert with_fixed_length(byte_tokenizer(), 4).encode("").ids == [1, 0, 0, 0]


def test_a_tokenizer_without_padding_is_refused():
    with pytest.raises(BadCheckpoint, match="padding"):
        with_fixed_length(Tokenizer(models.BPE({"a": 0}, [])), 4)


@pytest.mark.parametrize(
    ("name", "text"), [("tokenizer.json", "{}"), ("tokenizer.json", "\x00"), ("vocab.json", "[1]")]
)
def test_damaged_tokenizer_files_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(BadCheckpoint, match=name if name == "vocab.json" else "not a tokenizer"):
        read_tokenizer(tmp_path)


def test_a_folder_without_tokenizer_is_none(tmp_path):
    assert read_tokenizer(tmp_path) is None
