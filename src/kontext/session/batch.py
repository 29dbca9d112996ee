"""Many pictures edited by several processes, exactly once each, whatever is killed on the way.

A journal (SQLite, in the output folder) knows every task before the first edit. Workers write finished
pictures under a temporary name; only this process, which holds the journal's lock, gives them their final
name and then notes them as done. Hence a picture under its final name is whole and will not be made again: if
the note is missing after a crash, the file itself is the note, for it was not there when its task was written
down.
"""

from __future__ import annotations

import hashlib
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kontext.engine import pictures
from kontext.errors import BadRequest, Busy, KontextError
from kontext.session.tasks import Task

log = logging.getLogger(__name__)

JOURNAL, PARTS = ".kontext-batch.db", ".kontext-parts"


@dataclass(frozen=True)
class Failure:
    """A picture that was skipped, and why."""

    picture: str
    output: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """Told after every picture, and once before the first."""

    total: int
    done: int
    before: int
    """Of the done ones, those of earlier runs."""
    failed: Sequence[Failure]


def run(
    tasks: Sequence[Task],
    folder: Path,
    load_editor: Callable[[], Any],
    *,
    model: str = "",
    workers: int = 1,
    sign: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Do what is not done yet of `tasks`, into `folder`; call it again after a crash to go on.

    `load_editor` is called once in each worker process, so it has to be a function that can be pickled.
    Pictures that fail are noted with their reason and tried again by the next run. Raises BadRequest when the
    folder holds other files under these names or another batch, Busy while another process works on it, and
    what `load_editor` raises.
    """
    if workers < 1:
        raise BadRequest(f"{workers} workers; at least 1 is needed")
    journal = Journal(folder)
    try:
        tasks = journal.named(tasks, model)
        done = journal.begin(tasks, model)
        before, failed = len(done), list[Failure]()
        tell = on_progress or (lambda progress: None)
        tell(Progress(len(tasks), before, before, failed))
        left = [task for task in tasks if task.output not in done]
        for task, outcome in _work(left, folder, load_editor, workers, sign):
            if outcome.part is None:
                failed.append(Failure(task.picture, task.output, outcome.reason))
            else:
                try:
                    journal.keep(task, Path(outcome.part))
                    done.add(task.output)
                except OSError as error:
                    reason = f"{task.output}: cannot be written ({error.strerror})"
                    failed.append(Failure(task.picture, task.output, reason))
            tell(Progress(len(tasks), len(done), before, failed))
        return Progress(len(tasks), len(done), before, failed)
    finally:
        journal.close()


class Journal:
    """What is done in an output folder; one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(folder / JOURNAL, timeout=1.0, isolation_level=None)
            for line in ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA synchronous=FULL", "BEGIN EXCLUSIVE"):
                self.db.execute(line)
            self.db.execute(
                "CREATE TABLE IF NOT EXISTS task "
                "(output TEXT PRIMARY KEY, digest TEXT, done INTEGER, work TEXT)"
            )
            if "work" not in {row[1] for row in self.db.execute("PRAGMA table_info(task)")}:
                self.db.execute("ALTER TABLE task ADD COLUMN work TEXT")
            self.db.execute("COMMIT")  # the lock stays with this process, and goes with it
        except OSError as error:
            raise BadRequest(
                f"{folder}: cannot be written ({error.strerror}); give another output folder"
            ) from None
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise Busy(
                    f"{folder}: another process is working on this batch; wait for it or stop it"
                ) from None
            raise BadRequest(
                f"{folder / JOURNAL}: cannot be used ({error}); give another output folder"
            ) from None
        except sqlite3.DatabaseError as error:
            raise BadRequest(
                f"{folder / JOURNAL} is no journal of a batch ({error}); give another folder"
            ) from None

    def named(self, tasks: Sequence[Task], model: str) -> list[Task]:
        """The tasks, with the outputs under which an earlier run noted the same work.

        Names derived from pictures depend on what else is there: a.png alone gives a.png, beside a.jpg
        a.png.png.
        """
        known: dict[str, list[str]] = defaultdict(list)
        for output, work in self.db.execute(
            "SELECT output, work FROM task WHERE work IS NOT NULL ORDER BY rowid"
        ):
            known[work].append(output)
        given = {task.output for task in tasks if task.named}
        found = []
        for task in tasks:
            earlier = [] if task.named else known[task.work(model)]
            own = next((output for output in earlier if output not in given), None)
            if own is not None:
                earlier.remove(own)
                task = replace(task, output=own)
            found.append(task)
        taken: set[str] = set()
        for task in found:
            if task.output.casefold() in taken:
                raise BadRequest(
                    f"{self.folder} holds a batch in which {task.output} was made from another picture; "
                    "give another output folder"
                )
            taken.add(task.output.casefold())
        return found

    def begin(self, tasks: Sequence[Task], model: str) -> set[str]:
        """Write all tasks down before the first is done; returns the outputs that are done already."""
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        (self.folder / PARTS).mkdir()
        rows = self.db.execute("SELECT output, digest, done FROM task")
        known = {output: (digest, done) for output, digest, done in rows}
        done = set()
        self.db.execute("BEGIN")
        try:
            for task in tasks:
                wanted, (digest, state) = task.digest(model), known.get(task.output, (None, 0))
                exists = (self.folder / task.output).exists()
                if digest is None and exists:
                    raise BadRequest(
                        f"{self.folder / task.output} is there already; give another output folder"
                    )
                if digest not in (None, wanted):
                    raise BadRequest(
                        f"{self.folder} holds a batch in which {task.output} was made in another way "
                        "(prompt, settings, picture or model); give another output folder"
                    )
                if state or exists:
                    done.add(task.output)
                row = (task.output, wanted, int(task.output in done), task.work(model))
                self.db.execute("INSERT OR REPLACE INTO task VALUES (?, ?, ?, ?)", row)
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        return done

    def keep(self, task: Task, part: Path) -> None:
        """A finished picture gets its name, then its note."""
        final = self.folder / task.output
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, final)
        self.db.execute("UPDATE task SET done = 1 WHERE output = ?", (task.output,))

    def close(self) -> None:
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        self.db.close()


