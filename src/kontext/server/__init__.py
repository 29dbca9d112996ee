"""The HTTP service: one job queue behind the native, BFL, OpenAI and Hugging Face APIs; and the playground.

app = create_app(Settings(data=Path("my-data")))          # FastAPI; `kontext serve` runs it with uvicorn
"""

from typing import Any

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    # Lazy, so that worker processes do not import the web framework and the database.
    if name == "Settings":
        from kontext.server.settings import Settings

        return Settings
    if name == "create_app":
        from kontext.server.app import create_app

        return create_app
    raise AttributeError(f"module 'kontext.server' has no attribute {name!r}")
