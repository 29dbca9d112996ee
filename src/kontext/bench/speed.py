"""Suite ``speed``: how long one edit takes, stage by stage, compared with the same weights in diffusers.

One edit includes text, encoding, steps, decoding and an 8-bit picture in memory. ``new`` pictures have no
cached context; that of ``seen`` ones is cached by an earlier edit. With
``against_diffusers`` both engines run the same pieces (encode, steps, decode) on the same weights, noise
and text states, in interleaved pairs on the same threads. Their outputs must agree where ours attends as
theirs does ("full"); the shipped attention ("prefix") is timed as well, and so is a whole edit of the
shipped configuration, from prompt to finished picture, against their 28 steps.
"""

from __future__ import annotations

import dataclasses
import gc
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kontext import world
from kontext.bench import plots, report
from kontext.bench.items import at_size
from kontext.bench.peer import LONG, EncodedInputs, as_full, diffusers_inputs
from kontext.bench.rows import BATCH, ask
from kontext.bench.run import Figure, PairsJson, Progress, Record, Run, RunJson, SpeedJson, silent
from kontext.bench.statistics import Estimate
from kontext.engine.context import device_of, parameter_type
from kontext.engine.requests import EditRequest
from kontext.errors import BadRequest

if TYPE_CHECKING:
    from kontext.checkpoint.model import Model
    from kontext.engine import Editor
    from kontext.model.transformer import Prefix

STAGES = ("encode", "text", "sample", "decode")
WARM_UP = 3
TOLERANCE = 1e-4
"""Largest difference allowed between the engines' pixels (0 to 1) in "full" attention and float32.

In shorter types each engine rounds differently; the difference is reported.
"""
REFRESH = 4  # steps that share one context evaluation, timed when there are more steps
WHOLE = f"a whole edit / {LONG} steps of diffusers"
PROMPT = "make it night"
FIGURES = {
    "total": Figure("mean ms", share=False, better=-1),
    **{stage: Figure(f"{stage} ms", share=False, better=-1) for stage in STAGES},
    "evaluations": Figure("evaluations", share=False, digits=0, better=-1),
    "ratio": Figure("diffusers / ours", share=False, digits=2),
}


class EncodedPicture(TypedDict, total=False):
    """Fields of `Batch` for a context picture: one or the other, by the model's attention."""

    prefixes: list[Prefix]
    context: list[tuple[Tensor, Tensor]]


def measure(
    editor: Editor, run: Run, *, runs: int, size: int, steps: Sequence[int], progress: Progress = silent
) -> dict[str, dict[str, float]]:
    """``runs`` edits of new and of seen pictures at each number of steps, as records in milliseconds.

    Returns latencies: row -> p50, p95 and the throughput of a batch in edits a second.
    """
    rows = [(f"model {kind}@{n}", kind, n) for n in steps for kind in ("new", "seen")]
    out = {}
    for row, kind, n in progress(rows, len(rows), "speed"):
        totals = []
        for i in range(runs + WARM_UP):
            picture = _picture(f"{row} {i if kind == 'new' else 0}", size)
            prompt = f"{PROMPT}, number {n}{i}"  # a new sentence every time
            started = time.perf_counter()
            (result,) = ask(editor, [EditRequest(picture=picture, prompt=prompt, seed=i, steps=n)])
            total = time.perf_counter() - started
            if i >= WARM_UP:
                totals.append(1000 * total)
                figures = {stage: 1000 * result.seconds.get(stage, 0.0) for stage in STAGES}
                figures |= {"total": 1000 * total, "evaluations": float(result.evaluations)}
                run.add(Record(f"{i:03d}", row, "speed", "test", f"{i}", figures))
        out[row] = {"p50": float(np.median(totals)), "p95": float(np.quantile(totals, 0.95))}
        if kind == "new":
            pictures = [_picture(f"{row} batch {i}", size) for i in range(BATCH)]
            warm_up = [_picture(f"{row} first batch {i}", size) for i in range(BATCH)]
            requests = [EditRequest(picture=p, prompt=PROMPT, seed=0, steps=n) for p in pictures]
            if editor.model.compiled:  # for batches anew
                ask(
                    editor, [dataclasses.replace(request, picture=p) for request, p in zip(requests, warm_up)]
                )
            started = time.perf_counter()
            ask(editor, requests)
            out[row]["edits a second, batched"] = len(requests) / (time.perf_counter() - started)
    return out


