"""Servers and workers killed with SIGKILL under load, and what must hold afterwards."""

import base64
import contextlib
import random
import threading
import time
from collections import Counter
from functools import partial

import httpx
import psutil
import sqlalchemy as sql

from kontext.server.auth.keys import Keys
from kontext.server.jobs.queue import ACTIVE, Queue
from kontext.server.jobs.schema import jobs
from kontext.session import Store
from support.serving import LOCAL, Program, noise, opened, png, until

CREDITS, COST = 1e6, 4.0


def storm(program, key, session, stop, accepted, random_):
    """A client that submits and never gives up; only what was accepted counts."""
    body = {"prompt": "", "input_image": base64.b64encode(png(noise())).decode()}
    with httpx.Client(base_url=program.url, headers={"x-key": key}, **LOCAL) as http:
        while not stop.is_set():
            prompt = f"sleep {random_.uniform(0, 0.2):.3f} job {random_.random()}"
            with contextlib.suppress(httpx.TransportError):
                if random_.random() < 0.5:
                    answer = http.post("/v1/flux-kontext-pro", json={**body, "prompt": prompt})
                    accepted += [answer.json()["id"]] if answer.status_code == 200 else []
                else:
                    fields = {
                        "prompt": prompt,
                        "parent": session["turns"][0]["id"],
                        "count": random_.choice((1, 3)),
                    }
                    answer = http.post(f"/api/sessions/{session['id']}/edits", json=fields)
                    accepted += (
                        [job["id"] for job in answer.json()["jobs"]] if answer.status_code == 202 else []
                    )
                if accepted and random_.random() < 0.1:
                    http.post(f"/api/jobs/{random_.choice(accepted)}/cancel")
            stop.wait(random_.uniform(0, 0.1))


def reached(accepted, count):
    return len(accepted) >= count


def submit(program, **fields):
    return httpx.post(f"{program.url}/v1/flux-kontext-pro", json=fields, **LOCAL).json()["id"]


def write_down_ends(store):
    """Let the database record every end of a job, by any process."""
    ended = "NEW.state IN ('done', 'failed', 'cancelled', 'refused') AND OLD.state IS DISTINCT FROM NEW.state"
    with store.writing() as db:
        db.exec_driver_sql("CREATE TABLE ended (id VARCHAR(32), state VARCHAR(16))")
        note = "INSERT INTO ended VALUES (NEW.id, NEW.state);"
        if db.dialect.name == "sqlite":
            when = ended.replace("IS DISTINCT FROM", "IS NOT")
            db.exec_driver_sql(f"CREATE TRIGGER note AFTER UPDATE ON job WHEN {when} BEGIN {note} END")
        else:
            db.exec_driver_sql(
                "CREATE FUNCTION note() RETURNS trigger AS "
                f"$$ BEGIN {note} RETURN NEW; END $$ LANGUAGE plpgsql"
            )
            db.exec_driver_sql(
                f"CREATE TRIGGER note AFTER UPDATE ON job FOR EACH ROW WHEN ({ended}) EXECUTE FUNCTION note()"
            )


def survive(folder, kills, seed, database=None):
    """Kill something `kills` times under load, then count; prints the figures."""
    random_ = random.Random(seed)
    place = database or folder / "data"
    store = Store(place, folder / "data" / "blobs")
    queue = Queue(store)
    write_down_ends(store)
    keys = Keys(store)
    key, text = keys.create("client", credits=CREDITS, active_jobs=12, rate_per_minute=10**6)
    options = ["--require-keys", "--lease", "1", *(["--database", database] if database else [])]
    program = Program(folder, *options)
    accepted, stop, killed = [], threading.Event(), {"servers": 0, "workers": 0}
    try:
        program.ready()
        made = httpx.post(
            f"{program.url}/api/sessions",
            files={"picture": png(noise())},
            headers={"x-key": text},
            **LOCAL,
        )
        session = made.json()
        clients = [
            threading.Thread(
                target=storm, args=(program, text, session, stop, accepted, random.Random(seed + n))
            )
            for n in range(3)
        ]
        for client in clients:
            client.start()
        for number in range(kills):
            if random_.random() < 0.8:  # otherwise also while it starts
                wanted = len(accepted) + 2
                until(partial(reached, accepted, wanted), 120)
            time.sleep(random_.uniform(0.0, 1.0))
            victims = program.workers()
            if number % 2 and victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    random_.choice(victims).kill()
                killed["workers"] += 1
            else:
                program.kill()
                program.start()
                killed["servers"] += 1
        stop.set()
        for client in clients:
            client.join(60)
        program.ready()
        assert accepted
        until(lambda: not any(queue.count().get(state) for state in ACTIVE), 120)
        with store.reading() as db:
            rows = db.execute(jobs.select()).all()  # also those whose answer was lost on the way
            ends = Counter(db.scalars(sql.text("SELECT id FROM ended")))
        states = {row.id: row.state for row in rows}
        lost = set(accepted) - set(states)
        assert not lost and set(ends) == set(states) and set(ends.values()) == {1}
        done = [row for row in rows if row.state == "done"]
        turns = {turn.id for turn in store.open(session["id"]).turns[1:]}
        assert done and turns == {row.id for row in done if row.session_id}
        for row in done:
            if row.origin == "bfl":
                answer = httpx.get(f"{program.url}/v1/get_result?id={row.id}", **LOCAL).json()
                assert opened(httpx.get(answer["result"]["sample"], **LOCAL).content).size == (96, 64)
        assert keys.find("client").credits == CREDITS - COST * len(done)
        assert store.check() == []
        assert program.stop() == 0
        print(f"killed {killed}, accepted {len(states)}, ended {dict(Counter(states.values()))}, lost 0")
    finally:
        stop.set()
        if program.process.poll() is None:
            program.process.kill()
        program.log.close()
        store.close()
