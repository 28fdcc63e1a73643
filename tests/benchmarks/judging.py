"""Judging against a simulated API that takes 300 ms a reply: how busy are the workers kept?

    python tests/benchmarks/judging.py [--latency 0.3] [--battles 400] [--workers 8 16]

Each question is judged in both orders, through prompts, journal and the reading of verdicts. With W
workers no client can take more than W / latency replies a second; the table shows which share of
that is reached (the first judgment is asked alone, to find out what the server keeps to, and counts
in full), and how much faster it is than one request at a time, measured on fewer battles in the
same run. Then everything is judged again, which must ask for nothing. Writes results/judging.json.
"""

import argparse
import datetime
import json
import os
import tempfile
import time
from pathlib import Path

import psutil
from generation import busy, serve

from course_utils import REPO
from course_utils.judge import Item, Judge
from course_utils.llm import LLM
from course_utils.offline import world
from course_utils.stats import summarize_battle
from course_utils.tasks import write_atomic


def items(n: int, seed: int) -> list[Item]:
    """Questions whose two answers differ: one right in three of four, the other in one of four."""
    return [
        Item(f"q{i}", task.instruction + (task.input and "\n\n" + task.input),
             a=task.output if i % 4 else f"{i}번은 모릅니다.",
             b=f"{i}번은 모릅니다." if i % 4 else task.output)
        for i, task in enumerate(world.sample_tasks(n, split="heldout", seed=seed))
    ]  # fmt: skip


def measure(url: str, server: psutil.Process, folder: Path, battles: int, workers: int,
            latency: float) -> dict:
    """Judge so many battles, from plan to summary; then once more, as after a restart."""
    path = folder / f"{workers}.jsonl"
    llm = LLM("simulated-judge", base_url=url, workers=workers, journal=path)
    warm = Item("warm", "연결", a="1", b="2")
    Judge(llm, progress=False).battle([warm])  # connects
    asked = items(battles, seed=workers)
    judge = Judge(llm, progress=False)
    start, all_busy = time.perf_counter(), busy()
    own, its = time.process_time(), sum(server.cpu_times()[:2])
    summary = summarize_battle(judge.battle(asked))
    seconds = time.perf_counter() - start
    own, its = time.process_time() - own, sum(server.cpu_times()[:2]) - its
    all_busy = busy() - all_busy
    calls = len(llm.journal) - 2

    llm.journal.close()
    again = LLM("simulated-judge", base_url=url, workers=workers, journal=path)
    start = time.perf_counter()
    rerun = summarize_battle(Judge(again, progress=False).battle(asked))
    rerun_seconds = time.perf_counter() - start
    assert rerun == summary
    rate = calls / seconds
    return {
        "workers": workers, "battles": battles, "calls": calls, "seconds": round(seconds, 2),
        "per_second": round(rate, 2), "share": round(rate / (workers / latency), 4),
        "client_cpu_ms": round(own / calls * 1e3, 2), "server_cpu_ms": round(its / calls * 1e3, 2),
        "others_cores": round((all_busy - own - its) / seconds, 2),
        "rerun_calls": len(again.journal) - 2 - calls, "rerun_seconds": round(rerun_seconds, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.3)
    parser.add_argument("--battles", type=int, default=400)
    parser.add_argument("--workers", type=int, nargs="*", default=[8, 16])
    parser.add_argument("--out", type=Path, default=REPO / "tests/benchmarks/results/judging.json")
    args = parser.parse_args()

    load = os.getloadavg()[0]
    server, url = serve(args.latency)
    try:
        with tempfile.TemporaryDirectory() as folder:
            runs = [measure(url, psutil.Process(server.pid), Path(folder), battles, workers,
                            args.latency)
                    for workers, battles in [(1, max(1, args.battles // 20)),
                                             *((w, args.battles) for w in args.workers)]]
    finally:
        server.kill()
        server.wait()
    one = runs[0]["per_second"]
    for run in runs:
        run["times_one_at_a_time"] = round(run["per_second"] / one, 2)
    print(f"latency {args.latency:g} s, {os.cpu_count()} cores, load {load:.1f} at the start\n"
          "workers     calls  a second  of W/latency  against one  other work   rerun")
    for run in runs:
        print("{workers:7}{calls:10,}{per_second:10.1f}{share:14.1%}{times_one_at_a_time:12.1f}x"
              "{others_cores:7.2f} cores{rerun_calls:3} calls in {rerun_seconds:.2f} s"
              .format(**run))
    record = {"date": datetime.date.today().isoformat(), "cores": os.cpu_count(),
              "load_at_start": round(load, 2), "latency": args.latency, "runs": runs}
    write_atomic(args.out, json.dumps(record, indent=1) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