def _picture(name: str, size: int) -> np.ndarray:
    return at_size(world.scene_picture(f"speed {name}", "test"), size)


def memory_mib(device: str) -> float:
    """The most memory held so far: of the accelerator, else of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 2**20


def cold_starts(
    model: str,
    size: int,
    reference_model: Model | None = None,
    times: int = 5,
    fp8: bool = False,
    compile: bool = False,
) -> SpeedJson:
    """Median seconds of a first edit in a new process, alternating with diffusers on `reference_model`."""
    ours, theirs = [], []
    for _ in range(times):
        ours.append(cold_start(model, size, fp8, compile))
        if reference_model is not None:
            theirs.append(cold_diffusers(reference_model, size))
    found: SpeedJson = {"cold start seconds": round(float(np.median(ours)), 3)}
    if theirs:
        ratio = float(np.median(np.divide(theirs, ours)))
        found["cold start seconds, diffusers"] = round(float(np.median(theirs)), 3)
        found["cold start, diffusers / ours"] = round(ratio, 3)
    return found


def cold_start(model: str, size: int, fp8: bool = False, compile: bool = False) -> float:
    """Seconds of `kontext edit` as a whole process. Raises BadRequest when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "source.png", Path(folder) / "output.png"
        Image.new("RGB", (size, size), (128, 128, 128)).save(source)
        command = ["-m", "kontext", "edit", str(source), PROMPT, "-o", str(output)]
        command += ["--model", model, "--seed", "0", *(["--fp8"] if fp8 else [])]
        command += ["--compile"] if compile else []
        return _whole_process(command)


_DIFFUSERS_EDIT = """
import sys
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from diffusers import FluxKontextPipeline, FluxTransformer2DModel
from PIL import Image
home, source, output = sys.argv[1:4]
size, steps, text, width, pooled = map(int, sys.argv[4:])
pipeline = FluxKontextPipeline(
    transformer=FluxTransformer2DModel.from_pretrained(home, subfolder="transformer"),
    vae=AutoencoderKL.from_pretrained(home, subfolder="vae"),
    scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(home, subfolder="scheduler"),
    text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
)
pipeline(
    image=Image.open(source), height=size, width=size, num_inference_steps=steps, max_area=size * size,
    prompt_embeds=torch.zeros(1, text, width), pooled_prompt_embeds=torch.zeros(1, pooled),
    _auto_resize=False,
).images[0].save(output)
"""


def cold_diffusers(model: Model, size: int) -> float:
    """Seconds of a script that does one edit with diffusers on the same weights, as a whole process.

    Text encoders are omitted, to its advantage. Raises BadRequest when it fails.
    """
    from kontext.checkpoint import save_diffusers

    full = as_full(model)
    config = full.preset.transformer
    with tempfile.TemporaryDirectory() as folder:
        home, source, output = (Path(folder) / name for name in ("model", "source.png", "output.png"))
        save_diffusers(full, home)
        Image.new("RGB", (size, size), (128, 128, 128)).save(source)
        numbers = (
            size,
            full.preset.sampling.steps,
            full.preset.text_length,
            config.text_width,
            config.pooled_width,
        )
        paths = (str(home), str(source), str(output))
        return _whole_process(["-c", _DIFFUSERS_EDIT, *paths, *map(str, numbers)])


def _whole_process(arguments: Sequence[str]) -> float:
    started = time.perf_counter()
    completed = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if completed.returncode:
        raise BadRequest(f"a first edit in a new process failed: {completed.stderr.strip().splitlines()[-1]}")
    return time.perf_counter() - started


