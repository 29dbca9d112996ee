"""Expands the short prompts of requests that ask for it, if the operator named an endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from kontext.errors import BadRequest, Unavailable
from kontext.prompt_expansion import PromptExpander
from kontext.server.errors import ExpansionFailed
from kontext.server.jobs.requests import JobRequest
from kontext.server.settings import Settings
from kontext.server.workers.worker import ModelInfo

log = logging.getLogger(__name__)

AT_ONCE = 4  # requests to the endpoint; threads of their own, so that a slow endpoint delays nothing else


class Expansion:
    """The prompt expander of the service; does nothing without `Settings.expand_prompt`."""

    def __init__(self, settings: Settings) -> None:
        self._expander: PromptExpander | None = None
        self._threads: ThreadPoolExecutor | None = None
        if settings.expand_prompt is not None:
            self._expander = PromptExpander.from_environment(
                settings.expand_prompt, settings.expand_model, seconds=settings.expand_seconds
            )
            self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="expansion")

    @property
    def enabled(self) -> bool:
        return self._expander is not None

    def check(self) -> None:
        """Raises BadRequest if the server expands no prompts."""
        if not self.enabled:
            raise BadRequest(
                "this server does not expand prompts; send the full prompt, and prompt_upsampling or "
                "expand_prompt as false"
            )

    async def expand(self, requests: Sequence[JobRequest], model: ModelInfo | None) -> Sequence[JobRequest]:
        """Requests of one prompt with the expanded one; as they are if it does not fit the model.

        Raises BadRequest (see `check`) and ExpansionFailed.
        """
        self.check()
        assert self._expander is not None
        prompt, edits = requests[0].prompt, requests[0].picture is not None
        expander = self._expander
        try:
            text = await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: expander.expand(prompt, edits=edits)
            )
        except Unavailable as error:
            log.warning("%s", error)
            raise ExpansionFailed(
                "the prompt could not be expanded; try again, or submit it without expansion"
            ) from None
        expanded = [replace(request, prompt=text) for request in requests]
        if model is not None:
            try:
                await asyncio.to_thread(model.check_request, expanded[0])
            except BadRequest:
                log.info("an expanded prompt is too long for %s; the prompt is used as given", model.name)
                return requests
        return expanded

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
