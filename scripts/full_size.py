"""Files of FLUX.1 Kontext [dev]'s names, shapes and types, filled with random numbers; an edit with them.

    python scripts/full_size.py make FOLDER --type bfloat16|fp8|Q4_K
    python scripts/full_size.py edit FOLDER [--canvas 256] [--memory 3GB]
    python scripts/full_size.py ladder [--device cuda]
    python scripts/full_size.py decode [--side 2048] [--strips 16777216]

The published weights need an account; these show what they take in time and memory: the peak of anonymous
memory (what is not a mapped file) is sampled from /proc, so this is for Linux. `ladder` and `decode` need no
files: they time evaluations and edits on a device, from diffusers to approximations, and compare a picture
that is decoded in strips with one that is decoded whole.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

GGUF_FACTORS = {"Q4_K": ((0, 0.0001), (2, 0.0008)), "Q8_0": ((0, 0.0003),)}
"""Where a block has its float16 factors, and values of these that give weights of a few hundredths."""
FILES = {"autoencoder": "ae", "t5": "t5xxl_fp16", "clip": "clip_l"}


class Numbers:
    """Random bits of numbers of a few hundredths."""

    def __init__(self) -> None:
        self.random = np.random.Generator(np.random.SFC64(0))

    def bits(self, count: int) -> np.ndarray:
        return np.frombuffer(self.random.bytes(2 * count), np.uint16)

    def bfloat16(self, count: int) -> np.ndarray:
        """Magnitudes of 2^-9 to 2^-5."""
        bits = self.bits(count)
        return (bits & 0x807F) | ((118 + ((bits >> 8) & 3)) << 7)

    def float16(self, count: int) -> np.ndarray:
        bits = self.bits(count)
        return (bits & 0x83FF) | ((6 + ((bits >> 11) & 3)) << 10)

    def fp8(self, count: int) -> np.ndarray:
        """Magnitudes of 1/4 to 4, for a scale of 1/100."""
        bits = np.frombuffer(self.random.bytes(count), np.uint8)
        return (bits & 0x87) | ((5 + ((bits >> 4) & 3)) << 3)

    def blocks(self, kind: str, count: int) -> np.ndarray:
        import gguf

        numbers, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        blocks = np.frombuffer(self.random.bytes(count // numbers * size), np.uint8).reshape(-1, size).copy()
        for place, value in GGUF_FACTORS[kind]:
            factors = (value * self.random.uniform(0.5, 1.5, len(blocks))).astype(np.float16)
            blocks[:, place : place + 2] = factors.view(np.uint8).reshape(-1, 2)
        return blocks


def shapes(part: str) -> dict[str, tuple[int, ...]]:
    from kontext.checkpoint.layouts import empty_module
    from kontext.model.presets import PRESETS

    module = empty_module(part, getattr(PRESETS["dev"], part))
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def write_safetensors(path: Path, part: str, kind: str) -> None:
    """A part in a type; norms are ones, biases and other vectors small."""
    random, sizes = Numbers(), {"bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1}
    codes = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "fp8": "F8_E4M3"}
    entries: list[tuple[str, tuple[int, ...], str]] = []
    for name, shape in shapes(part).items():
        own = ("bfloat16" if len(shape) < 2 else "fp8") if kind == "fp8" else kind
        entries.append((name, shape, own))
        if own == "fp8":
            entries.append((f"{name.removesuffix('weight')}scale_weight", (), "float32"))
    entries.sort(key=lambda entry: -sizes[entry[2]])
    header, end = {}, 0
    for name, shape, own in entries:
        start, end = end, end + int(np.prod(shape)) * sizes[own]
        header[name] = {"dtype": codes[own], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape, own in entries:
            file.write(_numbers(random, name, shape, own).tobytes())


def _numbers(random: Numbers, name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    count = int(np.prod(shape))
    if name.endswith("scale_weight"):
        return np.full((), 0.01, np.float32)
    if len(shape) == 1 and ("norm" in name or name.endswith(".scale")) and not name.endswith("bias"):
        scale = np.ones(count, np.float32)
        return scale if kind == "float32" else _narrow(scale, kind)
    if kind == "float32":
        return random.random.standard_normal(count, np.float32) * np.float32(0.02)
    return getattr(random, kind)(count)


def _narrow(numbers: np.ndarray, kind: str) -> np.ndarray:
    return (
        numbers.astype(np.float16) if kind == "float16" else (numbers.view(np.uint32) >> 16).astype(np.uint16)
    )


LLAMA_NAMES = (
    ("encoder.block.", "enc.blk."),
    (".layer.0.SelfAttention.relative_attention_bias.", ".attn_rel_b."),
    (".layer.0.SelfAttention.", ".attn_"),
    (".layer.0.layer_norm.", ".attn_norm."),
    (".layer.1.layer_norm.", ".ffn_norm."),
    (".layer.1.DenseReluDense.wi_0.", ".ffn_gate."),
    (".layer.1.DenseReluDense.wi_1.", ".ffn_up."),
    (".layer.1.DenseReluDense.wo.", ".ffn_down."),
    ("encoder.final_layer_norm.", "enc.output_norm."),
    ("shared.", "token_embd."),
)


def write_gguf(path: Path, part: str, kind: str) -> None:
    """A part as GGUF: matrices of a type, what does not fill its blocks in float16, vectors in float32."""
    import gguf

    random, type_ = Numbers(), gguf.GGMLQuantizationType[kind]
    numbers = gguf.GGML_QUANT_SIZES[type_][0]
    writer = gguf.GGUFWriter(path, "t5encoder" if part == "t5" else "flux", use_temp_file=False)
    data: list[tuple[str, tuple[int, ...], str]] = []
    for name, shape in shapes(part).items():
        own = "F32" if len(shape) < 2 else kind if shape[-1] % numbers == 0 else "F16"
        data.append((name, shape, own))
        theirs = name
        for ours, llama in LLAMA_NAMES if part == "t5" else ():
            theirs = theirs.replace(ours, llama)
        stored = gguf.GGMLQuantizationType[own]
        block, size = gguf.GGML_QUANT_SIZES[stored]
        raw = (*shape[:-1], shape[-1] // block * size) if own == kind else shape
        dtype = {"F32": np.float32, "F16": np.float16}.get(own, np.uint8)
        bytes_ = int(np.prod(raw)) * np.dtype(dtype).itemsize
        writer.add_tensor_info(theirs, raw, np.dtype(dtype), bytes_, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape, own in data:
        count = int(np.prod(shape))
        if own == kind:
            made = random.blocks(kind, count)
        else:
            made = _numbers(random, name, shape, "float32" if own == "F32" else "float16")
        writer.write_tensor_data(made.view(np.float16) if own == "F16" else made)
    writer.close()


def make(folder: Path, kind: str) -> None:
    from kontext.checkpoint.tokenizer import byte_tokenizer

    folder.mkdir(parents=True)
    quantized = kind in GGUF_FACTORS
    name = "flux1-kontext-dev"
    if quantized:
        write_gguf(folder / f"{name}-{kind}.gguf", "transformer", kind)
        write_gguf(folder / "t5-v1_1-xxl-encoder-Q8_0.gguf", "t5", "Q8_0")
    else:
        write_safetensors(folder / f"{name}.safetensors", "transformer", kind)
        write_safetensors(folder / f"{FILES['t5']}.safetensors", "t5", "float16")
    write_safetensors(folder / f"{FILES['clip']}.safetensors", "clip", "float16")
    write_safetensors(folder / f"{FILES['autoencoder']}.safetensors", "autoencoder", "float32")
    for tokenizer in ("tokenizer", "tokenizer_2"):
        (folder / tokenizer).mkdir()
        (folder / tokenizer / "tokenizer.json").write_text(byte_tokenizer().to_str())


EDIT = """
import json, sys, logging
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
from PIL import Image
from kontext.engine import Editor
folder, canvas, memory, steps = json.loads(sys.argv[1])
picture = Image.radial_gradient("L").resize((256, 256)).convert("RGB")
editor = Editor.load(folder, device="cpu", memory=memory, canvas=canvas)
result = editor.edit(picture, "make it snow in the evening", seed=1, steps=steps, lock=False)
result.picture.save(folder + "/result.png")
print(json.dumps({"plan": str(editor.plan), "seconds": dict(result.seconds), "size": result.size}))
"""


def watched(process: subprocess.Popen) -> Iterator[dict[str, int]]:
    """Memory of a process while it runs, kB by name."""
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            return
        yield {
            line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Rss", "VmHWM"))
        }
        time.sleep(0.05)


def edit(folder: Path, canvas: int, memory: str | None, steps: int, addresses: int | None) -> None:
    """One edit in a process of its own, and its peaks."""
    import resource

    def limited() -> None:
        if addresses:
            resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))

    with tempfile.TemporaryFile() as output:
        arguments = json.dumps([str(folder), canvas, memory, steps])
        process = subprocess.Popen([sys.executable, "-c", EDIT, arguments], stdout=output, preexec_fn=limited)
        peaks: dict[str, int] = {}

        def watch() -> None:
            for now in watched(process):
                for name, size in now.items():
                    peaks[name] = max(peaks.get(name, 0), size)

        watcher = threading.Thread(target=watch)
        watcher.start()
        process.wait()
        watcher.join()
        output.seek(0)
        print(output.read().decode())
    print({name: f"{size / 2**20:.2f} GiB" for name, size in peaks.items()})
    raise SystemExit(process.returncode)


EDIT_STEPS = (8, 28)
FP8_OPTIONS: tuple[dict[str, float], ...] = (
    {},
    {"context_refresh": 4},
    {"context_refresh": 4, "step_cache": 0.02},
)


class Ladder:
    """One evaluation, and whole edits, from diffusers to approximations; one network at a time in memory."""

    def __init__(self, layers: int, device: str, side: int, text_tokens: int) -> None:
        """layers: blocks of dev-random; side: tokens along a side of the target and of its one context."""
        import torch

        from kontext.checkpoint.random_weights import DEV_RANDOM, dev_preset
        from kontext.model.tokens import picture_ids

        self.name = f"{DEV_RANDOM}:{layers}"
        config = dev_preset(self.name).transformer
        numbers: Any = {"device": device, "dtype": torch.bfloat16}
        self.config, self.device, self.side, self.operations = config, device, side, 0
        self.target = torch.randn(1, side * side, config.in_channels, **numbers)
        self.context = torch.randn_like(self.target)
        self.text = torch.randn(1, text_tokens, config.text_width, **numbers)
        self.pooled = torch.randn(1, config.pooled_width, **numbers)
        self.time = torch.full((1,), 0.5, **numbers)
        self.guidance = torch.full((1,), 2.5, **numbers)
        self.ids, self.context_ids = (picture_ids(i, side, side, torch.device(device)) for i in (0, 1))

    def run(self) -> None:
        """Print one line for each measurement."""
        peak = self.matrix_peak()
        print(f"{'matrix peak':44} {peak / 1e12:.0f} TFLOP/s", flush=True)
        for measure in (self.diffusers, self.exact, self.fp8, self.diffusers_compiled):
            for name, seconds in measure():
                share = f"{self.operations / seconds / peak:.0%} of the peak"
                whole = "edit" not in name and "kept" not in name
                print(f"{name:44} {seconds:.4f} s {share if whole else ''}", flush=True)
            self.clear()

    def clear(self) -> None:
        import gc

        import torch

        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def matrix_peak(self) -> float:
        """Operations a second of a large product in bfloat16."""
        import torch

        n = 8192 if self.device == "cuda" else 512
        a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        return 2 * n**3 / self.seconds(lambda: a @ b)

    def seconds(self, evaluate: Callable[[], object], first: int = 2, repeats: int = 5) -> float:
        """Median of `repeats`, after the `first` ones."""
        import torch

        times = []
        with torch.inference_mode():
            for _ in range(first + repeats):
                started = time.perf_counter()
                evaluate()
                if self.device == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
        return float(np.median(times[first:]))

    def diffusers(self) -> Iterator[tuple[str, float]]:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        network, inputs = self._diffusers()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(**inputs)
        self.operations = counter.get_total_flops()
        yield "diffusers", self.seconds(lambda: network(**inputs))

    def diffusers_compiled(self) -> Iterator[tuple[str, float]]:
        network, inputs = self._diffusers()
        network.compile_repeated_blocks()
        yield "diffusers, compiled", self.seconds(lambda: network(**inputs))

    def _diffusers(self) -> tuple[Any, dict[str, Any]]:
        """The network with random weights, and its inputs."""
        import torch
        from diffusers import FluxTransformer2DModel

        from kontext.checkpoint.configs import to_diffusers_config

        settings = {k: v for k, v in to_diffusers_config(self.config).items() if not k.startswith("_")}
        with torch.device("meta"):
            network: Any = FluxTransformer2DModel(**settings)
            network.to(torch.bfloat16)
        network.to_empty(device=self.device)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        network.eval().requires_grad_(False)
        inputs = {
            "return_dict": False,
            "hidden_states": torch.cat((self.target, self.context), 1),
            "encoder_hidden_states": self.text,
            "pooled_projections": self.pooled,
            "timestep": self.time,
            "guidance": self.guidance,
            "img_ids": torch.cat((self.ids, self.context_ids)).to(torch.bfloat16),
            "txt_ids": torch.zeros(self.text.shape[1], 3, device=self.device, dtype=torch.bfloat16),
        }
        return network, inputs

    def exact(self) -> Iterator[tuple[str, float]]:
        return self._ours("ours", False, (), ())

    def fp8(self) -> Iterator[tuple[str, float]]:
        return self._ours("ours, fp8", True, FP8_OPTIONS, EDIT_STEPS)

    def _ours(
        self, name: str, fp8: bool, options: Sequence[dict[str, float]], steps: Sequence[int]
    ) -> Iterator[tuple[str, float]]:
        """Evaluations of the whole sequence and with the context's keys and values kept; then edits."""
        import torch

        from kontext import Editor

        editor = Editor.load(self.name, self.device, torch.bfloat16, fp8=fp8)
        network = editor.model.transformer
        prepared = network.prepare(self.text, self.ids, [(self.context, self.context_ids)])

        def evaluate(inputs: Any) -> Any:
            mod = network.modulate(network.vector(self.time, self.pooled, self.guidance))
            return network.evaluate(self.target, inputs, mod)

        mod = network.modulate(network.vector(self.time, self.pooled, self.guidance))
        for compiled in ("", ", compiled"):
            if compiled:
                network.compile_blocks()
            whole = name + compiled
            yield whole, self.seconds(partial(evaluate, prepared))
            _, kept = network.evaluate_and_cache_context(self.target, prepared, mod)
            yield f"{whole}, context kept", self.seconds(partial(evaluate, kept))
        pixels = self.side * 16
        picture = np.random.default_rng(0).integers(0, 256, (pixels, pixels, 3), np.uint8)
        for count in steps:
            for option in options:
                chosen: Any = {"steps": count, "seed": 1, **option}
                said = "".join(f", {key} {value}" for key, value in option.items())
                edit = partial(editor.edit, picture, "make it night", **chosen)
                yield f"{name}, compiled: edit of {count} steps{said}", self.seconds(edit, 1, 1)


