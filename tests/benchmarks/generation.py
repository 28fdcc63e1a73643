"""Generation against a simulated API that takes 300 ms a reply: how busy are the workers kept?

    python tests/benchmarks/generation.py [--latency 0.3] [--workers 8 16 32]

The whole loop runs: requests, journal, parser, rules, similarity filter, nearest neighbours. With W
workers no client can take more than W / latency replies a second; the table shows which share of
that the loop reaches, and how much faster it is than one request at a time in the same run. Whoever
else uses the processor takes part of the figure, so that is measured as well. Writes
results/generation.json.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from course_utils import REPO, korean
from course_utils.generate import generate_tasks, generation_requests
from course_utils.llm import LLM
from course_utils.tasks import read_tasks, write_atomic

THRESHOLD = 0.8  # the offline recipe's


def tasks_wanted(workers: int) -> int:
    """Tasks that take every worker about 50 replies; the more there are, the fewer are new."""
    return 400 if workers == 1 else 2000 + 220 * workers


def serve(latency: float) -> tuple[subprocess.Popen, str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "course_utils.offline.server", "--port", "0",
         "--latency", str(latency), "--parent", str(os.getpid())],
        cwd=REPO, stdout=subprocess.PIPE, text=True)
    return server, server.stdout.readline().strip()


def busy() -> float:
    """Seconds that all cores together have worked, for whomever."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq


def measure(url: str, server: psutil.Process, folder: Path, seeds, workers: int,
            latency: float) -> dict:
    """Generate with so many workers, from the first request to the file of tasks."""
    llm = LLM("simulated-teacher", base_url=url, workers=workers,
              journal=folder / f"{workers}.jsonl")
    next(llm.complete(generation_requests(seeds, seed=-1)))  # connects; the run asks for others
    start, all_busy = time.perf_counter(), busy()
    own, its = time.process_time(), sum(server.cpu_times()[:2])
    report = generate_tasks(llm, seeds, tasks_wanted(workers), out=folder / f"{workers}.tasks",
                            threshold=THRESHOLD, seed=workers, progress=False, patience=10**9)
    seconds = time.perf_counter() - start
    own, its = time.process_time() - own, sum(server.cpu_times()[:2]) - its
    rate = report.calls / seconds
    return {
        "workers": workers, "requests": report.calls, "kept": report.kept,
        "seconds": round(seconds, 2), "per_second": round(rate, 2),
        "share": round(rate / (workers / latency), 4),
        "client_cpu_ms": round(own / report.calls * 1e3, 2),
        "server_cpu_ms": round(its / report.calls * 1e3, 2),
        "others_cores": round((busy() - all_busy - own - its) / seconds, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.3)
    parser.add_argument("--workers", type=int, nargs="*", default=[8, 16, 32])
    parser.add_argument("--out", type=Path,
                        default=REPO / "tests/benchmarks/results/generation.json")
    args = parser.parse_args()

    seeds = read_tasks(REPO / "data/seed_tasks.jsonl")
    korean.tokens("형태소 분석기를 불러온다.")  # loading its model takes seconds, once
    server, url = serve(args.latency)
    try:
        with tempfile.TemporaryDirectory() as folder:
            runs = [measure(url, psutil.Process(server.pid), Path(folder), seeds, workers,
                            args.latency) for workers in (1, *args.workers)]
    finally:
        server.kill()
        server.wait()
    one = runs[0]["per_second"]
    for run in runs:
        run["times_one_at_a_time"] = round(run["per_second"] / one, 2)
    print(f"latency {args.latency:g} s, {os.cpu_count()} cores\n"
          "workers  requests  a second  of W/latency  against one  client   server   other work")
    for run in runs:
        print("{workers:7}{requests:10,}{per_second:10.1f}{share:14.1%}{times_one_at_a_time:12.1f}x"
              "{client_cpu_ms:5.1f} ms{server_cpu_ms:6.1f} ms{others_cores:7.2f} cores"
              .format(**run))
    record = {"date": datetime.date.today().isoformat(), "cores": os.cpu_count(),
              "latency": args.latency, "threshold": THRESHOLD, "runs": runs}
    write_atomic(args.out, json.dumps(record, indent=1) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
