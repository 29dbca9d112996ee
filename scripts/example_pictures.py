"""Draw the example pictures (`src/kontext/examples`) from the illustrated world, with suggested prompts.

The pictures are stored in the repository: a change of the world takes effect when this script runs again.
"""

import json
from pathlib import Path

from PIL import Image

from kontext.world import sample

FOLDER = Path(__file__).parents[1] / "src/kontext/examples"

EXAMPLES = [
    (42, "beach", "A girl on the beach", "Change the background to a meadow", "把背景换成草地"),
    (28, "library", "A reader in the library", "Make the hair blue", "把头发染成蓝色"),
    (4, "cake", "A kid with a sign", "Replace the word 'CAKE' with 'PARTY'", "把“CAKE”改成“PARTY”"),
    (14, "island", "A monster under the sea", "Make the monster orange", "把小怪物的颜色改成橙色"),
    (47, "stage", "A singer on the stage", "Put on sunglasses", "戴上墨镜"),
    (72, "whale", "Blue hair and a whale", "Remove the whale", "删除鲸鱼"),
]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    table = []
    for seed, name, title, english, chinese in EXAMPLES:
        Image.fromarray(sample(seed).source).save(FOLDER / f"{name}.png", optimize=True)
        table.append({"name": name, "title": title, "file": f"{name}.png", "prompts": [english, chinese]})
    text = json.dumps(table, indent=2, ensure_ascii=False)
    (FOLDER / "examples.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
