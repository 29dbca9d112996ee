"""Where the sessions of this account are kept when nobody says otherwise."""

from kontext.home import default_folder

__all__ = ["default_folder"]
