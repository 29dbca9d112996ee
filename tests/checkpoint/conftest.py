"""Fixtures of the checkpoint tests."""

from tests.support.tiny_model import folders, tiny

__all__ = ["folders", "tiny"]
