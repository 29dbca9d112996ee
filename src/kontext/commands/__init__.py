"""The commands of `kontext`, one file each, imported only when called (see `kontext.cli`)."""