def decode(side: int, strips: int) -> None:
    """Decode random latents whole and in strips: seconds, memory and the largest difference."""
    import resource

    import torch

    from kontext.model.autoencoder import Autoencoder
    from kontext.model.presets import DEV

    torch.manual_seed(0)
    codec = Autoencoder(DEV.autoencoder).eval()
    latents = torch.randn(1, DEV.autoencoder.latent_channels, side // 8, side // 8)
    decoded = {}
    for name, elements in (("in strips", strips), ("whole", None)):
        codec.strip_elements, start = elements, time.monotonic()
        with torch.inference_mode():
            decoded[name] = codec.decode(latents)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{name}: {time.monotonic() - start:.0f} s, peak of the process so far {peak:.2f} GiB", flush=True
        )
    levels = (decoded["in strips"] - decoded["whole"]).abs() * 127.5
    spread = decoded["whole"].std() * 127.5
    print(f"difference: at most {levels.max():.5f} levels of 255, of pixels that vary by {spread:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--type", default="fp8", choices=["bfloat16", "fp8", *GGUF_FACTORS])
    editing = commands.add_parser("edit")
    editing.add_argument("folder", type=Path)
    editing.add_argument("--canvas", type=int, default=256)
    editing.add_argument("--memory")
    editing.add_argument("--steps", type=int, default=1)
    editing.add_argument("--addresses", type=int, help="limit of mapped memory (ulimit -v), bytes")
    timing = commands.add_parser("ladder")
    timing.add_argument("--layers", type=int, default=57)
    timing.add_argument("--device", default="cuda")
    timing.add_argument("--side", type=int, default=64, help="tokens along a side, of 16 pixels")
    timing.add_argument("--text", type=int, default=512, help="tokens of text")
    decoding = commands.add_parser("decode")
    decoding.add_argument("--side", type=int, default=2048, help="pixels")
    decoding.add_argument("--strips", type=int, default=2**24, help="elements of a strip")
    given = parser.parse_args()
    if given.command == "decode":
        decode(given.side, given.strips)
    elif given.command == "ladder":
        Ladder(given.layers, given.device, given.side, given.text).run()
    elif given.command == "make":
        try:
            make(given.folder, given.type)
        except BaseException:
            shutil.rmtree(given.folder, ignore_errors=True)
            raise
    else:
        edit(given.folder, given.canvas, given.memory, given.steps, given.addresses)


if __name__ == "__main__":
    main()
