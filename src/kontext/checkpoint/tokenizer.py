"""Tokenizers of the two text encoders, through the `tokenizers` library.

Read from `tokenizer.json`, from CLIP's `vocab.json` + `merges.txt`, or made in memory from bytes (for tests).
A tokenizer `with_fixed_length` truncates (`encoding.overflowing` holds the rest) and pads to one length.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from kontext.checkpoint.tensors import read_json
from kontext.errors import BadCheckpoint

PAD, END = "<pad>", "</s>"
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's pattern of words (openai/CLIP, simple_tokenizer.py)."""


def read_tokenizer(path: Path) -> Tokenizer | None:
    """Read a tokenizer from a file `*.json` or a folder; None if there is none. Raises BadCheckpoint."""
    file = path if path.is_file() else path / "tokenizer.json"
    try:
        if file.is_file():
            return Tokenizer.from_str(file.read_text("utf-8"))
        if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
            return clip_tokenizer(path / "vocab.json", path / "merges.txt")
    except BadCheckpoint:
        raise
    except Exception as error:  # the library raises bare Exception
        raise BadCheckpoint(f"{file}: not a tokenizer ({error})") from None
    return None


def clip_tokenizer(vocab: Path, merges: Path) -> Tokenizer:
    """CLIP's byte-pair encoding from its two published files."""
    lines = merges.read_text("utf-8").splitlines()
    pairs = [(a, b) for a, _, b in (line.partition(" ") for line in lines) if b and a != "#version:"]
    tokenizer = Tokenizer(
        models.BPE(read_json(vocab), pairs, end_of_word_suffix="</w>", unk_token=CLIP_END, fuse_unk=False)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(CLIP_START, special=True), AddedToken(CLIP_END, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLIP_START} $A {CLIP_END}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (CLIP_START, CLIP_END)],
    )
    return tokenizer


def t5_tokenizer(values: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer in the header of a GGUF file of T5; None if there is none.

    Pieces of SentencePiece with their scores. Raises BadCheckpoint if it is damaged.
    """
    pieces, scores = (values.get(f"tokenizer.ggml.{name}") for name in ("tokens", "scores"))
    if not isinstance(pieces, list) or not isinstance(scores, list) or not pieces:
        return None
    unknown = values.get("tokenizer.ggml.unknown_token_id", 2)
    end = values.get("tokenizer.ggml.eos_token_id", 1)
    try:
        vocabulary = [(str(piece), float(score)) for piece, score in zip(pieces, scores, strict=True)]
        tokenizer = Tokenizer(models.Unigram(vocabulary, unknown, False))
        rules = values.get("tokenizer.ggml.precompiled_charsmap")
        if isinstance(rules, list) and rules:
            tokenizer.normalizer = normalizers.Precompiled(bytes(byte % 256 for byte in rules))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {pieces[end]}", special_tokens=[(pieces[end], end)]
        )
        tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in (PAD, pieces[end])])
    except Exception as error:  # the library raises plain Exception for damaged values
        raise BadCheckpoint(f"the tokenizer in the GGUF file of T5 is damaged ({error})") from None
    return tokenizer


def byte_tokenizer() -> Tokenizer:
    """A tokenizer of UTF-8 bytes: <pad> 0, </s> 1, then the 256 bytes. Needs no file."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {PAD: 0, END: 1, **{letter: 2 + i for i, letter in enumerate(letters)}}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    tokenizer.add_special_tokens([PAD, END])
    return tokenizer


def with_fixed_length(tokenizer: Tokenizer, length: int) -> Tokenizer:
    """A copy that truncates and pads to `length`, with the file's padding token, `<pad>` or CLIP's end."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    own = copy.padding or {}
    pad = own.get("pad_token") or next((t for t in (PAD, CLIP_END) if copy.token_to_id(t) is not None), None)
    pad_id = own.get("pad_id", copy.token_to_id(pad) if pad else None)
    if pad_id is None:
        raise BadCheckpoint("a tokenizer has no padding token: set padding in its tokenizer.json")
    copy.enable_truncation(length)
    copy.enable_padding(length=length, pad_id=pad_id, pad_token=pad)
    return copy
