"""Which tokens and which threshold: what the similarity filter keeps, and whether it is right.

    python tests/benchmarks/threshold.py [--candidates 2000]

Words, morphemes and syllables, at 0.5 to 0.9. First the share of a body of tasks that the filter
keeps: candidates of the simulated teacher that passed the rules, and the tasks that people wrote
for this course, which stand apart by construction. Then its agreement with the pairs that
data/similar_pairs.jsonl labels as the same task or not. Those pairs lie near the threshold and are
half of each label, ten of each kind of change: accuracy on them compares thresholds, and is not
the accuracy on what a teacher writes. Writes results/threshold.json, in flat rows for plotting.
"""

import argparse
import datetime
import json
import random
from pathlib import Path

import numpy as np

from course_utils import REPO
from course_utils.generate import generation_requests, question_text
from course_utils.offline.simulated import Imperfections, teach
from course_utils.parsing import parse_generation
from course_utils.similarity import filter_similar, morphemes, rouge_l
from course_utils.stats import cohen_kappa, sign_test, wilson_interval
from course_utils.tasks import read_jsonl, read_tasks, write_atomic


def syllables(text: str) -> list[str]:
    """The characters of a text without its white space: a space is no syllable."""
    return list("".join(text.split()))


TOKENS = {"words": str.split, "morphemes": morphemes, "syllables": syllables}
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
DEFAULT = {"tokens": "morphemes", "threshold": 0.7}


def candidates(n: int) -> list[str]:
    """What n tasks of the simulated teacher that passed the rules ask, its repetitions included."""
    texts: list[str] = []
    seeds = read_tasks(REPO / "data" / "seed_tasks.jsonl")
    for index, request in enumerate(generation_requests(seeds)):
        prompt = request.messages[0]["content"]
        text, finish_reason = teach(prompt, random.Random(index), Imperfections())
        parsed = parse_generation(text, first_number=4, finish_reason=finish_reason)
        texts += map(question_text, parsed.tasks)
        if len(texts) >= n:
            return texts[:n]


def handwritten() -> list[str]:
    """What the course's own tasks ask: the seeds and the evaluation tasks."""
    files = sorted((REPO / "data").glob("*_tasks.jsonl"))
    return [question_text(task) for file in files for task in read_tasks(file)]


def kept_rows(body: str, texts: list[str]) -> list[dict]:
    """For all tokens and thresholds, how many of the texts the filter keeps."""
    rows = []
    for tokens, tokenize in TOKENS.items():
        tokenized = {text: tokenize(text) for text in texts}
        for threshold in THRESHOLDS:
            kept = len(filter_similar(texts, threshold, tokenized.__getitem__).kept)
            rows.append({"body": body, "tokens": tokens, "threshold": threshold,
                         "texts": len(texts), "kept": kept, "share": kept / len(texts)})
    return rows


def scores(pairs: list[dict]) -> dict[str, list[float]]:
    """The ROUGE-L of every pair, by tokens."""
    return {name: [rouge_l(tokenize(pair["a"]), tokenize(pair["b"])) for pair in pairs]
            for name, tokenize in TOKENS.items()}


def agreement(tokens: str, threshold: float, values: list[float], labels: list[bool]) -> dict:
    """How the filter's decision, "same" where the score is above the threshold, fits the labels."""
    same = [value > threshold for value in values]
    right = sum(x == y for x, y in zip(same, labels, strict=True))
    both = sum(x and y for x, y in zip(same, labels, strict=True))
    low, high = wilson_interval(right, len(labels))
    return {"tokens": tokens, "threshold": threshold, "pairs": len(labels),
            "accuracy": right / len(labels), "low": low, "high": high,
            "kappa": cohen_kappa(same, labels),
            "precision": both / sum(same) if any(same) else None, "recall": both / sum(labels)}


def best_row(rows: list[dict], by_tokens: dict[str, list[float]], labels: list[bool]) -> dict:
    """The most accurate of one kind of tokens' rows, against the default on the same pairs.

    auc: how often a same pair has a higher score than one that is not, ties half; 0.5 is chance.
    p: exact sign test on the pairs that only one of the two decides rightly.
    """
    best = max(rows, key=lambda row: row["accuracy"])

    def right(tokens, threshold):
        return [(value > threshold) == label
                for value, label in zip(by_tokens[tokens], labels, strict=True)]

    judged = list(zip(right(best["tokens"], best["threshold"]), right(**DEFAULT), strict=True))
    wins, losses = judged.count((True, False)), judged.count((False, True))
    values = list(zip(by_tokens[best["tokens"]], labels, strict=True))
    above = [(x > y) + (x == y) / 2 for x, a in values if a for y, b in values if not b]
    return {**{name: best[name] for name in ("tokens", "threshold", "accuracy", "low", "high")},
            "auc": sum(above) / len(above), "only_this_right": wins, "only_default_right": losses,
            "p": sign_test(wins, losses)}


