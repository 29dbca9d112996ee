"""The promise: what was accepted ends exactly once, whatever is killed. Servers and workers are killed with
SIGKILL.

Clients submit all the while; afterwards every accepted job must have ended, every finished one must have
its picture (or its one turn), and a key must have paid for finished jobs alone.
"""

import base64
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import httpx
import psutil
import pytest
from serving import FAKE, noise, opened, png, until

from kontext.server.access import Keys
from kontext.server.queue import ENDED, Queue
from kontext.server.schema import jobs
from kontext.session import Store

CREDITS, COST = 1e6, 4.0
LOCAL = dict(trust_env=False, timeout=60)


class Program:
    """`kontext serve` as a process of its own on a fixed port."""

    def __init__(self, folder, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = open(folder / "log", "ab")
        self.options = ["--data", str(folder / "data"), "--port", str(self.port), "--editor", FAKE, *options]
        self.start()

    def start(self):
        command = [sys.executable, "-c", "from kontext.cli import main; main()", "serve", *self.options]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def workers(self):
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def ready(self):
        until(lambda: httpx.get(f"{self.url}/readyz", **LOCAL).status_code == 200, 90)

    def kill(self):
        workers = self.workers()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        gone, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive, "a worker outlived its server"

    def stop(self):
        workers = self.workers()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert not psutil.wait_procs(workers, timeout=60)[1], "a worker outlived its server"
        return code


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
                    wish = {
                        "prompt": prompt,
                        "parent": session["turns"][0]["id"],
                        "count": random_.choice((1, 3)),
                    }
                    answer = http.post(f"/api/sessions/{session['id']}/edits", json=wish)
                    accepted += (
                        [job["id"] for job in answer.json()["jobs"]] if answer.status_code == 202 else []
                    )
                if accepted and random_.random() < 0.1:
                    http.post(f"/api/jobs/{random_.choice(accepted)}/cancel")
            stop.wait(random_.uniform(0, 0.1))


def reached(accepted, count):
    return len(accepted) >= count


def submit(program, **wish):
    return httpx.post(f"{program.url}/v1/flux-kontext-pro", json=wish, **LOCAL).json()["id"]


def survive(folder, kills, seed, database=None):
    """Kill something `kills` times under load, then count."""
    random_ = random.Random(seed)
    place = database or folder / "data"
    store = Store(place, folder / "data" / "blobs")
    queue = Queue(store)
    keys = Keys(store)
    key, text = keys.make("client", credits=CREDITS, active_jobs=12, rate_per_minute=10**6)
    options = ["--require-keys", "--lease", "1", *(["--database", database] if database else [])]
    program = Program(folder, *options)
    accepted, stop = [], threading.Event()
    try:
        program.ready()
        made = httpx.post(
            f"{program.url}/api/sessions",
            files={"picture": png(noise())},
            headers={"x-key": text},
            trust_env=False,
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
            else:
                program.kill()
                program.start()
        stop.set()
        for client in clients:
            client.join(30)
        program.ready()
        assert accepted
        until(lambda: all(queue.get(job).state in ENDED for job in accepted), 120)
        states = {job: queue.get(job) for job in accepted}
        done = [job for job in states.values() if job.state == "done"]
        assert done
        turns = {turn.id for turn in store.open(session["id"]).turns[1:]}
        assert turns == {job.id for job in done if job.session_id} | (turns - set(accepted))
        for job in turns - set(accepted):  # accepted, but the answer was lost on the way
            assert queue.get(job).state == "done"
        for job in done:
            if job.origin == "bfl":
                answer = httpx.get(f"{program.url}/v1/get_result?id={job.id}", **LOCAL).json()
                assert opened(httpx.get(answer["result"]["sample"], **LOCAL).content).size == (96, 64)
        with store.reading() as db:
            paid = db.execute(jobs.select().where(jobs.c.state == "done")).all()
        assert keys.find("client").credits == CREDITS - COST * len(paid)
        assert store.check() == []
        assert program.stop() == 0
        return states
    finally:
        stop.set()
        if program.process.poll() is None:
            program.process.kill()
        program.log.close()
        store.close()


def test_three_kills_lose_nothing(tmp_path):
    survive(tmp_path, 3, seed=1)


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(tmp_path):
    states = survive(tmp_path, 100, seed=2)
    print({state: sum(job.state == state for job in states.values()) for state in ENDED})


def test_a_job_that_kills_its_worker_is_given_up_and_harms_no_other(start):
    server = start(max_attempts=2).ready()
    session = server.session()
    stopper = server.edit(session, "sleep 0.5")[0]
    bad, good = server.edit(session, "die")[0], server.edit(session, "good")[0]
    server.ended(stopper)
    assert server.ended(good, 60)["state"] == "done"
    ended = server.ended(bad, 60)
    assert ended["state"] == "failed" and "2 times" in ended["error"]
    assert server.ended(server.edit(session, "still here")[0], 30)["state"] == "done"
    server.stop()


def test_a_graceful_stop_finishes_what_runs_and_keeps_what_waits(tmp_path):
    program = Program(tmp_path, "--grace", "20")
    try:
        program.ready()
        running = submit(program, prompt="sleep 1.5", steps=3)
        with Store(tmp_path / "data") as store:
            queue = Queue(store)
            until(lambda: queue.get(running).state == "running")
            waiting = submit(program, prompt="sleep 60")
            assert program.stop() == 0
            assert queue.get(running).state == "done" and queue.get(waiting).state == "queued"
    finally:
        if program.process.poll() is None:
            program.process.kill()


def test_a_stop_without_patience_returns_the_running_job(tmp_path):
    program = Program(tmp_path, "--grace", "0.5")
    try:
        program.ready()
        running = submit(program, prompt="sleep 60")
        with Store(tmp_path / "data") as store:
            queue = Queue(store)
            until(lambda: queue.get(running).state == "running")
            program.stop()
            job = queue.get(running)
            assert job.state == "queued" and job.attempts == 0
    finally:
        if program.process.poll() is None:
            program.process.kill()


def test_the_second_server_on_a_port_says_so(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [
            sys.executable,
            "-c",
            "from kontext.cli import main; main()",
            "serve",
            "--port",
            port,
            "--data",
            str(tmp_path),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ})
    assert (
        ended.returncode == 1
        and "choose another with --port" in ended.stderr
        and "Traceback" not in ended.stderr
    )
