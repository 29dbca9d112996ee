"""Freed memory stays with the process, so that no edit pays for it again."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from kontext import memory
from kontext.engine import Editor
if sys.argv[1] == "give back":  # glibc's values at the start, which it would raise as it sees fit
    memory.KEPT_BYTES = memory.LARGE_BYTES = 128 * 1024
nano = Editor.load()
picture = __import__("PIL.Image").Image.radial_gradient("L").convert("RGB")
def edits(count):
    for seed in range(count):
        nano.edit(picture, "make it night", seed=seed)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(-edits(3) + edits(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc's malloc alone")
def test_freed_memory_is_taken_again_without_new_pages():
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FAULTS, way], check=True, stdout=subprocess.PIPE).stdout)
        for way in ("keep", "give back")
    )
    assert kept < given_back / 10, "page faults of five edits"
