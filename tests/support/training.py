"""Figures of a training run, and a run that is interrupted."""

import json


def losses(folder) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def interrupted(loader, calls: int):
    """The loader's `take`, which is cut off like a killed process after some calls."""
    take, left = loader.take, [calls]

    def cut_off(count):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return take(count)

    return cut_off
