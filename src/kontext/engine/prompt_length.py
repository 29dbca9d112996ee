"""How many tokens a prompt has, and whether a model reads that many. Needs a tokenizer and no network, so
that a service can answer before any work begins.
"""

from __future__ import annotations

from tokenizers import Encoding, Tokenizer

from kontext.errors import BadRequest


def check_length(tokenizer: Tokenizer, prompt: str, limit: int, model: str, name: str = "prompt") -> None:
    """Raise BadRequest when a prompt has more than `limit` tokens, its end mark included.

    `tokenizer` cuts at `limit` (see `checkpoint.tokenizer.with_fixed_length`); nothing is cut off silently.
    """
    encoding = tokenizer.encode(prompt)
    if encoding.overflowing:
        count = sum(map(_own_tokens, [encoding, *encoding.overflowing])) + 1
        error = BadRequest(
            f"the {name} has {count} tokens and {model} reads at most {limit}; shorten it, "
            "or make the edit in several turns"
        )
        error.param = name.replace(" ", "_")
        raise error


def _own_tokens(part: Encoding) -> int:
    return sum(1 - special for special in part.special_tokens_mask)
