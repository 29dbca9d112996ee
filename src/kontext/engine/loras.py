"""LoRAs per request: files are read once and cached; requests compute them in branches of the model's layers.

The model's own weights do not change, so that the next request may use other LoRAs or none at once.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kontext.engine.cache import ByteCache
from kontext.engine.context import device_of, parameter_type
from kontext.errors import BadRequest
from kontext.kernels import repack_transformer
from kontext.loras import Lora, LoraAccess
from kontext.model.compilation import EAGER
from kontext.model.lora import AdaptedLinear, Change
from kontext.model.transformer import Transformer, TransformerBackend

if TYPE_CHECKING:
    from kontext.checkpoint import Model
    from kontext.checkpoint.tensors import Weights

PARTS = ("transformer", "t5", "clip")
LoraKey = tuple[tuple[str, float], ...]
"""sha256 and scale of each LoRA, in their order."""
KeyedChange = tuple[Change, float, tuple[str, float]]
"""A change, its scale, and the sha256 and scale of its LoRA."""


@dataclass(frozen=True, eq=False)
class LoadedLora:
    """A LoRA file, read for a model."""

    sha256: str
    changes: Mapping[str, Mapping[str, Sequence[Change]]]
    """Changes by part and by name of the tensor, on the host."""
    warnings: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(
            change.bytes
            for tensors in self.changes.values()
            for changes in tensors.values()
            for change in changes
        )


@dataclass(frozen=True)
class LoraSet:
    """The LoRAs of a request and their scales, in their order, without those of scale 0."""

    members: tuple[tuple[LoadedLora, float], ...] = ()

    def key(self, *parts: str) -> LoraKey:
        """The LoRAs of the set that change one of these parts."""
        return tuple(
            (lora.sha256, scale)
            for lora, scale in self.members
            if any(lora.changes.get(part) for part in parts)
        )

    @property
    def warnings(self) -> list[str]:
        return [warning for lora, _ in self.members for warning in lora.warnings]


NO_LORAS = LoraSet()


class LoraStore:
    """The LoRAs of a model, least recently used ones evicted beyond `limit_bytes`.

    A request with LoRAs runs alone on the model; requests without run concurrently. Raises NotFound,
    BadRequest, BadCheckpoint for LoRAs of every request that cannot be used.
    """

    def __init__(self, model: Model, access: LoraAccess | None = None, limit_bytes: int = 2 * 2**30):
        self.model, self.access = model, access or LoraAccess.of_account()
        self._cache = ByteCache(limit_bytes)
        self._lock = _SharedLock()
        self.always = NO_LORAS
        self.always = self.resolve(self.access.always)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the model with the LoRAs of every request."""
        if not self.always.members:
            return self.model.fingerprint
        return hashlib.sha256(f"{self.model.fingerprint} {self.always.key(*PARTS)}".encode()).hexdigest()

    def resolve(self, loras: Sequence[Lora]) -> LoraSet:
        """Read the LoRAs of a request.

        Raises NotFound, BadRequest, and BadCheckpoint for files that do not fit the model.
        """
        members = [(self._load(self.access.find(lora)), lora.scale) for lora in loras]
        return LoraSet((*self.always.members, *((lora, scale) for lora, scale in members if scale)))

    def identify(self, loras: Sequence[Lora]) -> list[Lora]:
        """The LoRAs of a request with the digests of their files."""
        return [replace(lora, sha256=self._load(self.access.find(lora)).sha256) for lora in loras]

    def _load(self, path: Path) -> LoadedLora:
        from kontext.checkpoint.lora import lora_file

        file = lora_file(path)
        state = file.stat()
        key = ("file", str(file.resolve()), state.st_size, state.st_mtime_ns)
        return self._cache.get(key, lambda: self._read(path, file), lambda lora: lora.bytes)

    def _read(self, path: Path, file: Path) -> LoadedLora:
        from kontext.checkpoint.lora import read_lora

        adapter = read_lora(path, self._weights)
        with open(file, "rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        changes = {
            part: {name: [change.cloned() for change in some] for name, some in tensors.items()}
            for part, tensors in adapter.changes.items()
            if tensors
        }
        return LoadedLora(digest, changes, tuple(adapter.warnings))

    @cached_property
    def _weights(self) -> Mapping[str, Weights]:
        """The model's tensors, for their names and shapes."""
        with self._lock.shared():
            return self.model.source or self.model.weights()

    @contextmanager
    def active(self, loras: LoraSet = NO_LORAS) -> Iterator[None]:
        """Inside, the model computes with these LoRAs."""
        if not loras.members:
            with self._lock.shared():
                yield
            return
        _ = self.model.fingerprint  # of the weights without LoRAs
        with self._lock.exclusive():
            replaced = _Replaced()
            try:
                if loras.key("transformer"):
                    replaced.call_eagerly(self.model.transformer)
                for part in PARTS:
                    self._install(part, loras, replaced)
                self._use_kernels(loras, replaced)
                yield
            finally:
                replaced.restore()

    def _install(self, part: str, loras: LoraSet, replaced: _Replaced) -> None:
        """Wrap the linear layers that a part's LoRAs change, and replace changed norms and embeddings."""
        network: nn.Module = getattr(self.model, part)
        device, dtype = device_of(self.model), parameter_type(network)
        for stem, words in _by_module(part, loras).items():
            layer: Any = network.get_submodule(stem)
            if not hasattr(layer, "in_features"):
                for word, changes in words.items():
                    replaced.replace_parameter(layer, word, _changed(f"{part}.{stem}", layer, word, changes))
                continue
            bias = _changed(f"{part}.{stem}", layer, "bias", words["bias"]) if "bias" in words else layer.bias
            keyed = words.get("weight", [])
            gain = partial(self._gain, f"{part}.{stem}", [key for _, _, key in keyed])
            branch = [(change.to(device, dtype), scale) for change, scale, _ in keyed]
            replaced.replace_module(network, stem, AdaptedLinear(layer, branch, bias, gain))

    def _gain(
        self, layer: str, keys: Sequence[tuple[str, float]], index: int, compute: Callable[[], Tensor]
    ) -> Tensor:
        """The gain of a layer's DoRA, which depends on the changes before it."""
        key = ("gain", layer, *keys[:index], keys[index][0], index)
        return self._cache.get(key, compute, lambda gain: gain.nbytes)

    def _use_kernels(self, loras: LoraSet, replaced: _Replaced) -> None:
        """Kernels hold packed weights: pack those with the LoRAs, once per set."""
        transformer, key = self.model.transformer, loras.key("transformer")
        if transformer.backend is not None and key:
            backend: TransformerBackend = self._cache.get(
                ("kernels", key),
                lambda: repack_transformer(transformer),
                lambda _: sum(parameter.nbytes for parameter in transformer.parameters()),
            )
            replaced.replace_backend(transformer, backend)


