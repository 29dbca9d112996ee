"""Fixtures of the command tests."""

from tests.support.tiny_model import folders, tiny

__all__ = ["folders", "tiny"]
