"""The filter decides exactly what scoring every pair with rouge-score would decide."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from course_utils import REPO, CourseError
from course_utils.similarity import (
    Match,
    SimilarityFilter,
    filter_similar,
    morphemes,
    rouge_l,
)


class Spaces:
    def tokenize(self, text):
        return text.split()


SCORER = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Spaces())
# Few different tokens and short texts: ties, repeats and scores on the threshold are the rule.
texts = st.lists(st.text("abcd ", max_size=16).map(lambda text: " ".join(text)), max_size=14)
thresholds = st.sampled_from([0, 0.2, 0.5, 0.6, 2 / 3, 0.7, 0.75, 0.8, 1]) | st.floats(0, 1)


def score(a, b):
    return SCORER.score(a, b)["rougeL"].fmeasure


def nearest(kept, text):
    """(index, score) of the nearest kept text, the first of equals."""
    return max(((index, score(other, text)) for index, other in enumerate(kept)),
               key=lambda pair: (pair[1], -pair[0]), default=None)


@settings(max_examples=300, deadline=None)
@given(texts, thresholds)
def test_decisions_and_matches_equal_brute_force(texts, threshold):
    kept, dropped = [], {}
    for index, text in enumerate(texts):
        near = nearest([texts[i] for i in kept], text)
        if near and near[1] > threshold:
            dropped[index] = Match(kept[near[0]], texts[kept[near[0]]], near[1])
        else:
            kept.append(index)
    filtered = filter_similar(texts, threshold, str.split)
    assert (filtered.kept, filtered.dropped) == (kept, dropped)

    similar = SimilarityFilter(threshold, str.split)  # and one at a time, frequencies unknown
    for index, text in enumerate(texts):
        match = similar.admit(text)
        if index in dropped:
            assert match == dropped[index]._replace(index=kept.index(dropped[index].index))
        else:
            assert match is None
    assert similar.texts == [texts[index] for index in kept]


@settings(max_examples=200, deadline=None)
@given(texts, st.text("abcde ", max_size=16).map(" ".join))
def test_nearest_equals_brute_force(texts, text):
    similar = SimilarityFilter(0.7, str.split)
    for other in texts:
        similar.add(other)
    expected = nearest(texts, text)
    match = similar.nearest(text)
    assert (match and (match.index, match.score)) == expected
    half = len(texts) // 2
    match = similar.nearest(text, among=half)
    assert (match and (match.index, match.score)) == nearest(texts[:half], text)


@given(st.lists(st.sampled_from("가나다라")), st.lists(st.sampled_from("가나다라")))
def test_rouge_l_is_rouge_scores(a, b):
    assert rouge_l(a, b) == score(" ".join(a), " ".join(b))
    assert rouge_l(a, b) == rouge_l(b, a)


def test_exactly_the_threshold_is_kept():
    similar = SimilarityFilter(0.5, str.split)
    assert similar.admit("a b c d") is None
    assert similar.admit("a b x y") is None  # F1 is 0.5, and only above is dropped
    match = similar.admit("a b c z")
    assert match == Match(0, "a b c d", 0.75)
    assert len(similar) == 2


def test_asking_for_the_nearest_keeps_nothing():
    similar = SimilarityFilter(0.7, str.split)
    assert similar.nearest("a b") is None
    similar.add("a b c")
    assert similar.nearest("새 말 b") == Match(0, "a b c", pytest.approx(1 / 3))
    assert similar.nearest("새 말") == Match(0, "a b c", 0.0)
    assert similar.texts == ["a b c"]
    assert similar.admit("새 말 b") is None


def test_korean_is_seen():
    first = "다음 문장을 존댓말로 바꾸세요.\n밥 먹었어?"
    second = "다음 문장을 존댓말로 바꾸어 주세요.\n밥 먹었어?"
    other = "춘천은 어느 도에 있나요?"
    stock = rouge_scorer.RougeScorer(["rougeL"])
    assert stock.score(first, first)["rougeL"].fmeasure == 0  # Hangul is deleted: no token is left
    filtered = filter_similar([first, second, other])
    assert filtered.kept == [0, 2]
    assert filtered.dropped[1].index == 0
    similar = SimilarityFilter()
    assert [similar.admit(text) is None for text in (first, second, other)] == [True, False, True]
    assert similar.nearest(second).score == filtered.dropped[1].score


def test_morphemes_are_kiwis_forms():
    assert morphemes("지도를 보자.") == ["지도", "를", "보", "자", "."]
    assert morphemes("") == []


def test_a_threshold_that_is_none_is_refused():
    for threshold in (-0.1, 1.5, 70):
        with pytest.raises(CourseError, match="between 0 and 1"):
            SimilarityFilter(threshold)


def test_the_import_is_light():
    # CPU seconds, so that a busy machine does not fail the test.
    program = ("import sys, time; start = time.process_time()\n"
               "import course_utils.similarity\n"
               "seconds = time.process_time() - start\n"
               "heavy = {'torch', 'transformers', 'openai', 'kiwipiepy', 'numpy', 'datasets'}\n"
               "print(sorted(heavy & set(sys.modules)), seconds)")
    runs = [subprocess.run([sys.executable, "-c", program], cwd=REPO, text=True, check=True,
                           capture_output=True).stdout.rsplit(maxsplit=1) for _ in range(3)]
    assert runs[0][0] == "[]"
    assert min(float(seconds) for _, seconds in runs) < 0.3
