"""Sessions: a tree of lossless turns in a crash-safe store.

store = Store("my-sessions")                       # or Store("postgresql://...", blobs="s3://...")
session = store.create("kid.png", editor=editor)
session.edit("Put on sunglasses"); session.undo(); session.edit("Make the hair blue")     # two branches now
store.open(session.id, editor=editor).picture      # tomorrow
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kontext.session.blobs import Blobs
    from kontext.session.home import default_folder
    from kontext.session.session import Session
    from kontext.session.store import SessionInfo, Store
    from kontext.session.tree import Tree, Turn

_MODULES = {
    "Blobs": "blobs",
    "Session": "session",
    "SessionInfo": "store",
    "Store": "store",
    "Tree": "tree",
    "Turn": "tree",
    "default_folder": "home",
}
__all__ = ["Blobs", "Session", "SessionInfo", "Store", "Tree", "Turn", "default_folder"]


def __getattr__(name: str) -> object:
    # Lazy, so that writing a picture's history does not import the database library.
    if name in _MODULES:
        return getattr(import_module(f"kontext.session.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'kontext.session' has no attribute {name!r}")
