"""The small tokenizer of our own models: byte-level BPE over English and Chinese sentences of the world.

Byte level, so that no text is unknown; lower case, since the world's sentences mean the same in any case.
Text in quotation marks, which is to be written in the picture, is tokenized letter by letter. Ids 0 and 1 are
padding and end of text.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PAD, END = "<pad>", "</s>"
MAX_QUOTED = 16
"""Longest text in quotation marks that is tokenized letter by letter."""


def train_tokenizer(sentences: Iterable[str], vocab: int) -> Tokenizer:
    """A tokenizer of at most `vocab` pieces that ends every text with the end token."""
    tokenizer = Tokenizer(models.BPE())
    split_quoted_text(tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return tokenizer


def split_quoted_text(tokenizer: Tokenizer) -> None:
    """Set how texts are normalized and split; of an earlier tokenizer, only texts with quotes change."""
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Strip(right=False),
            normalizers.Prepend(" "),
        ]
    )
    letters = pre_tokenizers.Split(Regex(_quoted_letter()), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [letters, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _quoted_letter() -> str:
    """Expression for one letter between quotation marks.

    An apostrophe has a letter on either side. Alternatives of fixed length, as a look-behind requires it.
    """
    letter = "[^'\"“”‘’「」『』]"
    before = [f"{mark}{letter}{{{n}}}" for mark in ("[“‘「『]", "[^a-z0-9]['\"]") for n in range(MAX_QUOTED)]
    after = f"{letter}{{0,{MAX_QUOTED - 1}}}(?:[”’」』]|['\"](?![a-z0-9]))"
    return f"(?<={'|'.join(before)}){letter}(?={after})"
