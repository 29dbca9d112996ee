"""Batch edits in several processes: each picture is edited exactly once, even if processes are killed.

A journal (SQLite, in the output folder) records every task before the first edit. Workers write finished
pictures under temporary names; only this process, which holds the journal's lock, renames them and then marks
them as done. Hence a file under its final name is complete and is never edited again: if the mark is missing
after a crash, the file itself proves it, because it did not exist when its task was recorded. A finished
picture that was deleted is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sqlite3
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kontext import pictures
from kontext.batch.tasks import Task
from kontext.errors import BadRequest, Busy, KontextError
from kontext.failures import explain
from kontext.threads import usable_processors

if TYPE_CHECKING:
    from kontext.session.editors import ResultLike, SessionEditor

log = logging.getLogger(__name__)

JOURNAL, PARTS = ".kontext-batch.db", ".kontext-parts"


@dataclass(frozen=True)
class FailedPicture:
    """A picture that was skipped, and why."""

    picture: str
    output: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """Reported before the first picture and after every picture."""

    total: int
    done: int
    before: int
    """Pictures done by earlier runs; included in `done`."""
    failed: Sequence[FailedPicture]


def run(
    tasks: Sequence[Task],
    folder: Path,
    load_editor: Callable[[], SessionEditor],
    *,
    model: str = "",
    workers: int = 1,
    sign: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Process the remaining `tasks` into `folder`; call it again after a crash to resume.

    `load_editor` is called once in each worker process, so it must be picklable. Pictures that fail are
    reported with a reason and retried by the next run. Raises BadRequest if the folder contains other files
    under these names or another batch, Busy while another process works on it, OSError when the disk is full,
    and what `load_editor` raises.
    """
    if workers < 1:
        raise BadRequest(f"workers must be at least 1, got {workers}")
    journal = Journal(folder)
    try:
        tasks = journal.named(tasks, model)
        done = journal.begin(tasks, model)
        before, failed = len(done), list[FailedPicture]()
        report = on_progress or (lambda progress: None)
        report(Progress(len(tasks), before, before, failed))
        left = [task for task in tasks if task.output not in done]
        for task, outcome in _work(left, folder, load_editor, workers, sign):
            if outcome.part is None:
                failed.append(FailedPicture(task.picture, task.output, outcome.reason))
            else:
                try:
                    journal.keep(task, Path(outcome.part), outcome.contents)
                    done.add(task.output)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                        raise
                    reason = f"{task.output}: cannot be written ({error.strerror})"
                    failed.append(FailedPicture(task.picture, task.output, reason))
            report(Progress(len(tasks), len(done), before, failed))
        return Progress(len(tasks), len(done), before, failed)
    finally:
        journal.close()


