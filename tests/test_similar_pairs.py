"""The labelled pairs: their schema, that they lie near the threshold, and what was measured."""

import json
import runpy
from collections import Counter
from itertools import product
from statistics import median

import pytest

from course_utils import REPO
from course_utils.parsing import check_task
from course_utils.tasks import Task, read_jsonl

PAIRS = read_jsonl(REPO / "data" / "similar_pairs.jsonl")
LABELS = [pair["same"] for pair in PAIRS]
BENCHMARK = runpy.run_path(str(REPO / "tests" / "benchmarks" / "threshold.py"))
RESULT = json.loads((REPO / "tests/benchmarks/results/threshold.json").read_text(encoding="utf-8"))
AGAIN = "The data changed after the measurement: run tests/benchmarks/threshold.py again."


@pytest.fixture(scope="module")
def scores():
    return BENCHMARK["scores"](PAIRS)


def test_the_schema_and_that_no_pair_comes_twice():
    for number, pair in enumerate(PAIRS, 1):
        assert list(pair) == ["id", "a", "b", "same", "why"]
        assert pair["id"] == f"pair_{number:03d}"
        assert isinstance(pair["same"], bool)
        assert all(pair[key] and pair[key] == pair[key].strip() for key in ("a", "b", "why"))
        assert pair["a"] != pair["b"]
    assert len({frozenset((pair["a"], pair["b"])) for pair in PAIRS}) == len(PAIRS)


def test_both_labels_and_all_kinds_of_change_are_as_frequent():
    assert len(PAIRS) == 120 and sum(LABELS) == 60
    kinds = Counter((pair["why"], pair["same"]) for pair in PAIRS)
    assert len({why for why, _ in kinds}) == len(kinds) == 12  # a reason goes with one label
    assert set(kinds.values()) == {10}


@pytest.mark.parametrize("side", ["a", "b"])
def test_every_text_would_have_reached_the_filter(side):
    for pair in PAIRS:
        instruction, _, text = pair[side].partition("\n")
        assert check_task(Task(instruction, text, "예로 든 답입니다.")) is None, pair["id"]


def test_lengths_are_mixed():
    assert 50 <= sum("\n" in pair["a"] for pair in PAIRS) <= 80  # about half have an input
    assert sum(len(pair["a"]) > 80 for pair in PAIRS) >= 15
    assert sum(len(pair["a"]) < 30 for pair in PAIRS) >= 15


def test_scores_lie_near_the_threshold(scores):
    assert all(0.45 <= score <= 0.95 for score in scores["morphemes"])
    for tokens, values in scores.items():
        assert sum(0.55 <= score <= 0.85 for score in values) > 0.6 * len(PAIRS), tokens
        assert 0.65 < median(values) < 0.85, tokens


def test_the_intervals_are_those_of_the_data_card(scores):
    groups, kinds = BENCHMARK["by_input"](PAIRS), BENCHMARK["by_kind"](PAIRS)
    assert len(groups) == 102 and sum(len(group) for group in groups if len(group) > 1) == 31
    for tokens, threshold in product(scores, BENCHMARK["THRESHOLDS"]):
        right = [(score > threshold) == label
                 for score, label in zip(scores[tokens], LABELS, strict=True)]
        assert 0.08 < BENCHMARK["half_width"](right, groups) < 0.095
        if {"tokens": tokens, "threshold": threshold} == BENCHMARK["DEFAULT"]:
            assert round(BENCHMARK["half_width"](right, *kinds), 2) == 0.15


def test_the_saved_agreement_is_that_of_the_pairs(scores):
    rows = [BENCHMARK["agreement"](tokens, threshold, values, LABELS)
            for tokens, values in scores.items() for threshold in BENCHMARK["THRESHOLDS"]]
    assert RESULT["agreement"] == rows, AGAIN
    assert RESULT["reasons"] == BENCHMARK["reason_rows"](PAIRS, scores), AGAIN


def test_the_saved_shares_are_those_of_the_courses_tasks():
    rows = BENCHMARK["kept_rows"]("handwritten", BENCHMARK["handwritten"]())
    assert [row for row in RESULT["kept"] if row["body"] == "handwritten"] == rows, AGAIN


def test_agreement_counts_by_hand():
    row = BENCHMARK["agreement"]("words", 0.7, [0.9, 0.71, 0.7, 0.2], [True, False, True, False])
    assert (row["accuracy"], row["precision"], row["recall"], row["kappa"]) == (0.5, 0.5, 0.5, 0)
    assert row["low"] < 0.5 < row["high"]
    assert BENCHMARK["agreement"]("words", 1, [0.9, 0.2], [True, False])["precision"] is None
    assert BENCHMARK["syllables"]("지도를 보자.\n네") == ["지", "도", "를", "보", "자", ".", "네"]
