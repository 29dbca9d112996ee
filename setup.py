"""The part of the build that pyproject.toml cannot express yet: the kernels in C.

They are optional: without a compiler PyTorch is used.
"""

from pathlib import Path

from setuptools import Extension, setup

KERNELS = Path("src/kontext/kernels")

setup(
    ext_modules=[
        Extension(
            "kontext.kernels._kernels",
            sorted(path.as_posix() for path in KERNELS.glob("*.c")),
            depends=sorted(path.as_posix() for path in KERNELS.glob("*.h")),
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
            optional=True,
        )
    ]
)
