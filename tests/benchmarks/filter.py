"""The similarity filter against Alpaca's loop, and its growth from 10,000 to 50,000 texts.

    python tests/benchmarks/filter.py [--texts questions.txt]

Everything is measured in one run, on morphemes with the threshold 0.7. Alpaca scores each new text
with rouge-score against everything kept so far; its loop is written here again, in one process and,
for the last texts only because it is slow, with a fresh pool of 16 processes a text. The filter's
times are medians, and without tokenising unless the row says so; ratios and the growth exponent
are of CPU time, which other programs on the machine disturb less. Writes results/filter.json.

Without --texts the texts are spliced at word boundaries from the Korean sentences of this
repository: half are edits of an earlier text, so that about as many are kept as of real questions
(55 % of 10,243), and frequencies are Zipf-like. With --texts FILE (one text a line) they are the
lines of that file and, if it has fewer than 50,000, splices of them.
"""

import argparse
import datetime
import json
import math
import multiprocessing
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from rouge_score.rouge_scorer import _score_lcs

from course_utils import REPO, korean
from course_utils.similarity import SimilarityFilter, filter_similar
from course_utils.tasks import write_atomic

THRESHOLD = 0.7
FIRST, POOLED, SIZES = 1500, 50, (10_000, 50_000)
EDITED = 0.6  # the share of edits of earlier texts


def sentences() -> list[str]:
    """The Korean sentences in the seeds, the evaluation tasks and the simulated world's lists."""
    paths = [*sorted((REPO / "data").glob("*_tasks.jsonl")),
             *sorted((REPO / "course_utils/offline").glob("*.yaml"))]
    content = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    pieces = re.split(r'\\n|[\n"{}\[\]#:]|(?<=[.?!]) ', content)
    found = dict.fromkeys(piece.strip("-*,' ") for piece in pieces)
    return [text for text in found
            if 2 < len(text.split()) < 14 and korean.hangul_share(text) > 0.5]


def texts_from(lines: list[str], n: int, whole: bool) -> list[str]:
    """Splices of the lines at word boundaries, always the same; after the whole lines if asked."""
    rng = random.Random(0)
    sources = [line.split() for line in lines if line.split()]
    texts = sources[:n] if whole else []
    rng.shuffle(sources)
    weights = list(accumulate((rank + 10) ** -0.7 for rank in range(len(sources))))

    def piece(longest: int) -> list[str]:
        [source] = rng.choices(sources, cum_weights=weights)
        start = rng.randrange(len(source))
        return source[start:start + longest]

    while len(texts) < n:
        if texts and rng.random() < EDITED:
            words = list(rng.choice(texts))
            for _ in range(rng.randint(0, 3)):
                start = rng.randrange(len(words) + 1)
                words[start:start + rng.randint(0, 2)] = piece(rng.randint(0, 2))
        else:
            length, words = len(rng.choice(sources)), []
            while len(words) < length:
                words += piece(rng.randint(2, 5))[:length - len(words)]
        texts.append(words or piece(3))
    return [" ".join(words) for words in texts]


def alpaca(rows: list[list[str]], kept: list[int], start: int, pooled: bool) -> tuple[list, dict]:
    """Alpaca's loop from rows[start] on: kept indexes, and for a dropped one (nearest kept, F1)."""
    kept, dropped = list(kept), {}
    for index in range(start, len(rows)):
        others = [rows[i] for i in kept]
        if pooled:
            with multiprocessing.get_context("fork").Pool(16) as pool:
                found = pool.map(partial(_score_lcs, rows[index]), others)
        else:
            found = [_score_lcs(rows[index], other) for other in others]
        scores = [score.fmeasure for score in found]
        best = max(scores, default=0.0)
        if best > THRESHOLD:
            dropped[index] = kept[scores.index(best)], best
        else:
            kept.append(index)
    return kept, dropped


def measure(function: Callable, times: int = 1) -> tuple[Any, dict[str, float]]:
    """The result, and the medians of wall and CPU seconds, those of child processes included."""
    runs = []
    for _ in range(times):
        start, cpu = time.perf_counter(), _cpu_seconds()
        result = function()
        runs.append((time.perf_counter() - start, _cpu_seconds() - cpu))
    wall, cpu = map(statistics.median, zip(*runs, strict=True))
    return result, {"wall": round(wall, 4), "cpu": round(cpu, 4)}


def compare(tokens: dict[str, list[str]], texts: list[str]) -> dict:
    """The filter against the loop, and a pool on the last texts; raises if a decision differs."""
    rows = [tokens[text] for text in texts]
    (kept, dropped), loop = measure(partial(alpaca, rows, [], 0, False))
    ours, fast = measure(partial(filter_similar, texts, THRESHOLD, tokens.__getitem__), 15)
    found = {index: (match.index, match.score) for index, match in ours.dropped.items()}
    if (ours.kept, found) != (kept, dropped):
        raise SystemExit("The filter and Alpaca's loop decide differently.")
    start = len(texts) - POOLED
    before = [index for index in kept if index < start]
    (again, _), pool = measure(partial(alpaca, rows, before, start, True))
    if again != kept:
        raise SystemExit("Alpaca's loop decides differently with a pool.")
    return {"texts": len(texts), "kept": len(kept), "filter": fast, "loop": loop, "pool": pool,
            "pool_texts": POOLED, "times_faster": round(loop["cpu"] / fast["cpu"]),
            "pool_times_faster": round(pool["cpu"] / POOLED / fast["cpu"] * len(texts))}