def _by_module(part: str, loras: LoraSet) -> dict[str, dict[str, list[KeyedChange]]]:
    """Changes by module and by tensor of the module: "weight", "scale", "bias"."""
    modules: dict[str, dict[str, list[KeyedChange]]] = {}
    for lora, scale in loras.members:
        for name, changes in lora.changes.get(part, {}).items():
            stem, _, word = name.rpartition(".")
            keyed = modules.setdefault(stem, {}).setdefault(word, [])
            keyed += [(change, scale, (lora.sha256, scale)) for change in changes]
    return modules


def _changed(place: str, layer: nn.Module, word: str, changes: Sequence[KeyedChange]) -> Tensor:
    """A parameter with its changes, in its own type."""
    parameter = layer._parameters.get(word)
    if parameter is None:
        raise BadRequest(f"a LoRA changes {place}.{word}, which this memory plan reads from its file")
    value = parameter.detach().float().clone()
    for change, scale, _ in changes:
        value = change.applied(value, scale)
    return value.to(parameter.dtype)


class _Replaced:
    """Modules, parameters and kernels that were replaced, to be restored."""

    def __init__(self) -> None:
        self._restore: list[Callable[[], None]] = []

    def replace_module(self, network: nn.Module, name: str, module: nn.Module) -> None:
        self._restore.append(partial(network.set_submodule, name, network.get_submodule(name)))
        network.set_submodule(name, module)

    def replace_parameter(self, layer: nn.Module, name: str, value: Tensor) -> None:
        self._restore.append(partial(layer._parameters.__setitem__, name, layer._parameters[name]))
        layer._parameters[name] = nn.Parameter(value, requires_grad=False)

    def replace_backend(self, transformer: Transformer, backend: TransformerBackend) -> None:
        self._restore.append(partial(setattr, transformer, "backend", transformer.backend))
        transformer.backend = backend

    def call_eagerly(self, transformer: Transformer) -> None:
        """Compiled blocks would be compiled anew for the layers of each set."""
        self._restore.append(partial(setattr, transformer, "calls", transformer.calls))
        transformer.calls = EAGER

    def restore(self) -> None:
        while self._restore:
            self._restore.pop()()


class _SharedLock:
    """Held by several threads at once, or by one thread exclusively."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._sharing: Counter[int] = Counter()
        self._exclusive: int | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        thread = threading.get_ident()
        _refuse_nested(self._exclusive == thread)
        with self._condition:
            self._condition.wait_for(lambda: self._exclusive is None)
            self._sharing[thread] += 1
        try:
            yield
        finally:
            with self._condition:
                self._sharing[thread] -= 1
                self._condition.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        thread = threading.get_ident()
        _refuse_nested(self._exclusive == thread or self._sharing[thread] > 0)
        with self._condition:
            self._condition.wait_for(lambda: self._exclusive is None and not self._sharing.total())
            self._exclusive = thread
        try:
            yield
        finally:
            with self._condition:
                self._exclusive = None
                self._condition.notify_all()


def _refuse_nested(nested: bool) -> None:
    if nested:
        raise BadRequest("an edit with LoRAs cannot be nested in another edit, such as in its on_step")
