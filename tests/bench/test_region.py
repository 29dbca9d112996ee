"""Suite region: figures of regions of which the right answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kontext.bench import region
from kontext.bench.run import Run


def masks(*boxes, size=128):
    mask = np.zeros((size, size), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    ("exact", "found", "figures"),
    [
        (masks(), masks(), {"nothing": 1.0}),
        (masks(), masks((0, 0, 9, 9)), {"nothing": 0.0}),
        (~masks(), ~masks(), {"whole": 1.0}),
        (~masks(), masks((0, 0, 64, 64)), {"whole": 0.0}),
        (masks((5, 5, 9, 9)), masks((0, 0, 16, 16)), {"iou": 1.0, "found": 1.0}),  # one token of 16 pixels
        (masks((0, 0, 32, 16)), masks((16, 0, 48, 16)), {"iou": 1 / 3, "found": 0.5}),
    ],
)
def test_scores_of_known_regions(exact, found, figures):
    assert region.score(exact, found, 16) == pytest.approx(figures)


def test_a_model_that_knows_scores_full_marks_and_one_that_guesses_does_not(tmp_path):
    known = {}
    for category in region.CATEGORIES:
        for index in range(3):
            source, prompt, mask = region.draw("test", category, index, 128)
            known[source.tobytes(), prompt] = mask
    preset = SimpleNamespace(token_pixels=16)

    def knows(picture, prompt):
        mask = known[np.asarray(picture).tobytes(), prompt]
        return Image.fromarray(mask.astype(np.uint8) * 255)

    def guesses(picture, prompt):
        return Image.fromarray(masks((0, 0, 64, 128)).astype(np.uint8) * 255)

    means = {}
    for locate in (knows, guesses):
        editor = SimpleNamespace(model=SimpleNamespace(preset=preset), locate=locate)
        with Run(tmp_path / locate.__name__, {}) as run:
            region.measure(editor, run, n=3, size=128)
            assert len(run.records) == 9 and len({record.sum for record in run.records}) == 9
            means[locate] = run.result("region", "m", region.FIGURES)["rows"]["model"]["test"]
    assert {name: cell["mean"] for name, cell in means[knows].items()} == dict.fromkeys(region.FIGURES, 1.0)
    assert means[guesses]["whole"]["mean"] == means[guesses]["nothing"]["mean"] == 0.0
    assert means[guesses]["iou"]["mean"] < 0.6
