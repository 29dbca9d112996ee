"""What tests of several folders share."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

# No test reaches the network: missing models are requested from an address where nothing listens.
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread each for tests side by side, and for what they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def postgres():
    """The URL of a PostgreSQL that lives as long as these tests, reached by a socket in its own folder."""
    pytest.importorskip("psycopg", reason="psycopg is not installed; it connects to PostgreSQL")
    found = [shutil.which("initdb"), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    programs = next((Path(path).parent for path in found if path), None)
    if programs is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    folder = tempfile.mkdtemp(prefix="kontext-postgres-")
    owner = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        try:
            shutil.chown(folder, "postgres", "postgres")
        except LookupError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        owner = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def call(*command):
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=60, **owner)

    data = f"{folder}/data"
    call(
        programs / "initdb",
        "-D",
        data,
        "-U",
        "kontext",
        "-A",
        "trust",
        "--no-locale",
        "-E",
        "UTF8",
        "--no-sync",
    )
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    call(programs / "pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")
    yield f"postgresql://kontext@/postgres?host={folder}"
    call(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    shutil.rmtree(folder)
