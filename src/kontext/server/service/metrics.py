"""Metrics of the running service in the Prometheus text format (version 0.0.4)."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, defaultdict

from kontext.server.service.service import Service

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """Request counts by route and status, and histograms of the time to the first byte."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS) + 1))
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        self.requests[method, route, status] += 1
        self.buckets[route][bisect_left(BOUNDS, seconds)] += 1
        self.seconds[route] += seconds


async def metrics_text(metrics: Metrics, service: Service) -> str:
    lines = ["# TYPE kontext_requests_total counter"]
    for (method, route, status), count in sorted(metrics.requests.items()):
        lines.append(f'kontext_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}')
    lines.append("# TYPE kontext_request_seconds histogram")
    for route, buckets in sorted(metrics.buckets.items()):
        total = 0
        for bound, count in zip((*BOUNDS, "+Inf"), buckets):
            total += count
            lines.append(f'kontext_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}')
        lines.append(f'kontext_request_seconds_sum{{route="{route}"}} {metrics.seconds[route]:.6f}')
        lines.append(f'kontext_request_seconds_count{{route="{route}"}} {total}')
    lines.append("# TYPE kontext_jobs gauge")
    for state, count in sorted((await asyncio.to_thread(service.queue.count)).items()):
        lines.append(f'kontext_jobs{{state="{state}"}} {count}')
    lines.append("# TYPE kontext_jobs_ended_total counter")
    lines += [
        f'kontext_jobs_ended_total{{state="{state}"}} {count}'
        for state, count in sorted(service.results.ended.items())
    ]
    lines += [
        "# TYPE kontext_workers_alive gauge",
        f"kontext_workers_alive {sum(worker.alive for worker in service.workers)}",
        "# TYPE kontext_worker_busy_seconds_total counter",
        f"kontext_worker_busy_seconds_total {service.scheduler.busy_seconds:.3f}",
        "# TYPE kontext_ready gauge",
        f"kontext_ready {int(service.ready)}",
    ]
    return "\n".join(lines) + "\n"
