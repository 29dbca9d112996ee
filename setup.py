"""What pyproject.toml cannot say yet: the kernels in C. Without a compiler the installation goes on, and
PyTorch does the work.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "kontext.tiles._kernels",
            ["src/kontext/tiles/kernels.c"],
            extra_compile_args=["-O3"],
            optional=True,
        )
    ]
)
