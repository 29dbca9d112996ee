"""Every kernel test runs on each backend of this processor.

Where there is no AMX, it is emulated: its kernels are compiled with tile instructions in plain C.
"""

import ctypes
import functools
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pytest

import kontext.kernels
import support
from kontext.kernels.library import BACKENDS, Kernels, _openmp, kernels_for

EMULATED = "amx-emulated"
SOURCES = Path(kontext.kernels.__file__).parent


@functools.cache
def emulated() -> Kernels | None:
    """Needs a compiler, and a processor that rounds to bfloat16 (AVX512_BF16)."""
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) or shutil.which("gcc")
    if compiler is None or _openmp() is None:
        return None
    folder = tempfile.TemporaryDirectory()
    library = Path(folder.name) / "emulated.so"
    command = [
        compiler,
        "-O3",
        "-fPIC",
        "-shared",
        "-include",
        str(Path(support.__file__).with_name("tiles.h")),
    ]
    command += [*map(str, sorted(SOURCES.glob("*.c"))), "-o", str(library)]
    if subprocess.run(command, capture_output=True).returncode:
        return None
    loaded = ctypes.CDLL(str(library))
    loaded._folder = folder  # deleted with the library
    try:
        found = Kernels(loaded, _openmp(), "amx")
    except KeyError:  # compiled for another kind of processor
        return None
    return found if found.supported else None


@pytest.fixture(scope="session", params=[*BACKENDS, EMULATED])
def compiled(request) -> Kernels:
    """The kernels of one backend."""
    if request.param == EMULATED:
        found = emulated() if kernels_for("amx") is None else None
    else:
        found = kernels_for(request.param)
    if found is None:
        pytest.skip(f"{request.param} does not run here")
    return found


@pytest.fixture
def chosen(compiled, monkeypatch) -> Kernels:
    """The same, used by `use_transformer_kernels` and `use_decoder_kernels`."""
    monkeypatch.setattr(kontext.kernels, "kernels", lambda: compiled)
    return compiled
