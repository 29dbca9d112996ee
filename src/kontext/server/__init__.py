"""The service: one queue of edits behind the BFL, OpenAI, Hugging Face and own HTTP routes; serves the
playground.

app = create_app(Settings(data=Path("my-data")))          # FastAPI; `kontext serve` runs it with uvicorn
"""

from typing import Any

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    # Lazy, so that a worker process does not pay for the web framework and the database.
    if name == "Settings":
        from kontext.server.settings import Settings

        return Settings
    if name == "create_app":
        from kontext.server.app import create_app

        return create_app
    raise AttributeError(f"module 'kontext.server' has no attribute {name!r}")
