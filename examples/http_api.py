"""Edit a picture by HTTP, next to `kontext serve`: `python http_api.py KID.png [http://localhost:8000]`."""

import sys
import time
from pathlib import Path

import httpx


def main(picture: Path, server: str) -> None:
    with httpx.Client(base_url=server, timeout=60, trust_env=False) as http:
        answer = http.post("/api/sessions", files={"picture": picture.open("rb")}).raise_for_status()
        session = answer.json()["id"]
        body = {"prompt": "Make the hair blue", "count": 2, "seed": 1}
        jobs = http.post(f"/api/sessions/{session}/edits", json=body).raise_for_status().json()["jobs"]
        for job in jobs:
            while job["state"] in ("queued", "running"):
                time.sleep(0.1)
                job = http.get(f"/api/jobs/{job['id']}").raise_for_status().json()
            print(f"seed {job['seed']}: {job['state']}")
            if job["state"] == "done":
                edited = http.get(f"/api/sessions/{session}/turns/{job['id']}/picture").raise_for_status()
                picture.with_name(f"blue-{job['seed']}.png").write_bytes(edited.content)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "http://localhost:8000")
