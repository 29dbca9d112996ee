"""The small tokenizer of our own models: byte-level BPE over English and Chinese sentences of the world.

Byte level, so that no text is unknown; lower case, since the world's sentences mean the same in any case.
Text in quotation marks, which is to be written in the picture, is tokenized letter by letter. Ids 0 and 1 are
padding and end of text.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from kontext.errors import BadCheckpoint

PAD, END = "<pad>", "</s>"
MAX_QUOTED = 48
"""Longest text in quotation marks that is tokenized letter by letter; longer text is tokenized as any."""


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
    """Set how texts are normalized and split.

    With the vocabulary of an earlier tokenizer, which took white space at the start and quoted text as any
    other, only texts with these have other tokens.
    """
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


def with_split_quotes(text: str) -> Tokenizer:
    """A tokenizer from its JSON text, with quoted text split. Raises BadCheckpoint."""
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises no other
        raise BadCheckpoint(f"not a tokenizer: {error}") from None
    split_quoted_text(tokenizer)
    return tokenizer


def _quoted_letter() -> str:
    """Expression for one letter between quotation marks: the first one, or one right after the last match.

    A straight mark opens a quotation after white space, an opening or separating mark, or Chinese; a single
    one closes it if no letter or digit follows. Between Latin letters an apostrophe counts as a letter.
    """
    letter = "(?:[^'\"“”‘’「」『』]|(?<=[a-z])['’](?=[a-z]))"
    rest = f"{letter}{{1,{MAX_QUOTED}}}"
    before = r"[\s(\[{:;,，。：；（\p{Han}]"
    first = [f"(?<={opening})(?={rest}{closing})" for opening, closing in ("“”", "‘’", "「」", "『』")]
    first += [f'(?<={before}")(?={rest}")', rf"(?<={before}')(?={rest}'(?![\p{{L}}\p{{N}}]))"]
    return rf"(?:{'|'.join(first)}|(?!\A)\G){letter}"