@dataclass(frozen=True)
class Outcome:
    """What a worker sends back: the finished file, or why there is none."""

    part: str | None
    reason: str = ""


def _work(
    tasks: Sequence[Task], folder: Path, load_editor: Callable[[], Any], workers: int, sign: bool
) -> Iterator[tuple[Task, Outcome]]:
    """Outcomes as they come. When a worker dies, the tasks that ran then run again alone, so that only the
    one that kills its worker fails.
    """
    waiting, suspects, running = deque(tasks), deque[Task](), dict[Future, Task]()
    workers = min(workers, max(1, len(tasks)))
    threads = max(1, (os.cpu_count() or 1) // workers)

    def crew(size: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(size, context, initializer=_begin, initargs=(load_editor, threads, sign))

    pool = crew(workers)
    try:
        while waiting or suspects or running:
            alone = bool(suspects)
            source, room = (suspects, 1) if alone else (waiting, 2 * workers)
            try:
                while source and len(running) < room:
                    running[pool.submit(_edit, source[0], str(folder / PARTS))] = source[0]
                    source.popleft()
            except BrokenProcessPool:  # a worker died between two tasks; what still runs will say so below
                if not running:
                    pool = crew(workers)
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
                    yield killed[0], Outcome(None, "the process that worked on it died (out of memory?)")
                else:
                    suspects.extend(killed)
                pool = crew(workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# In the worker processes

_own: dict[str, Any] = {}


def _begin(load_editor: Callable[[], Any], threads: int, sign: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that hands out the work
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    _own.update(load_editor=load_editor, sign=sign)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _edit(task: Task, parts: str) -> Outcome:
    """One edit, to a finished file under a temporary name."""
    if "editor" not in _own:
        _own["editor"] = _own["load_editor"]()  # what this raises ends the batch
    try:
        result = _own["editor"].edit(task.picture, task.prompt, **_arguments(task.settings))
        data = _file(task, result)
        part = Path(parts) / f"{hashlib.sha256(task.output.encode()).hexdigest()}.{os.getpid()}"
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return Outcome(str(part))
    except KontextError as error:
        return Outcome(None, str(error).removeprefix(f"{task.picture}: "))
    except Exception as error:  # one picture must not end the batch; its reason is told
        log.debug("a picture failed", exc_info=True)
        return Outcome(None, f"unexpected {type(error).__name__}: {error}"[:300])


def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if key == "box" else value for key, value in settings.items()}


def _file(task: Task, result: Any) -> bytes:
    from kontext.session.provenance import encode, extend_history

    format = pictures.format_for(task.output)
    if _own["sign"] and format == "PNG":
        from kontext.session.signing import own_identity, sign_result

        return sign_result(result, task.picture, own_identity())
    return encode(result.picture, extend_history(task.picture, result), format)
