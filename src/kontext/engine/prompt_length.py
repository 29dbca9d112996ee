"""Length of a prompt in tokens. Needs only the tokenizer, so a service can reject long prompts early."""

from __future__ import annotations

from tokenizers import Encoding, Tokenizer

from kontext.errors import BadRequest


def check_length(tokenizer: Tokenizer, prompt: str, limit: int, model: str, name: str = "prompt") -> None:
    """Raise BadRequest if a prompt has more than `limit` tokens, including the end token.

    `tokenizer` truncates at `limit` (see `checkpoint.tokenizer.with_fixed_length`); prompts are never
    truncated silently.
    """
    count = count_tokens(tokenizer, prompt)
    if count > limit:
        error = BadRequest(
            f"the {name} has {count} tokens and {model} reads at most {limit}; shorten it, "
            "or make the edit in several turns"
        )
        error.param = name.replace(" ", "_")
        raise error


def count_tokens(tokenizer: Tokenizer, prompt: str) -> int:
    """Tokens of a prompt and its end token, including those that `tokenizer` truncates."""
    encoding = tokenizer.encode(prompt)
    own = sum(map(_own_tokens, [encoding, *encoding.overflowing]))
    return own + tokenizer.num_special_tokens_to_add(False)


def _own_tokens(part: Encoding) -> int:
    return sum(1 - special for special in part.special_tokens_mask)
