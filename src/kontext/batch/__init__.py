"""Batch editing: tables of edits become tasks, and several processes run each task exactly once."""
