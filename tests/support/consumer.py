"""A program of a user, for `mypy --strict`: every public type is found, and none of them is Any."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import assert_type

import torch
from PIL import Image

import kontext
from kontext import BadRequest, Editor, EditRequest, KontextError, Result, Session, StepInfo, Store
from kontext.session import Turn


def on_step(step: StepInfo) -> None:
    assert_type(step.index, int)
    assert_type(step.preview(0), Image.Image)


def edit(path: Path, cancel: threading.Event) -> Path:
    with Editor.load("nano", device="cpu", dtype=torch.float32, lora=["a.safetensors:0.5"]) as editor:
        assert_type(editor, Editor)
        result = editor.edit(
            path,
            "Make the hair blue",
            references=[path, b"..."],
            seed=1,
            steps=4,
            guidance=2.5,
            size=(64, 64),
            box=(1, 2, 3, 4),
            mask=Image.new("L", (64, 64)),
            markup="overlay.png",
            lock=True,
            regions=False,
            on_step=on_step,
            cancel=cancel,
        )
        assert_type(result, Result)
        assert_type(result.picture, Image.Image)
        assert_type(result.region, Image.Image | None)
        assert_type(result.seconds, Mapping[str, float])
        assert_type(editor.generate("A tree", size="1:1"), Result)
        assert_type(editor.variants(path, "Make it night", 4, seed=1, box=(0, 0, 8, 8)), list[Result])
        request = EditRequest(prompt="Make it night", picture=path)
        assert_type(editor.edit_batch([request, request]), list[Result])
        editor.prefill(path)
        assert_type(editor.prefill_in_background(path), Future[None])
        assert_type(editor.prefill(path, background=True), Future[None])
        session = editor.open(path)
        assert_type(session, Session)
        assert_type(session.edit("Put on sunglasses", seed=2), Turn)
        assert_type(session.variants(2), list[Turn])
        assert_type(session.undo(), Turn)
        assert_type(Store("sessions").create(path, editor=editor), Session)
        return result.save("blue.png", replace=False)


def guarded(editor: Editor) -> str:
    try:
        editor.edit("kid.png", "")
    except BadRequest as error:
        return str(error)
    except KontextError:
        raise
    return kontext.__version__


def wrong(editor: Editor) -> None:
    """Each line is an error of types, and `--strict` reports an `ignore` that is not needed."""
    editor.edit("kid.png", "Make it night", stepz=4)  # type: ignore[call-arg]
    editor.variants("kid.png", "Make it night", 4, stepz=4)  # type: ignore[call-arg]
    editor.variants("kid.png", "Make it night", "4")  # type: ignore[arg-type]
    editor.edit("kid.png", 7)  # type: ignore[arg-type]
    Editor("nano")  # type: ignore[arg-type]
    print(kontext.Nothing)  # type: ignore[attr-defined]
