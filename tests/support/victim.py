"""The `kontext` command with the editor of `tint.py` in the place of a real one.

The crash tests start and kill it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import kontext.engine  # noqa: E402
from support.tint import TintEditor  # noqa: E402

kontext.engine.Editor = TintEditor

if __name__ == "__main__":
    from kontext.cli import main

    main()