class Journal:
    """The progress of the batch in an output folder; locked by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(folder / JOURNAL, timeout=1.0, isolation_level=None)
            for line in ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA synchronous=FULL", "BEGIN EXCLUSIVE"):
                self.db.execute(line)
            self.db.execute(
                "CREATE TABLE IF NOT EXISTS task "
                "(output TEXT PRIMARY KEY, digest TEXT, done INTEGER, work TEXT, contents TEXT)"
            )
            columns = {row[1] for row in self.db.execute("PRAGMA table_info(task)")}
            for column in {"work", "contents"} - columns:  # a journal of an earlier version
                self.db.execute(f"ALTER TABLE task ADD COLUMN {column} TEXT")
            self.db.execute("COMMIT")  # the lock is held until this process ends
        except OSError as error:
            raise BadRequest(
                f"{folder}: cannot be written ({error.strerror}); use another output folder"
            ) from None
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise Busy(
                    f"{folder}: another process is working on this batch; wait for it or stop it"
                ) from None
            raise BadRequest(
                f"{folder / JOURNAL}: cannot be used ({error}); use another output folder"
            ) from None
        except sqlite3.DatabaseError as error:
            raise BadRequest(
                f"{folder / JOURNAL} is not a batch journal ({error}); use another output folder"
            ) from None

    def named(self, tasks: Sequence[Task], model: str) -> list[Task]:
        """The tasks, with the output names under which an earlier run recorded the same work.

        Derived names depend on the other pictures: a.png alone becomes a.png, but next to a.jpg a.png.png.
        """
        known: dict[str, list[str]] = defaultdict(list)
        for output, work in self.db.execute(
            "SELECT output, work FROM task WHERE work IS NOT NULL ORDER BY rowid"
        ):
            known[work].append(output)
        named = {task.output for task in tasks if task.named}
        found = []
        for task in tasks:
            earlier = [] if task.named else known[task.work(model)]
            own = next((output for output in earlier if output not in named), None)
            if own is not None:
                earlier.remove(own)
                task = replace(task, output=own)
            found.append(task)
        used: set[str] = set()
        for task in found:
            if task.output.casefold() in used:
                raise BadRequest(
                    f"{self.folder} holds a batch in which {task.output} was made from another picture; "
                    "use another output folder"
                )
            used.add(task.output.casefold())
        return found

    def begin(self, tasks: Sequence[Task], model: str) -> set[str]:
        """Record all tasks before the first one runs; returns the outputs that are already done.

        Only the inputs of those are read here; the others are read by the worker that edits them.
        """
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        (self.folder / PARTS).mkdir()
        rows = self.db.execute("SELECT output, digest, contents FROM task")
        known = {output: (digest, json.loads(contents or "{}")) for output, digest, contents in rows}
        done = set()
        self.db.execute("BEGIN")
        try:
            for task in tasks:
                task_digest, contents = task.digest(model), dict[str, str]()
                digest, used = known.get(task.output, (None, {}))
                final = self.folder / task.output
                pictures.check_regular(final)
                if digest is None and final.exists():
                    raise BadRequest(f"{final} already exists; use another output folder")
                if digest not in (None, task_digest):
                    raise BadRequest(
                        f"{self.folder} holds a batch in which {task.output} was made with another "
                        "prompt, settings, picture or model; use another output folder"
                    )
                if final.is_file():  # whatever is noted: a file can be deleted later
                    contents = task.contents()
                    changed = [name for name in contents if used.get(name, contents[name]) != contents[name]]
                    if changed:
                        raise BadRequest(
                            f"{changed[0]} has changed since {final} was made from it; delete that file to "
                            "make it again, or use another output folder"
                        )
                    contents = used | contents  # what is missing now was there then
                    done.add(task.output)
                row = (task.output, task_digest, int(task.output in done), task.work(model))
                columns = "output, digest, done, work, contents"
                insert = f"INSERT OR REPLACE INTO task ({columns}) VALUES (?, ?, ?, ?, ?)"
                self.db.execute(insert, (*row, json.dumps(contents)))
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:  # a full disk has rolled it back
                self.db.execute("ROLLBACK")
            raise
        return done

    def keep(self, task: Task, part: Path, contents: Mapping[str, str]) -> None:
        """Note what a finished picture was made from, rename it, then mark it as done."""
        self.db.execute("UPDATE task SET contents = ? WHERE output = ?", (json.dumps(contents), task.output))
        final = self.folder / task.output
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, final)
        self.db.execute("UPDATE task SET done = 1 WHERE output = ?", (task.output,))

    def close(self) -> None:
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        self.db.close()


@dataclass(frozen=True)
class Outcome:
    """What a worker returns: the finished file, or the reason of the failure."""

    part: str | None
    reason: str = ""
    contents: Mapping[str, str] = field(default_factory=dict)
    """`Task.contents` at the time of the edit."""


def _work(
    tasks: Sequence[Task], folder: Path, load_editor: Callable[[], SessionEditor], workers: int, sign: bool
) -> Iterator[tuple[Task, Outcome]]:
    """Yield outcomes as they finish.

    When a worker dies, the tasks that were running are retried one at a time, so that only the task that
    kills its worker fails.
    """
    waiting, suspects, running = deque(tasks), deque[Task](), dict[Future, Task]()
    workers = min(workers, max(1, len(tasks)))
    threads = max(1, usable_processors() // workers)

    def new_pool(size: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(size, context, initializer=_begin, initargs=(load_editor, threads, sign))

    pool = new_pool(workers)
    try:
        while waiting or suspects or running:
            alone = bool(suspects)
            source, room = (suspects, 1) if alone else (waiting, 2 * workers)
            try:
                while source and len(running) < room:
                    running[pool.submit(_edit, source[0], str(folder / PARTS))] = source[0]
                    source.popleft()
            except BrokenProcessPool:  # a worker died between two tasks; the running futures report it below
                if not running:
                    pool = new_pool(workers)
                    continue
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            killed = []
            for future in finished:
                task = running.pop(future)
                try:
                    yield task, future.result()
                except BrokenProcessPool:
                    killed.append(task)
            if killed:
                killed += running.values()
                running.clear()
                pool.shutdown(wait=False, cancel_futures=True)
                if len(killed) == 1:
                    yield killed[0], Outcome(None, "the worker process died (out of memory?)")
                else:
                    suspects.extend(killed)
                pool = new_pool(workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# In the worker processes

_own: dict[str, Any] = {}


def _begin(load_editor: Callable[[], SessionEditor], threads: int, sign: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    _own.update(load_editor=load_editor, sign=sign)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _edit(task: Task, parts: str) -> Outcome:
    """Run one edit and write the result to a temporary file."""
    if "editor" not in _own:
        _own["editor"] = _own["load_editor"]()  # an exception here ends the batch
    contents = task.contents()  # from here to the edit the files stay in the memory of the system
    try:
        result = _own["editor"].edit(task.picture, task.prompt, **_arguments(task.settings))
        data = _file(task, result)
    except KontextError as error:
        return Outcome(None, str(error).removeprefix(f"{task.picture}: "))
    except Exception as error:  # one picture must not end the batch; the reason is reported
        log.debug("a picture failed", exc_info=True)
        return Outcome(None, explain(error)[:300])
    part = Path(parts) / f"{hashlib.sha256(task.output.encode()).hexdigest()}.{os.getpid()}"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # a full disk: no picture after this one could be written either
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(part.parent.parent)) from None
    return Outcome(str(part), contents=contents)


def _arguments(settings: Mapping[str, Any]) -> dict[str, object]:
    return {key: tuple(value) if key == "box" else value for key, value in settings.items()}


def _file(task: Task, result: ResultLike) -> bytes:
    from kontext.session.provenance import encode, extend_history

    format = pictures.format_for(task.output)
    if _own["sign"] and format == "PNG":
        from kontext.session.signing import own_identity, sign_result

        return sign_result(result, task.picture, own_identity())
    return encode(result.picture, extend_history(task.picture, result), format)
