"""JSON views of sessions, turns and jobs (native routes) and of tasks (BFL dialect); see docs/http.md.

`base_path` is the path of the public URL ("" or "/kontext"); it prefixes all URLs in the views.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typing_extensions import TypedDict

from kontext.errors import BadRequest
from kontext.server.jobs.queue import Job
from kontext.session import Session, SessionInfo, Turn

THUMBNAIL_WIDTH = 256  # pixels


class TurnView(TypedDict):
    id: str
    number: int
    parent: str | None
    kind: str
    name: str
    prompt: str
    seed: int | None
    size: list[int]
    settings: dict[str, Any]
    facts: dict[str, Any]
    created: float
    picture: str | None
    thumbnail: str | None
    region: str | None
    references: list[str]
    mask: str | None
    markup: str | None


class JobView(TypedDict):
    id: str
    session: str | None
    parent: str | None
    kind: str
    state: str
    prompt: str
    seed: int | None
    position: int
    step: int
    steps: int | None
    error: str | None
    created: float
    started: float | None
    finished: float | None


class SessionView(TypedDict):
    id: str
    name: str
    created: float
    updated: float
    revision: int
    head: str | None
    can_undo: bool
    can_redo: bool
    turns: list[TurnView]
    jobs: list[JobView]


class SessionLine(TypedDict):
    id: str
    name: str
    created: float
    updated: float
    turns: int
    thumbnail: str | None


def turn_view(turn: Turn, base_path: str = "") -> TurnView:
    base = f"{base_path}/api/sessions/{turn.session_id}/turns/{turn.id}"
    picture = f"{base}/picture" if turn.has_picture else None
    small = turn.size[0] <= THUMBNAIL_WIDTH  # a small picture is its own thumbnail, which saves a request
    return {
        "id": turn.id,
        "number": turn.number,
        "parent": turn.parent_id,
        "kind": turn.kind,
        "name": turn.name,
        "prompt": turn.prompt,
        "seed": turn.seed,
        "size": list(turn.size),
        "settings": dict(turn.settings),
        "facts": {key: value for key, value in turn.result_info.items() if key != "size"},
        "created": turn.created,
        "picture": picture,
        "thumbnail": picture if small or not picture else f"{picture}?width={THUMBNAIL_WIDTH}",
        "region": f"{base}/region" if turn.blobs.get("region") else None,
        "references": [f"{base}/references/{place}" for place in range(len(turn.blobs.get("reference", ())))],
        "mask": f"{base}/mask" if turn.blobs.get("mask") else None,
        "markup": f"{base}/markup" if turn.blobs.get("markup") else None,
    }


def session_view(session: Session, jobs: Iterable[JobView] = (), base_path: str = "") -> SessionView:
    return {
        "id": session.id,
        "name": session.name,
        "created": session.created,
        "updated": session.updated,
        "revision": session.revision,
        "head": session.tree.current.id if session.tree.current else None,
        "can_undo": _can(session.tree.undo),
        "can_redo": _can(session.tree.redo),
        "turns": [turn_view(turn, base_path) for turn in session.turns],
        "jobs": list(jobs),
    }


def line_view(info: SessionInfo, base_path: str = "") -> SessionLine:
    """An entry of the session list."""
    thumbnail = f"{base_path}/api/sessions/{info.id}/thumbnail" if info.turns else None
    return {
        "id": info.id,
        "name": info.name,
        "created": info.created,
        "updated": info.updated,
        "turns": info.turns,
        "thumbnail": thumbnail,
    }


def job_view(job: Job, position: int, step: tuple[int, int] | None) -> JobView:
    """`position` 1 is next in the queue, 0 is not queued; `step` is that of the event bus."""
    step_now, steps = step or (0, job.request.steps)
    return {
        "id": job.id,
        "session": job.session_id,
        "parent": job.parent_id,
        "kind": job.kind,
        "state": job.state,
        "prompt": job.request.prompt,
        "seed": job.request.seed,
        "position": position if job.state == "queued" else 0,
        "step": step_now,
        "steps": steps,
        "error": job.error,
        "created": job.created,
        "started": job.started,
        "finished": job.finished,
    }


STATUSES = {"queued": "Pending", "running": "Pending", "done": "Ready", "refused": "Content Moderated"}


def task_view(job: Any, sample: str, step: tuple[int, int] | None = None) -> dict[str, Any]:
    """The body of get_result and of webhooks, for a Job or a row of `Service.active_here`.

    `sample` is the URL of the finished picture.
    """
    status = STATUSES.get(job.state, "Error")
    if job.state == "refused" and job.started is None:
        status = "Request Moderated"
    body: dict[str, Any] = {
        "id": job.id,
        "status": status,
        "result": None,
        "progress": None,
        "details": {"message": job.error} if job.error else None,
        "preview": None,
    }
    if job.state == "running":
        done, steps = step or (0, 1)
        body["progress"] = round(done / steps, 3)
    if job.state == "done" and job.result and job.started and job.finished:
        body["progress"] = 1.0
        body["result"] = {
            "sample": sample,
            "seed": int(job.result["seed"]),
            "prompt": job.request.prompt,
            "start_time": job.started,
            "end_time": job.finished,
            "duration": round(job.finished - job.started, 3),
        }
    return body


def _can(move: Any) -> bool:
    try:
        move()
    except BadRequest:
        return False
    return True
