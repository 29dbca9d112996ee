"""Reading and writing pictures; independent of models and edits."""

from kontext.pictures.reading import (
    MAX_NAME_BYTES,
    MAX_PIXELS,
    MAX_SIDE,
    MIN_SIDE,
    READABLE,
    PhotoWarning,
    Picture,
    PictureLike,
    check_limits,
    load,
    looks_like_picture,
    read_file,
)
from kontext.pictures.writing import (
    WRITABLE,
    check_regular,
    check_writable,
    cutout,
    encode,
    format_for,
    save,
    write,
)

__all__ = [
    "MAX_NAME_BYTES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "MIN_SIDE",
    "PhotoWarning",
    "Picture",
    "PictureLike",
    "READABLE",
    "WRITABLE",
    "check_limits",
    "check_regular",
    "check_writable",
    "cutout",
    "encode",
    "format_for",
    "load",
    "looks_like_picture",
    "read_file",
    "save",
    "write",
]