def against_diffusers(
    editor: Editor, run: Run, *, pairs: int, size: int, steps: int, progress: Progress = silent
) -> PairsJson:
    """Interleaved pairs, as records of milliseconds and ratios (diffusers over ours).

    Returns the largest difference of the outputs in "full" attention, the threads and the ratios' quartiles.
    Raises BadRequest when diffusers is missing or has no such network, and when outputs in float32 differ by
    more than 1e-4.
    """
    full = as_full(editor.model)
    theirs = diffusers_inputs(full)
    variants: dict[str, Callable[[EncodedInputs], Tensor]] = {"ours, full": lambda p: ours(full, p)}
    if steps > REFRESH:
        variants[f"ours, full, refresh {REFRESH}"] = lambda p: ours(full, p, context_refresh=REFRESH)
    if editor.model.transformer.config.context_attention == "prefix":
        variants["ours, prefix"] = lambda p: ours(editor.model, p)
        cached: dict[int, EncodedPicture] = {}
        variants["ours, prefix cached"] = lambda p: ours(editor.model, p, cached)
    variants[WHOLE] = lambda p: _whole_edit(editor, p)
    worst = far = 0.0
    ratios: dict[str, list[float]] = {variant: [] for variant in variants}
    text, pooled = editor.prompts.states(PROMPT)
    codec = editor.model.preset.autoencoder
    for i in progress(range(-1, pairs), pairs + 1, "against diffusers"):
        inputs = EncodedInputs(
            torch.from_numpy(_picture(f"pair {i}", size).copy())
            .permute(2, 0, 1)[None]
            .float()
            .div(255)
            .to(device_of(editor.model)),
            text,
            pooled,
            torch.randn(
                1,
                codec.latent_channels,
                size // codec.cell,
                size // codec.cell,
                generator=torch.Generator().manual_seed(i + 1),
            ),
            steps,
            max(1.0, editor.model.preset.sampling.guidance),
        )
        if "ours, prefix cached" in variants:
            variants["ours, prefix cached"](inputs)  # the first look
        variants[WHOLE](inputs)
        for variant, edit in variants.items():
            peer_input = dataclasses.replace(inputs, steps=LONG) if variant == WHOLE else inputs
            expected, their_seconds = _timed(theirs, peer_input)
            output, our_seconds = _timed(edit, inputs)
            if variant == "ours, full":
                worst = max(worst, float((output - expected).abs().max()))
            elif "refresh" in variant:
                far = max(far, float((output - expected).square().mean().sqrt()))
            if i >= 0:  # the first pair warms up
                ratios[variant].append(their_seconds / our_seconds)
                ours_ = {"total": 1000 * our_seconds, "ratio": their_seconds / our_seconds}
                run.add(Record(f"pair {i:03d}", variant, "pair", "test", f"{i}", ours_))
                their = {"total": 1000 * their_seconds}
                run.add(Record(f"pair {i:03d}", f"diffusers for {variant}", "pair", "test", f"{i}", their))
    if worst > TOLERANCE and parameter_type(full.transformer) == torch.float32:
        raise BadRequest(f"difference to diffusers must be at most {TOLERANCE:.0e}, got {worst:.1e}")
    quartiles = {
        variant: [float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))]
        for variant, values in ratios.items()
    }
    return {
        "largest difference": worst,
        "refresh, root mean square difference": far,
        "threads": torch.get_num_threads(),
        "steps": steps,
        "ratio": quartiles,
    }


