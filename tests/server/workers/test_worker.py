"""Local workers on simulated GPUs: each has its own, and a failing one ends in words."""

import asyncio
import logging
import os
from pathlib import Path

import pytest

import support
from kontext.errors import DeviceUnavailable
from kontext.server.errors import CannotLoad, WorkerDied
from kontext.server.jobs.requests import JobRequest
from kontext.server.settings import Settings
from kontext.server.workers.executor import make_workers
from kontext.server.workers.worker import Failure, JobPayload, ModelHost, worker_device
from support.serving import noise, png

SUPPORT = Path(support.__file__).with_name("device.py")


def payload(prompt="Make the hair blue", watched=False, **edit):
    request = JobRequest(prompt=prompt, seed=1, steps=2, **edit)
    return JobPayload("one", request, {"picture": [png(noise((64, 64)))]}, watched)


def test_each_local_worker_runs_on_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("SIMULATED_DEVICES", "cuda:2")
    settings = Settings(editor=f"{SUPPORT}:load_editor", model="tiny-random", workers=2)

    async def use():
        workers = make_workers(settings)
        infos = await asyncio.gather(*(worker.start() for worker in workers))
        told = []
        results = [
            await worker.run([payload(watched=True, box=(4, 4, 20, 20))], lambda *step: told.append(step))
            for worker in workers
        ]
        prefilled = await workers[0].prefill(png(noise((48, 80))))
        for worker in workers:
            await worker.kill()
        return infos, results, told, prefilled

    infos, results, told, prefilled = asyncio.run(use())
    assert [model_info.name for model_info in infos] == ["tiny-random on cuda:0", "tiny-random on cuda:1"]
    assert [result.steps for (result,) in results] == [2, 2] and prefilled > 0
    assert all(step[3].startswith(b"\xff\xd8") for step in told), "previews"


def test_a_worker_without_its_device_says_so(monkeypatch):
    monkeypatch.setenv("SIMULATED_DEVICES", "cuda:1")
    settings = Settings(editor=f"{SUPPORT}:load_editor", model="tiny-random", device="cuda:3")

    async def use():
        await make_workers(settings)[0].start()

    with pytest.raises(CannotLoad, match="device 'cuda:3' is not available; available: cuda:0, cpu"):
        asyncio.run(use())


@pytest.mark.parametrize(
    ("device", "workers", "expected", "warned"),
    [
        (None, 1, [None], 0),
        (None, 2, ["cuda:0", "cuda:1"], 0),
        ("cuda", 3, ["cuda:0", "cuda:1", "cuda:0"], 1),
        ("cuda:1", 2, ["cuda:1", "cuda:1"], 1),
        ("cpu", 2, ["cpu", "cpu"], 0),
    ],
)
def test_workers_that_share_a_gpu_are_named_in_the_log(
    monkeypatch, caplog, device, workers, expected, warned
):
    monkeypatch.setattr("kontext.engine.device.available_devices", lambda: ["cuda:0", "cuda:1", "cpu"])
    with caplog.at_level(logging.WARNING):
        assert [worker_device(device, index, workers) for index in range(workers)] == expected
    assert len(caplog.messages) == warned and all("shares cuda:" in line for line in caplog.messages)


def test_workers_on_a_machine_without_gpus_take_what_was_asked_for(monkeypatch):
    monkeypatch.setattr("kontext.engine.device.available_devices", lambda: ["cpu"])
    assert [worker_device(None, index, 2) for index in range(2)] == [None, None]


def test_a_gpu_that_failed_ends_the_worker_and_no_memory_does_not(monkeypatch):
    from kontext.errors import OutOfMemory

    host = ModelHost("kontext.server.workers.worker:load_editor", "tiny-random", "cpu")
    error = OutOfMemory("out of memory on cuda; try a smaller picture")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(host.editor, "edit_batch", fail)
    assert host.run([payload()], print) == [Failure(str(error))]
    error = DeviceUnavailable("device cuda failed")
    with pytest.raises(SystemExit):
        host.run([payload(), payload()], print)


DIES = """
import os
from kontext.engine.device import explained_errors
from kontext.server.workers.worker import load_editor

def make(model, device):
    editor = load_editor(model, device)
    def fail(*_, **__):
        with explained_errors("cuda:0"):
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
    editor.edit_batch = fail
    return editor
"""


def test_the_service_notices_that_a_worker_lost_its_gpu(tmp_path):
    (tmp_path / "dies.py").write_text(DIES)
    settings = Settings(editor=f"{tmp_path / 'dies.py'}:make", model="tiny-random", device="cpu")

    async def use():
        (worker,) = make_workers(settings)
        await worker.start()
        try:
            await worker.run([payload()], lambda *step: None)
        finally:
            await worker.kill()

    with pytest.raises(WorkerDied):
        asyncio.run(use())
    assert os.environ.get("SIMULATED_DEVICES") is None