def grow(texts: list[str], tokens: dict[str, list[str]]) -> dict:
    """Time, kept texts, pairs and scored pairs at each size, the growth exponent, and nearest()."""
    record: dict = {}
    for n in SIZES:
        run = partial(filter_similar, texts[:n], THRESHOLD, tokens.__getitem__)
        filtered, seconds = measure(run, 5)
        kept = set(filtered.kept)
        record[str(n)] = {**seconds, "kept": len(kept),
                          "pairs": sum(accumulate(index in kept for index in range(n - 1))),
                          "scored": filtered.scored}
    small, large = (record[str(n)]["cpu"] for n in SIZES)
    record["exponent"] = round(math.log(large / small) / math.log(SIZES[1] / SIZES[0]), 2)

    similar = SimilarityFilter(THRESHOLD, tokens.__getitem__)

    def nearest_of_each() -> None:
        for index in filtered.kept:
            similar.nearest(texts[index])
            similar.add(texts[index])

    record["nearest"] = {**measure(nearest_of_each)[1], "texts": len(filtered.kept)}
    return record


def fresh(measurement: str, texts: list[str], tokens: dict[str, list[str]]) -> dict:
    """What a new process of this script measures: "compare", "filter" or "tokenise and filter"."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        lines = (json.dumps([text, tokens.get(text)]) + "\n" for text in texts)
        path.write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, __file__, "--child", measurement, str(path)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def child(measurement: str, path: str) -> dict:
    with open(path, encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    texts = [text for text, _ in pairs]
    tokens = {text: row for text, row in pairs if row is not None}
    if measurement == "compare":
        return compare(tokens, texts)
    before = _memory("VmRSS")
    how = [tokens.__getitem__] if measurement == "filter" else []
    _, seconds = measure(partial(filter_similar, texts, THRESHOLD, *how))
    peak = _memory("VmHWM")
    return {**seconds, "grown_mb": round(peak - before), "peak_mb": round(peak)}


def table(record: dict) -> str:
    """The record as lines of a table."""
    lines = [f"{'':48}{'wall s':>10}{'CPU s':>10}"]

    def row(name: str, seconds: dict, more: str = "") -> None:
        lines.append(f"{name:48}{seconds['wall']:>10.3f}{seconds['cpu']:>10.3f}   {more}".rstrip())

    part = record["compare"]
    row(f"Alpaca's loop, one process, {part['texts']:,}", part["loop"])
    row(f"the filter, the same {part['texts']:,}", part["filter"],
        f"{part['times_faster']:,} times faster, same decisions, {part['kept']:,} kept")
    row(f"Alpaca's loop, a pool of 16 a text, the last {part['pool_texts']}", part["pool"],
        f"the filter needs 1/{part['pool_times_faster']:,} of it a text")
    for n in SIZES:
        part = record[str(n)]
        row(f"the filter, {n:,}", part, f"{part['kept'] / n:.1%} kept; of {part['pairs']:,} pairs "
                                        f"{part['scored']:,} scored")
    row(f"nearest() of each of {record['nearest']['texts']:,} kept", record["nearest"])
    row(f"tokenising and filtering {SIZES[1]:,}", record["fresh"],
        f"peak memory {record['fresh']['peak_mb']:,} MB; "
        f"the filter alone adds {record['memory']['grown_mb']:,} MB")
    lines.append(f"growth exponent from {SIZES[0]:,} to {SIZES[1]:,}: {record['exponent']}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, help="a file with one text a line")
    parser.add_argument("--out", type=Path, default=REPO / "tests/benchmarks/results/filter.json")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return print(json.dumps(child(*args.child)))

    lines = args.texts.read_text(encoding="utf-8").splitlines() if args.texts else sentences()
    texts = texts_from(lines, SIZES[1], whole=bool(args.texts))
    rows = korean.forms(texts)
    tokens = dict(zip(texts, rows, strict=True))
    record = {"date": datetime.date.today().isoformat(), "cores": os.cpu_count(),
              "python": platform.python_version(), "threshold": THRESHOLD,
              "texts": len(texts), "lines": len(lines),
              "tokens": round(statistics.mean(map(len, rows)), 2)}
    print(f"{len(texts):,} texts of {record['tokens']} morphemes, made from {len(lines):,} lines")
    record |= {"compare": fresh("compare", texts[:FIRST], tokens), **grow(texts, tokens),
               "memory": fresh("filter", texts, tokens),
               "fresh": fresh("tokenise and filter", texts, {})}
    write_atomic(args.out, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    print(table(record))
    print(f"written to {args.out}")


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _memory(field: str) -> float:
    """A field of this process's status, in megabytes: VmRSS now, VmHWM at its highest."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1]) / 1024


if __name__ == "__main__":
    main()
