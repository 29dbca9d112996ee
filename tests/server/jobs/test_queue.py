"""The queue alone: order, exactly-once ends, leases, batches, clean-up."""

import json
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kontext.errors import BadRequest, NotFound
from kontext.server.errors import QueueFull
from kontext.server.jobs.batching import batch_key
from kontext.server.jobs.order import fair_order
from kontext.server.jobs.queue import Queue, Submission
from kontext.server.jobs.requests import JobRequest, Output
from kontext.session import Store

REQUEST = JobRequest(prompt="x")


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path) as store:
        yield store


def submit(queue, count=1, owner="", steps=4, **about):
    shape = replace(REQUEST, steps=steps).shape(None)
    return queue.submit([REQUEST] * count, Submission(owner=owner, origin="own", shape=shape, **about))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from("abcd"), max_size=40), st.dictionaries(st.sampled_from("abcd"), st.floats(1, 9))
)
def test_between_two_jobs_of_a_key_every_waiting_key_has_its_turn(owners, served):
    jobs = [SimpleNamespace(owner=owner, number=number) for number, owner in enumerate(owners)]
    ordered = fair_order(jobs, served)
    assert sorted(job.number for job in ordered) == list(range(len(jobs)))
    for owner in set(owners):
        mine = [place for place, job in enumerate(ordered) if job.owner == owner]
        assert [ordered[place].number for place in mine] == sorted(ordered[place].number for place in mine)
        for first, second in zip(mine, mine[1:]):
            later = {job.owner for job in ordered[second:]} - {owner}
            assert later <= {job.owner for job in ordered[first + 1 : second]}


def test_a_job_ends_once_whoever_ends_it(store):
    queue = Queue(store)
    submit(queue)
    job = queue.claim(1)[0]
    assert queue.cancel(job.id) and not queue.cancel(job.id)
    assert not queue.finish(job, "done", result={"picture": "x"})
    assert queue.get(job.id).state == "cancelled"
    submit(queue)
    job = queue.claim(1)[0]
    assert queue.finish(job, "done") and not queue.finish(job, "failed") and not queue.cancel(job.id)


def test_batches_hold_equal_shapes_and_a_blamed_job_runs_alone(store):
    queue = Queue(store)
    a, other, b, c = (submit(queue, steps=steps)[0] for steps in (4, 8, 4, 4))
    assert [job.id for job in queue.claim(2)] == [a.id, b.id]
    assert [job.id for job in queue.claim(8)] == [other.id]
    held = queue.claim(8)
    assert [job.id for job in held] == [c.id]
    queue.requeue(held, count_attempt=True)
    submit(queue)
    assert [job.id for job in queue.claim(8)] == [c.id]


def test_a_job_whose_worker_dies_fails_after_its_last_try(store):
    queue = Queue(store, max_attempts=2)
    submit(queue)
    assert queue.requeue(queue.claim(1), count_attempt=True) == []
    failed = queue.requeue(queue.claim(1), count_attempt=True)
    assert [queue.get(job.id).state for job in failed] == ["failed"] and "2 times" in queue.get(
        failed[0].id
    ).error
    submit(queue)
    for _ in range(5):  # stopping the service is not a fault of the job
        queue.requeue(queue.claim(1), count_attempt=False)
    assert queue.claim(1)[0].attempts == 1


def test_what_a_dead_server_held_returns_and_its_late_answer_counts_for_nothing(store):
    dead, living = Queue(store, lease_seconds=2), Queue(store, lease_seconds=2)
    submit(dead)
    lost = dead.claim(1)[0]
    assert living.heartbeat() == ([], set()) and not living.claim(1)
    time.sleep(2.1)
    living.heartbeat()
    found = living.claim(1)[0]
    assert found.id == lost.id and found.attempts == 2
    assert not dead.finish(lost, "done") and living.finish(found, "done")


