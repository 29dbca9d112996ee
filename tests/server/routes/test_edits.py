"""The story of the own routes, against a running server.

Upload, edit, branch, vary, walk, cancel, carry away.
"""

import base64
import json
import threading
import time

import numpy as np
from PIL import Image

from kontext.session import Session
from support.fake_editor import tint
from support.serving import noise, opened, png, until


def pixels(data):
    return np.asarray(opened(data).convert("RGB"))


def test_an_edit_makes_the_turn_whose_id_was_promised(server):
    picture = noise()
    session = server.session(picture, name="kid")
    job = server.edit(session, "Make the hair blue", seed=7)[0]
    assert job["session"] == session["id"] and job["parent"] == session["head"] and job["seed"] == 7
    assert server.ended(job)["state"] == "done"
    session = server.load(session)
    turn = session["turns"][1]
    assert session["head"] == turn["id"] == job["id"] and turn["parent"] == session["turns"][0]["id"]
    assert turn["prompt"] == "Make the hair blue" and turn["seed"] == 7 and turn["facts"]["model"] == "fake"
    expected, region = tint(picture, "Make the hair blue", 7)
    assert np.array_equal(pixels(server.http.get(turn["picture"]).content), np.asarray(expected))
    assert np.array_equal(np.asarray(opened(server.http.get(turn["region"]).content)), np.asarray(region))


def test_events_tell_queue_steps_and_the_finished_turn(server):
    session = server.session()
    server.http.post("/api/prefill", json={"session": session["id"]})
    slow = server.edit(session, "sleep 0.4 first", count=1, seed=1)[0]
    job = server.edit(session, "sleep 0.4 second", seed=2, steps=5)[0]
    seen = []
    with server.http.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                seen.append([line[7:]])
            elif line.startswith("data: "):
                seen[-1].append(json.loads(line[6:]))
    kinds = [kind for kind, _ in seen]
    assert kinds[0] in ("queued", "step") and kinds[-1] == "done"
    steps = [data for kind, data in seen if kind == "step" and data["preview"]]
    assert [data["step"] for data in steps][-1] == 5 and steps[0]["preview"].startswith(
        "data:image/jpeg;base64,"
    )
    shown = opened(base64.b64decode(steps[0]["preview"].partition(",")[2]))
    assert 64 <= max(shown.size) <= 256  # a page need not blur large pixels
    done = seen[-1][1]
    # the head had moved on: it stays there; one of several workers may have done the second first
    first = {slow["id"]} if len(server.service.workers) == 1 else {slow["id"], job["id"]}
    assert done["turn"]["id"] == job["id"] and done["head"] in first


def test_session_events_tell_other_tabs(server):
    session = server.session()
    seen, open_now = [], threading.Event()

    def listen():
        with server.http.stream("GET", f"/api/sessions/{session['id']}/events") as stream:
            for line in stream.iter_lines():
                open_now.set()
                if line.startswith("event: "):
                    seen.append(line[7:])
                    if seen[-1] == "gone":
                        return

    thread = threading.Thread(target=listen)
    thread.start()
    assert open_now.wait(10)
    job = server.edit(session, "Put on sunglasses")[0]
    server.ended(job)
    server.http.patch(f"/api/sessions/{session['id']}", json={"name": "new name"})
    assert server.http.delete(f"/api/sessions/{session['id']}").status_code == 204
    thread.join(10)
    assert not thread.is_alive()
    assert "step" in seen and "done" in seen and "changed" in seen and seen[-1] == "gone"
    assert server.http.get(f"/api/sessions/{session['id']}").status_code == 404


def test_branches_undo_redo_and_names(server):
    session = server.session()
    root = session["head"]
    first = server.edit(session, "one")[0]["id"]
    server.ended({"id": first})
    second = server.edit(session, "two", parent=root)[0]["id"]
    server.ended({"id": second})
    session = server.load(session)
    assert session["head"] == first and {turn["parent"] for turn in session["turns"]} == {None, root}
    head = f"/api/sessions/{session['id']}/head"
    assert server.http.post(head, json={"turn": second}).json()["head"] == second
    undone = server.http.post(head, json={"move": "undo"}).json()
    assert undone["head"] == root and undone["can_redo"] and not undone["can_undo"]
    assert server.http.post(head, json={"move": "redo"}).json()["head"] == second
    refused = server.http.post(head, json={"move": "redo"})
    assert refused.status_code == 400 and "redo" in refused.json()["message"]
    turn = f"/api/sessions/{session['id']}/turns/{first}"
    assert server.http.patch(turn, json={"name": "<b>hat</b>"}).json()["turns"][1]["name"] == "<b>hat</b>"
    assert len(server.http.delete(turn).json()["turns"]) == 2
    assert server.http.delete(f"/api/sessions/{session['id']}/turns/{root}").status_code == 400


