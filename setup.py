"""What pyproject.toml cannot say yet: the kernels in C. Without a compiler the installation goes on, and
PyTorch does the work.
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