def test_all_jobs_of_a_request_or_none_are_taken(store):
    queue = Queue(store, length=10)
    submit(queue, 3, active_jobs=4)
    with pytest.raises(QueueFull):
        submit(queue, 2, active_jobs=4)
    with pytest.raises(QueueFull):
        submit(queue, 8, owner="b")
    assert queue.count() == {"queued": 3}
    assert [row.id for row in queue.waiting()] == sorted(
        (row.id for row in queue.waiting()), key=lambda job: queue.get(job).created
    )


def test_old_jobs_and_uploads_go_with_their_pictures(store):
    queue = Queue(store)
    kept, used, gone = (store.blobs.put(data) for data in (b"kept upload", b"used by a job", b"nobody's"))
    queue.add_upload("", kept, (1, 1))
    request = replace(REQUEST, picture=used)
    job = queue.submit([request], Submission(owner="", origin="bfl", shape=request.shape((8, 8))))[0]
    queue.finish(queue.claim(1)[0], "done", result={"picture": used})
    for sha256 in (kept, used, gone):
        os.utime(store.blobs.path(sha256), (1, 1))
    queue.expire(job_days=1, upload_days=1)
    assert store.blobs.has(kept) and store.blobs.has(used) and not store.blobs.has(gone)
    queue.expire(job_days=-1, upload_days=-1)
    assert not store.blobs.has(kept) and not store.blobs.has(used)
    with pytest.raises(NotFound):
        queue.get(job.id)


def test_shapes_are_equal_exactly_when_the_editor_can_share_a_forward():
    sizes = ((64, 64), (96, 64))
    edit = JobRequest(prompt="x", size="match", steps=4)

    def key(request, *sizes_of_pictures):
        return batch_key(str(request.shape(*sizes_of_pictures)), sizes, steps=4, guidance=2.5)

    first = key(edit, (640, 640))
    assert first == key(edit, (100, 100)) == key(JobRequest(prompt="y", guidance=2.5), (9, 9))
    for other in (
        key(edit, (960, 640)),
        key(edit, (640, 640), [(10, 10)]),
        key(replace(edit, steps=5), (640, 640)),
        key(replace(edit, guidance=2.0), (640, 640)),
        key(replace(edit, size="96:64"), (640, 640)),
        key(replace(edit, size=None), None),
        key(replace(edit, size="match"), None),
    ):
        assert other != first


def test_requests_of_earlier_versions_are_read(store):
    """Rows as they were written before requests had a type: whatever is absent takes the default."""
    edit = {"prompt": "x", "seed": 7, "size": [640, 480], "box": [1, 2, 3, 4], "lock": False}
    stored = {"edit": edit, "pictures": {"picture": ["a"], "references": ["b", "c"], "mask": ["d"]}}
    own = JobRequest.from_json(stored)
    assert (own.size, own.box, own.lock, own.steps) == ((640, 480), (1, 2, 3, 4), False, None)
    assert own.blobs == ["a", "d", "b", "c"] and own.output == Output()
    assert own.to_json()["edit"] == edit and own.to_json()["pictures"] == stored["pictures"]
    output = {"format": "jpeg", "seed": "-3", "origin": "http://x", "safety_tolerance": 6}
    bfl = JobRequest.from_json({"edit": {"prompt": "y"}, "pictures": {}, "output": output})
    assert bfl.output == Output(format="jpeg", seed="-3", origin="http://x", safety_tolerance=6)
    assert bfl.to_json()["output"] == output and bfl.kind == "generate"

    queue = Queue(store)
    submit(queue)
    with store.writing() as db:
        db.exec_driver_sql("UPDATE job SET request = ?", (json.dumps(stored),))
    assert queue.claim(1)[0].request == own


def test_an_option_of_another_version_is_kept_and_refused():
    later = JobRequest.from_json({"edit": {"prompt": "x", "sparkle": 3}, "pictures": {}})
    assert later.to_json()["edit"] == {"prompt": "x", "sparkle": 3}
    with pytest.raises(BadRequest, match="no option 'sparkle'"):
        later.edit_request({})