def by_input(pairs: list[dict]) -> list[list[int]]:
    """The indices of the pairs, those together that share an input text with one another."""
    groups: list[tuple[set[str], list[int]]] = []
    for index, pair in enumerate(pairs):
        texts, indices = {pair[side].partition("\n")[2] for side in "ab"} - {""}, [index]
        apart = []
        for group in groups:
            if texts & group[0]:
                texts, indices = texts | group[0], group[1] + indices
            else:
                apart.append(group)
        groups = [*apart, (texts, indices)]
    return [indices for _, indices in groups]


def by_kind(pairs: list[dict]) -> list[list[list[int]]]:
    """For either label, the indices of the pairs by kind of change."""
    kinds: dict[tuple[bool, str], list[int]] = {}
    for index, pair in enumerate(pairs):
        kinds.setdefault((pair["same"], pair["why"]), []).append(index)
    return [[kind for (label, _), kind in kinds.items() if label is same] for same in (True, False)]


def half_width(right: list[bool], *strata: list[list[int]]) -> float:
    """Half the 95% interval of an accuracy: a bootstrap that draws whole groups, in each stratum.

    Pairs of one text, or one kind of change, are decided alike or opposite, so `agreement`'s
    interval, which takes them for independent, need not be that of other texts or other kinds.
    """
    rng, drawn = np.random.default_rng(0), 0  # drawn: in each of 10,000 draws, how many right, all
    for groups in strata:
        counts = np.array([(sum(right[index] for index in group), len(group)) for group in groups])
        drawn = drawn + counts[rng.integers(0, len(groups), (10_000, len(groups)))].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return (high - low) / 2


def reason_rows(pairs: list[dict], by_tokens: dict[str, list[float]]) -> list[dict]:
    """For every kind of change, how many of its pairs the filter would take for the same task."""
    rows = []
    for same, why in sorted({(pair["same"], pair["why"]) for pair in pairs}, reverse=True):
        chosen = [index for index, pair in enumerate(pairs) if pair["why"] == why]
        rows += [{"why": why, "same": same, "tokens": tokens, "threshold": threshold,
                  "pairs": len(chosen), "above": sum(values[i] > threshold for i in chosen)}
                 for tokens, values in by_tokens.items() for threshold in THRESHOLDS]
    return rows


def measure(n: int) -> dict:
    """The whole record, as it is saved."""
    pairs = read_jsonl(REPO / "data" / "similar_pairs.jsonl")
    labels = [pair["same"] for pair in pairs]
    by_tokens = scores(pairs)
    rows = {tokens: [agreement(tokens, threshold, values, labels) for threshold in THRESHOLDS]
            for tokens, values in by_tokens.items()}
    return {"date": datetime.date.today().isoformat(), "default": DEFAULT,
            "kept": kept_rows("simulated", candidates(n)) + kept_rows("handwritten", handwritten()),
            "agreement": [row for group in rows.values() for row in group],
            "best": [best_row(group, by_tokens, labels) for group in rows.values()],
            "reasons": reason_rows(pairs, by_tokens)}


def show(record: dict) -> None:
    """Print the record as tables."""
    for body in ("simulated", "handwritten"):
        rows = [row for row in record["kept"] if row["body"] == body]
        print(f"\nkept of {rows[0]['texts']:,} {body} tasks")
        print(f"{'':12}" + "".join(f"{threshold:8}" for threshold in THRESHOLDS))
        for tokens in TOKENS:
            shares = [row["share"] for row in rows if row["tokens"] == tokens]
            print(f"{tokens:12}" + "".join(f"{share:8.1%}" for share in shares))
    print(f"\nagreement with {record['agreement'][0]['pairs']} labelled pairs\n"
          f"{'':12}{'above':>6} accuracy (95% interval)  kappa  precision  recall")
    for row in record["agreement"]:
        precision = "-" if row["precision"] is None else f"{row['precision']:.1%}"
        print(f"{row['tokens']:12}{row['threshold']:6} {row['accuracy']:8.1%} "
              f"({row['low']:5.1%} to {row['high']:5.1%}) {row['kappa']:6.2f} {precision:>10} "
              f"{row['recall']:7.1%}")
    print("\nbest of each, against the default")
    for row in record["best"]:
        print("{tokens:12}{threshold:6} accuracy {accuracy:.1%}, AUC {auc:.2f}; right alone "
              "{only_this_right}, default right alone {only_default_right}, p = {p:.2f}"
              .format(**row))
    print("\npairs of each kind above the default threshold")
    for row in record["reasons"]:
        if {name: row[name] for name in DEFAULT} == DEFAULT:
            label = "same" if row["same"] else "not the same"
            print(f"{row['above']:3} of {row['pairs']}  {label:13} {row['why']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=2000)
    out = REPO / "tests/benchmarks/results/threshold.json"
    parser.add_argument("--out", type=Path, default=out)
    args = parser.parse_args()
    record = measure(args.candidates)
    show(record)
    write_atomic(args.out, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
