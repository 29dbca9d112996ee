"""What a file of sessions may cost, relative to what was sent: bytes stored, memory, waiting of others."""

import contextlib
import hashlib
import io
import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from functools import cache

import httpx
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kontext.errors import BadRequest
from kontext.session import Store, archive
from kontext.session.pixels import digest
from support.serving import LOCAL, Program, noise, opened, png

MB = 10**6
STORED, MEMORY, WAIT = 10 * MB, 100 * MB, 1.0  # for a file of at most 1 MB


def turn(number, blobs, size, pixels, prompt="x"):
    return {
        "number": number,
        "parent": number - 1 if number else None,
        "visited": 1,
        "name": "",
        "created": 1.0,
        "kind": "edit" if number else "source",
        "prompt": prompt if number else "",
        "seed": 1,
        "settings": {},
        "pixels": pixels,
        "facts": {"size": list(size)},
        "blobs": blobs,
    }


def zipped(turns, blobs, compression=zipfile.ZIP_DEFLATED, manifest=None):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as new:
        whole = {"format": "kontext-session", "version": 1, "name": "attack", "turns": turns}
        new.writestr("manifest.json", manifest if manifest is not None else json.dumps(whole))
        for data in blobs:
            new.writestr(f"blobs/{hashlib.sha256(data).hexdigest()}", data)
    return file.getvalue()


def of_pictures(files, prompt="x"):
    """A chain of turns, each with one picture file."""
    turns = []
    for number, data in enumerate(files):
        with Image.open(io.BytesIO(data)) as head:
            size = head.size
        small = size[0] * size[1] < 10**6
        pixels = digest(opened(data)) if small else FLAT.get(size, "0" * 64)
        turns.append(turn(number, {"picture": [hashlib.sha256(data).hexdigest()]}, size, pixels, prompt))
    return zipped(turns, files)


