"""`kontext mcp`: a Model Context Protocol server with generate, edit, vary and history."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kontext.commands import options
from kontext.terminal import log_handler

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def mcp(
    data: options.Data = None,
    model: options.Model = "nano",
    lora: options.EveryLora = None,
    loras: options.LoraFolder = None,
    device: options.Device = None,
    memory: options.Memory = None,
    fp8: options.Fp8 = False,
    compile: options.Compile = False,
    editor: Annotated[str, typer.Option(hidden=True)] = "kontext.server.workers.worker:load_editor",
) -> None:
    """Serve edits over stdin and stdout; started by an MCP client."""
    import json
    import logging
    import os
    import threading

    from kontext.home import loras_folder
    from kontext.loras import LoraAccess
    from kontext.loras import parse as parse_loras
    from kontext.mcp import McpServer, Tools
    from kontext.server.workers.worker import editor_factory
    from kontext.session import Store, default_folder

    loading = {"memory": memory, "fp8": fp8 or None, "compile": compile or None}
    loading = {name: value for name, value in loading.items() if value is not None}
    options.download_model(model)
    access = LoraAccess(loras or loras_folder(), always=parse_loras(lora))

    def load() -> Any:
        loaded = editor_factory(editor)(model, device, **loading)
        if hasattr(loaded, "use_loras"):
            loaded.use_loras(access)
        return loaded

    logging.basicConfig(level=logging.INFO, handlers=[log_handler("%(levelname)s:%(name)s:%(message)s")])
    lines = os.fdopen(os.dup(0), encoding="utf-8", errors="replace")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # library output must not mix with the protocol on stdout
    sending = threading.Lock()

    def send(message: dict) -> None:
        with sending:
            answers.write(json.dumps(message, ensure_ascii=False) + "\n")
            answers.flush()

    with Store(data or default_folder()) as store:
        McpServer(Tools(store, load), send).serve(lines)
