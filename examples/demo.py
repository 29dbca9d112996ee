"""Edit the example pictures over several turns with the shipped weights: `python examples/demo.py FOLDER`.

Writes each turn as a PNG with its history, and a sheet of all turns, and prints their paths.
"""

import sys
import time
from importlib.resources import files
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from kontext import Editor

STORIES = {
    "library": ["Make the hair blue", "Change the background to a beach", "Make it night"],
    "beach": [
        "Change the dress to yellow",
        "Change the background to a forest",
        "Turn it into an old sepia photograph",
    ],
    "stage": ["Make the hair red", "Make the shirt green", "Change the background to a meadow"],
    "whale": ["Make the shirt pink", "Make it snow", "Change the background to outer space"],
}


def main(folder: Path) -> None:
    started = time.perf_counter()
    editor = Editor.load("nano")
    print(f"model {editor.model.name} loaded in {time.perf_counter() - started:.1f} s")
    folder.mkdir(parents=True, exist_ok=True)
    strips = []
    for number, (name, prompts) in enumerate(STORIES.items()):
        session = editor.open(files("kontext") / "examples" / f"{name}.png")
        pictures, captions = [session.picture], ["the picture"]
        for turn, prompt in enumerate(prompts, 1):
            started = time.perf_counter()
            session.edit(prompt, seed=number)
            seconds = time.perf_counter() - started
            session.save(folder / f"{name}-{turn}.png")
            pictures.append(session.picture)
            captions.append(prompt)
            print(f"{name}: {prompt} ({seconds:.2f} s)")
        strips.append(strip(pictures, captions))
    sheet = Image.new("RGB", (strips[0].width, sum(s.height for s in strips)), "white")
    for row, picture_strip in enumerate(strips):
        sheet.paste(picture_strip, (0, row * picture_strip.height))
    sheet.save(folder / "stories.png")
    print(f"\nAll turns side by side: {(folder / 'stories.png').resolve()}")


def strip(pictures: list[Image.Image], captions: list[str]) -> Image.Image:
    """Pictures side by side, each with its caption below."""
    width, height = pictures[0].size
    sheet = Image.new("RGB", ((width + 8) * len(pictures) - 8, height + 28), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, caption) in enumerate(zip(pictures, captions)):
        sheet.paste(picture.convert("RGB"), (i * (width + 8), 0))
        draw.text((i * (width + 8) + 2, height + 7), caption, "#222", ImageFont.load_default(13))
    return sheet


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
