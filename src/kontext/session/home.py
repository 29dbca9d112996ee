"""The default data folder of this account."""

from kontext.home import default_folder

__all__ = ["default_folder"]
