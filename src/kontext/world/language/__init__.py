"""Sentences in English and Chinese: instructions, captions and their words."""
