"""What does it cost that nothing is lost? Seals of a journal while it grows, and of an adapter.

    python tests/benchmarks/sealing.py [--replies 1000] [--long 50000] [--megabytes 200]

1. A run of 1,000 replies at 300 ms with 8 workers, its journal sealed at the real cadence (every
   ten minutes and at the end of the step), and once more every four seconds. What sealing took is
   set against what the run took; the seals run beside the requests, so this is the most they cost.
2. The same for 50,000 replies, which nobody waits for: the journal of 1. is repeated to the length
   it would have after every ten minutes at that speed, and sealed as above. A journal is copied
   whole, so this is where it costs most.
3. An adapter folder of 200 MB is sealed, and copied and summed by cp and sha256sum, on one disk, in
   turns. A seal ends when the disk has it (fsync); cp does not wait, so it is measured with `sync`
   as well. Medians. Writes results/sealing.json.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

from course_utils import REPO
from course_utils.checkpoint import MINUTES, CheckpointStore, Sealing
from course_utils.generate import generation_requests
from course_utils.llm import LLM
from course_utils.tasks import read_tasks, write_atomic

LATENCY, WORKERS = 0.3, 8


def serve() -> tuple[subprocess.Popen, str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "course_utils.offline.server", "--port", "0",
         "--latency", str(LATENCY), "--parent", str(os.getpid())],
        cwd=REPO, stdout=subprocess.PIPE, text=True)
    return server, server.stdout.readline().strip()


class Timed:
    """A store whose seals are timed, in whichever thread they run."""

    def __init__(self, store: CheckpointStore):
        self.store, self.seconds = store, []

    def seal_journals(self, step: str) -> None:
        start = time.perf_counter()
        self.store.seal_journals(step)
        self.seconds.append(time.perf_counter() - start)

    def seal(self, step: str) -> None:
        start = time.perf_counter()
        self.store.seal(step)
        self.seconds.append(time.perf_counter() - start)


def run(url: str, folder: Path, replies: int, minutes: float) -> dict:
    """Ask for so many replies, sealing as `Course.llm` has it done, and at the end."""
    store = CheckpointStore("run", folder / "drive", folder / "local")
    journal = store.local("preprocess") / "journal.jsonl"
    timed, llm = Timed(store), LLM("simulated-teacher", base_url=url, workers=WORKERS,
                                   journal=journal)  # fmt: skip
    llm.journal.watch = Sealing(timed, "preprocess", minutes)
    requests = generation_requests(read_tasks(REPO / "data/seed_tasks.jsonl"))
    start = time.perf_counter()
    count = sum(reply.text is not None for reply in llm.complete(islice(requests, replies)))
    timed.seal("preprocess")
    seconds = time.perf_counter() - start
    assert count == replies
    spent = sum(timed.seconds)
    return {"minutes": round(minutes, 3), "replies": replies, "bytes": journal.stat().st_size,
            "run_seconds": round(seconds, 2), "seals": len(timed.seconds),
            "seal_seconds": round(spent, 4), "share": round(spent / seconds, 5)}  # fmt: skip


def run_long(folder: Path, replies: int) -> dict:
    """Seal a journal that grows to so many replies as it would while they are asked for."""
    store = CheckpointStore("run", folder / "drive", folder / "long")
    lines = (folder / "local/run/preprocess/work/journal.jsonl").read_bytes().splitlines(True)
    journal, timed = store.local("evaluate") / "journal.jsonl", Timed(store)
    a_while = int(60 * MINUTES * WORKERS / LATENCY)
    for begin in range(0, replies, a_while):
        end = min(replies, begin + a_while)
        with open(journal, "ab") as file:
            file.writelines(lines[n % len(lines)] for n in range(begin, end))
        (timed.seal if end == replies else timed.seal_journals)("evaluate")
    seconds, spent = replies * LATENCY / WORKERS, sum(timed.seconds)
    return {"replies": replies, "bytes": journal.stat().st_size, "run_seconds": seconds,
            "seals": [round(s, 3) for s in timed.seconds], "share": round(spent / seconds, 5)}


def an_adapter(folder: Path, megabytes: int) -> None:
    """Fill a folder with what cannot be compressed: one large file and some small ones."""
    folder.mkdir(parents=True)
    with open(folder / "adapter_model.safetensors", "wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(10**6))
    for name in ("adapter_config.json", "result.json", "log.json"):
        (folder / name).write_bytes(os.urandom(4000))


def seconds_of(work, *arguments) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def shell(command: str) -> None:
    subprocess.run(["sh", "-ec", command], check=True, stdout=subprocess.DEVNULL)


def compare(folder: Path, megabytes: int, rounds: int) -> dict:
    store = CheckpointStore("run", folder / "drive", folder / "local")
    work = store.local("train")
    an_adapter(work / "adapter", megabytes)
    copy = folder / "copy"
    sums = f"find {copy} -type f -exec sha256sum {{}} +"
    ways = {
        "seal": lambda: store.seal("train"),
        "cp + sha256sum": lambda: shell(f"cp -r {work} {copy}; {sums}"),
        "cp + sync + sha256sum": lambda: shell(f"cp -r {work} {copy}; sync -f {copy}; {sums}"),
    }
    found = {name: [] for name in ways}
    for turn in range(rounds + 1):  # the first warms the page cache and is not counted
        names = list(ways)
        for name in names[turn % 3:] + names[: turn % 3]:
            os.sync()  # nobody pays for what another one wrote
            seconds = seconds_of(ways[name])
            if turn:
                found[name].append(seconds)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.rmtree(store.root / store.run / "train", ignore_errors=True)
    middle = {name: median(seconds) for name, seconds in found.items()}
    return {"megabytes": megabytes, "rounds": rounds, "fsync": "seal: yes, cp: no, sync: yes",
            "seconds": {name: [round(s, 3) for s in all_] for name, all_ in found.items()},
            "median": {name: round(seconds, 3) for name, seconds in middle.items()},
            "speed_against_cp": round(middle["cp + sha256sum"] / middle["seal"], 3),
            "speed_against_synced": round(middle["cp + sync + sha256sum"] / middle["seal"], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replies", type=int, default=1000)
    parser.add_argument("--long", type=int, default=50_000)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=REPO / "tests/benchmarks/results/sealing.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        adapter = compare(Path(folder), args.megabytes, args.rounds)
        server, url = serve()
        try:
            runs = [run(url, Path(folder, str(n)), args.replies, minutes)
                    for n, minutes in enumerate((MINUTES, 4 / 60))]
        finally:
            server.kill()
            server.wait()
        long = run_long(Path(folder, "0"), args.long)
    for one in runs:
        print("{replies:,} replies in {run_seconds} s, sealed every {minutes:g} min and at the end:"
              " {seals} seals took {seal_seconds} s, {share:.2%} of the run".format(**one))
    print("{replies:,} replies, {bytes:,} bytes: seals of {seals} s, {share:.2%} of the run".format(
        **long))
    print(f"{args.megabytes} MB: {adapter['median']}; a seal runs at "
          f"{adapter['speed_against_cp']:.0%} of cp's speed, "
          f"{adapter['speed_against_synced']:.0%} of that with sync")
    record = {"date": datetime.date.today().isoformat(), "cores": os.cpu_count(),
              "latency": LATENCY, "workers": WORKERS, "journal": runs, "long": long,
              "adapter": adapter}
    write_atomic(args.out, json.dumps(record, indent=1) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