def _whole_edit(editor: Editor, inputs: EncodedInputs) -> Tensor:
    """An edit as shipped: the preset's steps, a new prompt, unchanged pixels preserved."""
    picture = (inputs.picture[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    request = EditRequest(picture=picture, prompt=f"{PROMPT}, {time.perf_counter()}", seed=0)
    (result,) = ask(editor, [request])
    return torch.from_numpy(np.array(result.picture))


def _timed(edit: Callable[[EncodedInputs], Tensor], inputs: EncodedInputs) -> tuple[Tensor, float]:
    gc.collect()
    started = time.perf_counter()
    with torch.inference_mode():
        output = edit(inputs).cpu()
    return output, time.perf_counter() - started


def ours(
    model: Model,
    inputs: EncodedInputs,
    cached: dict[int, EncodedPicture] | None = None,
    context_refresh: int = 1,
) -> Tensor:
    """The same pieces through our networks: pixels (1, 3, h, w) in 0..1. ``cached`` keeps first looks."""
    from kontext.engine.approximations import Approximations
    from kontext.engine.guidance import Guidance
    from kontext.engine.sampling import Batch, sample
    from kontext.flow import schedule
    from kontext.model.tokens import pack, picture_ids, unpack

    height, width = inputs.picture.shape[-2:]
    token = model.preset.token_pixels
    rows, columns = height // token, width // token
    key = hash(inputs.picture.cpu().numpy().tobytes())
    if cached is None or key not in cached:
        tokens = pack(model.autoencoder.encode(inputs.picture.to(parameter_type(model.autoencoder)) * 2 - 1))
        ids = picture_ids(1, rows, columns, device=device_of(model))
        context = (tokens.to(parameter_type(model.transformer)), ids)
        prefix = model.transformer.config.context_attention == "prefix"
        encoded = (
            EncodedPicture(prefixes=[model.transformer.prefill(*context)])
            if prefix
            else EncodedPicture(context=[context])
        )
        if cached is not None:
            cached[key] = encoded
    else:
        encoded = cached[key]
    batch = Batch(
        noise=pack(inputs.noise).to(device_of(model)),
        ids=picture_ids(0, rows, columns, device=device_of(model)),
        text=inputs.text,
        pooled=inputs.pooled,
        **encoded,
    )
    approximations = Approximations(context_refresh=context_refresh)
    times = schedule(inputs.steps, rows * columns, model.preset.sampling.shift)
    latents = sample(
        model.transformer, batch, times, Guidance(inputs.guidance), approximations=approximations
    ).tokens
    pixels = model.autoencoder.decode(
        unpack(latents, 2 * rows, 2 * columns).to(parameter_type(model.autoencoder))
    )
    return (pixels.float() / 2 + 0.5).clamp(0, 1)


def sections(result: RunJson) -> list[str]:
    """Tables of stages and of pairs, and time against steps."""
    rows = {row: groups["test"] for row, groups in result["rows"].items()}
    models = {row: cells for row, cells in rows.items() if row.startswith("model")}
    pairs = {row: cells for row, cells in rows.items() if not row.startswith("model")}
    out = [report.table("One edit, milliseconds", models, FIGURES)]
    lines = [
        f"<li>{row}: p50 {t['p50']:.0f} ms, p95 {t['p95']:.0f} ms"
        + (f", {t['edits a second, batched']:.2f} edits a second in a batch" if len(t) > 2 else "")
        + "</li>"
        for row, t in result["latency"].items()
    ]
    items = [
        f"<li>{name}: {value}</li>"
        for name, value in result.items()
        if name == "memory MiB" or name.startswith("cold start")
    ]
    out.append(f"<ul>{''.join(lines + items)}</ul>")
    curves: dict[str, list[plots.Point]] = {}
    for row, cells in models.items():
        name, steps = row.split("@")
        point = (float(steps), *Estimate.from_json(cells["total"]).scaled(1))
        curves.setdefault(name, []).append(point)
    out.append(report.plots({"Time by steps": plots.lines(curves, "steps", "ms an edit")}))
    if pairs:
        note = (
            f"Same weights, noise, threads ({result['diffusers']['threads']}) and steps, A B A B. Outputs in "
        )
        note += f"full attention differ by at most {result['diffusers']['largest difference']:.1e}."
        out.append(report.table("Against diffusers, milliseconds", pairs, FIGURES, note))
    return out
