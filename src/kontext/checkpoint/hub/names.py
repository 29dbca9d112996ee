"""Names of models on a hub: `owner/repo[@revision][:variant]`, and short names of FLUX.1 Kontext [dev]."""

from __future__ import annotations

import re
from dataclasses import dataclass

KONTEXT_DEV = "black-forest-labs/FLUX.1-Kontext-dev"
SHORT_NAMES = {"dev": KONTEXT_DEV}

QUANTIZED = {
    KONTEXT_DEV: (
        ("fp8", "Comfy-Org/flux1-kontext-dev_ComfyUI"),
        ("q", "QuantStack/FLUX.1-Kontext-dev-GGUF"),
    )
}
"""Repositories with quantized models, by the start of the variant."""

OFFERED = {
    "dev": "FLUX.1 Kontext [dev], 34 GB",
    "dev:fp8": "the same in 8-bit floats, 18 GB",
    "dev:q8": "the same as GGUF Q8_0, 18 GB",
    "dev:q4": "the same as GGUF Q4_K_M, 13 GB",
}
"""Models to list even if they are not downloaded, with their size on disk."""

_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(
    rf"(?P<repo>{_PART}/{_PART}|{'|'.join(SHORT_NAMES)})(?:@(?P<revision>[\w./-]+))?(?::(?P<variant>[\w.-]+))?",
    re.ASCII,
)
_FILES = (".safetensors", ".sft", ".gguf", ".json")


@dataclass(frozen=True)
class HubName:
    """A model on a hub."""

    text: str
    """The user's text."""
    repo: str
    """The requested repository."""
    revision: str | None = None
    """A branch, tag or commit; None: the main branch."""
    variant: str = ""
    """Part of the file's name, in lower case, if the repository has several models."""

    @property
    def source(self) -> str:
        """The repository that has this variant."""
        for start, repo in QUANTIZED.get(self.repo, ()):
            if self.variant.startswith(start):
                return repo
        return self.repo

    @property
    def folder(self) -> str:
        """Name of its folder among the models."""
        short = next((name for name, repo in SHORT_NAMES.items() if repo == self.repo), self.repo)
        return "--".join(
            part.replace("/", "--") for part in (short, self.revision or "", self.variant) if part
        )


def parse(text: str) -> HubName | None:
    """The model on a hub with this name; None for names of files and paths."""
    match = _NAME.fullmatch(text)
    if match is None or len(text) > 200 or ".." in text or match["repo"].endswith(_FILES):
        return None
    repo = SHORT_NAMES.get(match["repo"], match["repo"])
    return HubName(text, repo, match["revision"], (match["variant"] or "").lower())