FLAT: dict[tuple[int, int], str] = {}  # pixels of the large flat pictures


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def flat(width, height):
    """A black RGB picture, written by hand: so large a one takes a second to encode otherwise."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = hashlib.sha256(f"RGB {width}x{height}\n".encode())
    pixels.update(bytes(3 * width * height))
    FLAT[width, height] = pixels.hexdigest()
    data = zlib.compress(bytes((3 * width + 1) * height), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def padded(data, size):
    """A PNG with a private chunk of zeros."""
    return data[:33] + chunk(b"prVt", bytes(size)) + data[33:]


def gray(seed):
    values = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    return png(Image.fromarray(values))


def lying(data):
    """The sizes that the directory of a zip gives are a tenth of the true ones."""
    at = data.index(b"PK\x01\x02")
    while data[at : at + 4] == b"PK\x01\x02":
        (size,) = struct.unpack_from("<I", data, at + 24)
        data = data[: at + 24] + struct.pack("<I", size // 10) + data[at + 28 :]
        name, extra, comment = struct.unpack_from("<HHH", data, at + 28)
        at += 46 + name + extra + comment
    return data


def twice(data):
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as more, pytest.warns(UserWarning, match="Duplicate"):
        more.writestr("manifest.json", b"{}")
    return file.getvalue()


def repeated(turns, names):
    data = png(noise((16, 16)))
    blobs = {
        "picture": [hashlib.sha256(data).hexdigest()],
        "reference": [hashlib.sha256(data).hexdigest()] * names,
    }
    pixels = digest(opened(data))
    return zipped([turn(number, blobs, (16, 16), pixels) for number in range(turns)], [data])


ATTACKS = {
    "padding": lambda: of_pictures([padded(png(noise((16, 16), seed)), 90 * MB) for seed in range(4)]),
    "padding of 8 KB each": lambda: of_pictures([padded(gray(seed), 60_000) for seed in range(300)]),
    "pictures above the limit": lambda: of_pictures([flat(7900, 7900)]),
    "large flat pictures": lambda: of_pictures([flat(4000, 3000 + more) for more in range(6)]),
    "flat pictures up to the limit": lambda: of_pictures([png(noise((500, 500)))] + [flat(5700, 5700)]),
    "many pictures": lambda: of_pictures([gray(seed) for seed in range(1500)]),
    "too many pictures": lambda: of_pictures([gray(seed) for seed in range(1530)]),
    "many turns": lambda: zipped([turn(n, {}, (16, 16), "0" * 64) for n in range(1200)], []),
    "too many turns": lambda: zipped([turn(n, {}, (16, 16), "0" * 64) for n in range(9999)], []),
    "long prompts": lambda: zipped([turn(n, {}, (16, 16), "0" * 64, "p" * 10_000) for n in range(400)], []),
    "one picture named often": lambda: repeated(2000, 16),
    "deep manifest": lambda: zipped([], [], manifest="[" * 4 * MB),
    "wide manifest": lambda: zipped([], [], manifest="[" + "[]," * MB + "[]]"),
    "manifest bomb": lambda: zipped([], [], manifest=b" " * 300 * MB),
    "long numbers": lambda: zipped([], [], manifest="[" + "9" * 4 * MB + "]"),
    "picture bomb": lambda: zipped([], [bytes(300 * MB)]),
    "bzip2": lambda: zipped([turn(0, {}, (16, 16), "0" * 64)], [], zipfile.ZIP_BZIP2),
    "lzma": lambda: zipped([turn(0, {}, (16, 16), "0" * 64)], [], zipfile.ZIP_LZMA),
    "lying sizes": lambda: lying(of_pictures([png(noise((200, 200)))])),
    "duplicates": lambda: twice(of_pictures([png(noise())])),
    "long and thin": lambda: of_pictures([png(Image.new("L", (1, 300_000)))]),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imports")
    program = Program(folder)
    program.folder = folder
    program.alive()
    bring(program, of_pictures([png(noise((500, 500)))]))  # what only the first one loads
    yield program
    program.stop()


def bring(program, data):
    return httpx.post(
        f"{program.url}/api/sessions/import", files={"file": ("a.zip", data)}, **LOCAL | {"timeout": 300}
    )


def stored(folder):
    """Bytes that the files take on the disk."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(f"{place}/{name}").st_blocks * 512
    return total


METRONOME = """
import sys, threading, time
ended, longest = threading.Event(), 0.0
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
while not ended.is_set():
    start = time.monotonic()
    sum(range(20_000))
    time.sleep(0.01)
    longest = max(longest, time.monotonic() - start)
print(longest)
"""
"""How long a process that has nothing to do with the server is kept waiting for a processor meanwhile."""