def test_variants_are_siblings_that_run_as_one_batch(start, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TRACE", str(tmp_path / "trace"))
    server = start().ready()
    session = server.session()
    jobs = server.edit(session, "Make it night", count=3, seed=10, steps=3)
    assert [job["seed"] for job in jobs] == [10, 11, 12]
    for job in jobs:
        assert server.ended(job)["state"] == "done"
    more = server.http.post(
        f"/api/sessions/{session['id']}/turns/{jobs[0]['id']}/variants", json={"count": 2, "seed": 20}
    )
    assert more.status_code == 202, more.text
    for job in more.json()["jobs"]:
        assert server.ended(job)["state"] == "done"
    turns = server.load(session)["turns"][1:]
    assert {turn["parent"] for turn in turns} == {session["head"]} and len(turns) == 5
    assert all(turn["settings"].get("steps") == 3 for turn in turns)
    assert (tmp_path / "trace").read_text().splitlines() == ["3 10 11 12", "2 20 21"]
    server.stop()


def test_cancel_stops_a_running_job_within_a_step(server):
    session = server.session()
    job = server.edit(session, "sleep 30")[0]
    until(lambda: server.http.get(f"/api/jobs/{job['id']}").json()["state"] == "running")
    waiting = server.edit(session, "behind it")[0]
    cancelled = server.http.post(f"/api/jobs/{job['id']}/cancel").json()
    assert cancelled["state"] == "cancelled"
    assert server.ended(waiting)["state"] == "done"
    assert server.http.post(f"/api/jobs/{waiting['id']}/cancel").json()["state"] == "done"
    again = server.http.post(f"/api/jobs/{job['id']}/retry").json()["jobs"][0]
    assert again["id"] != job["id"] and again["prompt"] == "sleep 30"
    server.http.post(f"/api/jobs/{again['id']}/cancel")
    assert len(server.load(session)["turns"]) == 2


def test_references_masks_markup_and_boxes_travel_with_the_turn(server):
    session = server.session()
    overlay = Image.new("RGBA", (96, 64))
    overlay.paste((255, 0, 0, 255), (10, 10, 20, 20))
    names = {}
    for name, picture in {
        "reference": noise((40, 40), 1),
        "mask": Image.new("L", (96, 64), 255),
        "markup": overlay,
    }.items():
        answer = server.http.post("/api/pictures", files={"picture": png(picture)})
        assert answer.status_code == 201
        names[name] = answer.json()["picture"]
    about = dict(
        references=[names["reference"]], mask=names["mask"], markup=names["markup"], box=[5, 5, 30, 30]
    )
    job = server.edit(session, "Put the hat of image 2 on the kid", **about)[0]
    assert server.ended(job)["state"] == "done"
    turn = server.load(session)["turns"][1]
    assert turn["settings"]["box"] == [5, 5, 30, 30]
    assert np.array_equal(
        pixels(server.http.get(turn["references"][0]).content), np.asarray(noise((40, 40), 1))
    )
    assert opened(server.http.get(turn["markup"]).content).mode == "RGBA"
    assert server.http.get(turn["mask"]).status_code == 200
    wrong = server.http.post("/api/pictures", files={"picture": png(noise((50, 50)))}).json()["picture"]
    for fields, words in [
        (dict(mask=wrong), "must be"),
        (dict(box=[90, 0, 20, 20]), "inside"),
        (dict(size="banana"), "is invalid"),
        (dict(references=["0" * 64]), "upload"),
        (dict(parent="nowhere"), "turn"),
    ]:
        answer = server.http.post(f"/api/sessions/{session['id']}/edits", json={"prompt": "x", **fields})
        assert answer.status_code in (400, 404) and words in answer.json()["message"], answer.text


def test_what_no_worker_could_honor_is_refused_at_submission(start):
    server = start(model="second").ready()  # works at 128 only
    session = server.session()
    opaque, empty = noise(), Image.new("RGBA", (96, 64))
    strokes = empty.copy()
    strokes.paste((255, 0, 0, 255), (10, 10, 20, 20))
    black = Image.new("L", (96, 64))
    names = {}
    for name, picture in dict(opaque=opaque, empty=empty, strokes=strokes, black=black).items():
        files = {"picture": png(picture)}
        names[name] = server.http.post("/api/pictures", files=files).json()["picture"]
    address = f"/api/sessions/{session['id']}/edits"
    for fields, words in [
        (dict(canvas=64), "canvas 64: this model works at 128x128 only"),
        (dict(markup=names["opaque"]), "the markup has no transparent part"),
        (dict(markup=names["empty"]), "the markup is empty"),
        (dict(mask=names["black"]), "the mask is empty"),
        (dict(markup=names["strokes"], box=[50, 30, 20, 20]), "have no pixel in common"),
    ]:
        answer = server.http.post(address, json={"prompt": "x", **fields})
        assert answer.status_code == 400 and words in answer.json()["message"], (fields, answer.text)
    files = {"image": png(opaque), "markup": png(opaque)}
    answer = server.http.post("/v1/images/edits", files=files, data={"prompt": "x"})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "markup", answer.text
    assert not server.service.queue.count()
    for fields in (dict(canvas=128), dict(markup=names["strokes"])):
        assert server.ended(server.edit(session, "x", **fields)[0])["state"] == "done", fields
    server.stop()


def test_an_empty_session_generates_its_first_picture(server):
    session = server.http.post("/api/sessions", json={"name": "from words"}).json()
    assert session["turns"] == [] and session["head"] is None
    job = server.edit(session, "A kid on a beach", seed=3, size="1:1")[0]
    assert job["kind"] == "generate" and server.ended(job)["state"] == "done"
    assert server.load(session)["turns"][0]["kind"] == "generate"


def test_a_bad_prompt_fails_alone_and_says_why(server):
    session = server.session()
    stopper = server.edit(session, "sleep 0.3")[0]  # so that the next two wait for one batch
    bad, good = server.edit(session, "refuse this please")[0], server.edit(session, "a good one")[0]
    server.ended(stopper)
    assert server.ended(bad)["state"] == "failed" and "refuses this prompt" in server.ended(bad)["error"]
    assert server.ended(good)["state"] == "done"
    broken = server.ended(server.edit(session, "explode")[0])
    assert broken["state"] == "failed" and "passwd" not in broken["error"]


def test_pictures_never_change_under_their_address(server):
    session = server.session(noise((400, 300)))
    turn = session["turns"][0]
    answer = server.http.get(turn["picture"])
    assert "immutable" in answer.headers["cache-control"] and answer.headers["content-type"] == "image/png"
    tag = answer.headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = server.http.get(turn["picture"], headers={"if-none-match": known})
        assert again.status_code == 304 and not again.content, known
    assert server.http.get(turn["picture"], headers={"if-none-match": '"other"'}).status_code == 200
    small = server.http.get(turn["thumbnail"])
    assert opened(small.content).size == (256, 192) and small.headers["content-type"] == "image/webp"
    listed = next(
        entry for entry in server.http.get("/api/sessions").json()["sessions"] if entry["id"] == session["id"]
    )
    assert server.http.get(listed["thumbnail"]).status_code == 200


def test_a_name_given_in_the_moment_of_another_change_is_kept(server, monkeypatch):
    session = server.session()
    server.ended(server.edit(session, "a hat")[0])
    turn, rename = server.load(session)["turns"][1]["id"], Session.rename
    others = iter(["somebody", "somebody else"])

    def late(found, name, turn=None):
        for other in others:
            rename(server.service.store.open(found.id), other)  # between our look and our change
            break
        rename(found, name, turn)

    monkeypatch.setattr(Session, "rename", late)
    answer = server.http.patch(f"/api/sessions/{session['id']}/turns/{turn}", json={"name": "hat"})
    assert answer.status_code == 200 and answer.json()["turns"][1]["name"] == "hat"
    assert answer.json()["name"] == "somebody else"


def test_a_picture_given_again_is_known_by_its_bytes_while_its_file_is_there(server, monkeypatch):
    inputs, opened_before = server.app.state.inputs, []
    keep = inputs._keep
    monkeypatch.setattr(inputs, "_keep", lambda *given: opened_before.append(given[0]) or keep(*given))
    files = {"picture": ("a.png", png(noise((64, 64), seed=77)), "image/png")}
    first, second = (server.http.post("/api/pictures", files=files).json() for _ in range(2))
    assert first == second and len(opened_before) == 1
    server.service.store.blobs.delete(first["picture"])
    assert server.http.post("/api/pictures", files=files).json() == first and len(opened_before) == 2
    assert server.http.get(first["url"]).status_code == 200


def test_a_downloaded_picture_restores_its_chain_and_a_zip_its_session(server):
    session = server.session(name="kid ../../etc")
    for prompt in ("one", "two"):
        server.ended(server.edit(session, prompt)[0])
    session = server.load(session)
    file = server.http.get(session["turns"][2]["picture"], params={"download": True})
    assert 'filename="02-two.png"' in file.headers["content-disposition"]
    restored = server.http.post("/api/sessions/import", files={"file": file.content})
    assert restored.status_code == 201, restored.text
    assert [turn["prompt"] for turn in restored.json()["turns"]] == ["", "one", "two"]
    bare = server.http.get(session["turns"][2]["picture"], params={"download": True, "metadata": False})
    assert "kontext" not in opened(bare.content).info
    assert server.http.post("/api/sessions/import", files={"file": bare.content}).status_code == 400
    export = server.http.get(f"/api/sessions/{session['id']}/export")
    assert (
        export.content[:2] == b"PK" and "/" not in export.headers["content-disposition"].split("filename")[1]
    )
    brought = server.http.post("/api/sessions/import", files={"file": export.content}).json()
    assert brought["id"] != session["id"] and len(brought["turns"]) == 3
    for bad in (b"PK\x03\x04 no zip", b"\x89PNG\r\n\x1a\n", b"nothing"):
        assert server.http.post("/api/sessions/import", files={"file": bad}).status_code == 400
    jpeg = server.http.get(session["turns"][1]["picture"], params={"download": True, "format": "jpeg"})
    assert opened(jpeg.content).format == "JPEG"


def test_prefill_says_how_long_it_took(server):
    picture = server.http.post("/api/pictures", files={"picture": png(noise(seed=9))}).json()["picture"]

    def look():  # a busy worker lets it wait for longer than the answer does
        answer = server.http.post("/api/prefill", json={"picture": picture}).json()
        return answer["state"] == "done" and answer

    assert 0 <= until(look)["seconds"] < 30
    assert server.http.get(f"/api/pictures/{picture}").status_code == 200


def test_capabilities_name_model_limits_and_switches(server):
    told = server.http.get("/api/capabilities").json()
    assert (
        told["ready"]
        and told["model"]["name"] == "fake"
        and told["model"]["native_sizes"] == [[64, 64], [96, 64]]
    )
    assert told["model"]["warnings"] == ["this is a test"] and told["limits"]["references"] == 3
    assert told["features"]["keys"] is False


def test_a_model_that_cannot_be_loaded_is_told_in_words(start):
    server = start(model="broken")
    told = until(lambda: server.http.get("/readyz").json()["trouble"])
    assert "damaged" in told and server.http.get("/healthz").status_code == 200
    server.stop()


def test_jobs_that_fail_at_once_do_not_keep_those_behind_them_waiting(server):
    session = server.session()
    slow = server.edit(session, "sleep 0.3 first")[0]
    jobs = [server.edit(session, "explode", steps=n)[0] for n in range(1, 8)]  # no two share a batch
    last = server.edit(session, "Make the hair blue")[0]
    server.ended(slow)
    started = time.monotonic()
    assert server.ended(last)["state"] == "done"
    assert time.monotonic() - started < 3
    assert {server.ended(job)["state"] for job in jobs} == {"failed"}
