"""The tokenizer: words in learned pieces, quoted text letter by letter."""

import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

from kontext.errors import BadCheckpoint
from kontext.train.tokenizer import MAX_QUOTED, split_quoted_text, train_tokenizer, with_split_quotes

SENTENCES = ["make the girl's hat red, it's nice", "write 'tea' on the sign", "把木牌上的“茶”改成茶"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(SENTENCES * 50, 400)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    normalized = tokenizer.normalizer.normalize_str(text)
    split = tokenizer.pre_tokenizer.pre_tokenize_str(normalized)
    return [decoders.ByteLevel().decode([piece]) for piece, _ in split]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("change 'CAFE' to 'TEA'", " change| '|c|a|f|e|'| to| '|t|e|a|'"),
        ("'TEA!' to 'A'", " '|t|e|a|!|'| to| '|a|'"),
        ('on the kid\'s sign: "HI YOU".', ' on| the| kid|\'s| sign|:| "|h|i| |y|o|u|".'),
        ("把“OPEN”改成“MILK”", " 把|“|o|p|e|n|”|改成|“|m|i|l|k|”"),
        ("把'A'改成「B」和『C』", " 把|'|a|'|改成|「|b|」|和|『|c|』"),
        ("say ‘Kiwi 7’", " say| ‘|k|i|w|i| |7|’"),
        ("把'茶'改成'酒'", " 把|'|茶|'|改成|'|酒|'"),
        ("'TEA!' to '酒'", " '|t|e|a|!|'| to| '|酒|'"),
        ('"OPEN?" to "(NO)"', ' "|o|p|e|n|?|"| to| "|(|n|o|)|"'),
        ("say 'DON'T'", " say| '|d|o|n|'|t|'"),
        ("say “it’s on”", " say| “|i|t|’|s| |o|n|”"),
        ("write '" + "a" * MAX_QUOTED + "'", " write| '|" + "a|" * MAX_QUOTED + "'"),
        ("write '" + "a" * 49 + "'", " write| '|" + "a" * 49 + "|'"),
        ("say “hello", " say| “|hello"),
    ],
)
def test_quoted_text_is_split_into_letters(tokenizer, text, expected):
    assert pieces(tokenizer, text) == expected.split("|")
    ids = tokenizer.encode(text).ids
    assert ids[-1] == 1
    assert tokenizer.decode(ids).replace(" ", "") == text.lower().replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "make the girl's hat red, it's the kids' hat",
        "don't touch the girl's hat",
        "the café's and dogs' hats",
        " 把帽子改成红色",
        "",
    ],
)
def test_other_text_keeps_its_tokens(tokenizer, text):
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert tokenizer.encode(text).ids == plain.encode(text).ids
    assert tokenizer.encode(f" \n{text}").ids == tokenizer.encode(text).ids
    split_quoted_text(plain)
    assert plain.to_str() == tokenizer.to_str()


def test_an_earlier_tokenizer_is_changed_and_anything_else_refused(tokenizer):
    assert with_split_quotes(tokenizer.to_str()).to_str() == tokenizer.to_str()
    with pytest.raises(BadCheckpoint, match="not a tokenizer"):
        with_split_quotes("{}")