class Others(threading.Thread):
    """Another client that uses the server meanwhile; records the longest wait."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.done, self.longest, self.machine = url, threading.Event(), 0.0, 0.0

    def run(self):
        picture = png(noise((96, 64), 9))
        with httpx.Client(base_url=self.url, **LOCAL) as http:
            while not self.done.wait(0.02):
                for ask in (
                    lambda: http.get("/healthz"),
                    lambda: http.get("/api/sessions"),
                    lambda: http.post("/api/pictures", files={"picture": picture}),
                ):
                    start = time.monotonic()
                    assert ask().is_success
                    self.longest = max(self.longest, time.monotonic() - start)


@contextlib.contextmanager
def others(program):
    others = Others(program.url)
    pulse = subprocess.Popen(
        [sys.executable, "-c", METRONOME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    others.start()
    yield others
    others.done.set()
    others.join(60)
    others.machine = float(pulse.communicate(timeout=60)[0])


@pytest.mark.parametrize("name", ATTACKS)
def test_an_import_costs_at_most_a_multiple_of_what_was_sent(program, name):
    data = ATTACKS[name]()
    assert len(data) <= MB
    before, memory = stored(program.folder / "data"), program.memory()
    with others(program) as quiet:
        time.sleep(0.5)
    with others(program) as busy:
        answer = bring(program, data)
    grown, more = stored(program.folder / "data") - before, program.memory() - memory
    print(f"{name}: {len(data)} B, {answer.status_code}, stored {grown}, memory {more}, {busy.longest:.2f} s")
    assert answer.status_code in (201, 400), answer.text
    assert "/" not in answer.json().get("message", "") or answer.status_code == 201, answer.text
    assert grown <= STORED and more <= MEMORY
    assert busy.longest <= WAIT + 3 * (quiet.longest + busy.machine)  # a busy machine is slow for all
    if answer.status_code == 201:
        deleted = httpx.delete(f"{program.url}/api/sessions/{answer.json()['id']}", **LOCAL)
        assert deleted.status_code == 204, deleted.text


def test_forty_imports_at_once_do_not_hold_up_others(program):
    data, memory = of_pictures([flat(2500, 2500)]), program.memory()
    answers = []
    with others(program) as quiet:
        time.sleep(0.5)
    threads = [threading.Thread(target=lambda: answers.append(bring(program, data))) for _ in range(40)]
    with others(program) as busy:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    states = [answer.status_code for answer in answers]
    assert len(states) == 40 and set(states) <= {201, 429} and states.count(201) >= 4
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    assert busy.longest <= WAIT + 3 * (quiet.longest + busy.machine)
    assert program.memory() - memory <= MEMORY


def marked(picture):
    """A PNG with the place of a camera in it, and a chunk of its own."""
    text, exif = PngInfo(), Image.Exif()
    text.add_text("GPS", "52.5,13.4")
    exif[0x010F] = "camera of anna"
    file = io.BytesIO()
    picture.save(file, "PNG", pnginfo=text, exif=exif)
    return padded(file.getvalue(), 100)


def test_only_the_pixels_of_an_imported_picture_are_kept(program):
    picture = noise()
    data = marked(picture)
    made = bring(program, of_pictures([data, padded(data, 10)])).json()
    for turn in made["turns"]:
        for query in ("", "?format=png&download=true&metadata=false"):
            got = httpx.get(f"{program.url}{turn['picture']}{query}", **LOCAL).content
            assert digest(opened(got)) == digest(picture)
            assert not any(word in got for word in (b"GPS", b"anna", b"eXIf", b"prVt"))
    carried = httpx.get(f"{program.url}/api/sessions/{made['id']}/export", **LOCAL).content
    assert b"anna" not in carried and b"GPS" not in carried
    with zipfile.ZipFile(io.BytesIO(carried)) as found:
        manifest = json.loads(found.read("manifest.json"))
        for turn in manifest["turns"]:
            (name,) = turn["blobs"]["picture"]
            content = found.read(f"blobs/{name}")
            assert hashlib.sha256(content).hexdigest() == name
            assert digest(opened(content)) == turn["pixels"]
    assert bring(program, carried).status_code == 201


def test_every_kind_of_damage_stays_within_the_bounds(tmp_path):
    """Random archives: sizes, numbers of turns, padding and compression, in one process."""
    chance = random.Random(11)
    with Store(tmp_path / "data") as store:
        for _ in range(6):
            files = [
                padded(
                    png(noise((chance.choice((16, 40, 120)),) * 2, chance.randrange(99))),
                    chance.choice((0, 9, 10**5)),
                )
                for _ in range(chance.randint(1, 6))
            ]
            data = of_pictures(files, "p" * chance.choice((1, 10_000)))
            before, known = stored(tmp_path), len(store.sessions())
            try:
                session = archive.load(store, data, limits=archive.Limits.for_upload(len(data), 2**25))
                assert len(session.turns) == len(files)
            except BadRequest:
                assert len(store.sessions()) == known
                assert stored(tmp_path) - before < MB // 4  # the log of the database may grow by itself
            assert stored(tmp_path) - before <= 4 * MB + 5 * len(data)
