"""Edit over several turns, go back, branch, and keep the history in one file: `python session.py KID.png`.

`kontext examples` writes a kid.png to try it on.
"""

import sys
from pathlib import Path

from kontext import Editor


def main(picture: Path) -> None:
    with Editor.load("nano") as editor:
        session = editor.open(picture)
        blue = session.edit("Make the hair blue", seed=1)
        session.edit("Change the background to a beach", seed=1)
        session.undo()  # back to the blue hair
        night = session.edit("Make it night", seed=1)  # a second branch from there
        session.save(picture.with_name("night.png"))  # with all its turns inside
        print(f"turn {blue.number}: {blue.prompt}, of size {blue.size}")
        print(f"turn {night.number}: {night.prompt}, after turn {blue.number}; night.png holds its history")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
