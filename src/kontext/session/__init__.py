"""Many edits: a tree of turns, each lossless, kept in a store that survives crashes.

store = Store("my-sessions")                       # or Store("postgresql://...", blobs="s3://...")
session = store.create("kid.png", editor=editor)
session.edit("Put on sunglasses"); session.undo(); session.edit("Make the hair blue")     # two branches now
store.open(session.id, editor=editor).picture      # tomorrow
"""

from kontext.session.blobs import Blobs
from kontext.session.session import Session
from kontext.session.store import SessionInfo, Store, default_folder
from kontext.session.tree import Tree, Turn

__all__ = ["Blobs", "Session", "SessionInfo", "Store", "Tree", "Turn", "default_folder"]
