"""The filter decides exactly what scoring every pair with rouge-score would decide."""

import random
import subprocess
import sys
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import process
from rouge_score import rouge_scorer

from course_utils import REPO, CourseError
from course_utils.similarity import Match, SimilarityFilter, filter_similar, morphemes, rouge_l
from course_utils.tasks import read_jsonl


class Spaces:
    def tokenize(self, text):
        return text.split()


SCORER = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Spaces())
# Few different tokens: ties, repeats and scores on the threshold are the rule. Most texts are
# short, none or one token among them; the long ones mix texts of very different lengths.
short = st.text("abcd ", max_size=16)
long = st.builds(lambda part, times, end: part * times + end,
                 st.text("abcdefgh", max_size=9), st.integers(1, 9), st.text("abz", max_size=5))
text = st.one_of(short, short, long).map(" ".join)
texts = st.lists(text, max_size=14)
thresholds = (st.sampled_from([0, 0.2, 0.5, 0.6, 2 / 3, 0.7, 0.75, 0.8, 1, 1.0 - 2**-53])
              | st.floats(0, 1))


def score(a, b):
    return SCORER.score(a, b)["rougeL"].fmeasure


def nearest(kept, text):
    """(index, score) of the nearest kept text, the first of equals."""
    return max(((index, score(other, text)) for index, other in enumerate(kept)),
               key=lambda pair: (pair[1], -pair[0]), default=None)


def brute_force(texts, threshold, score):
    """(kept, dropped) as `filter_similar` gives them, by scoring every pair."""
    kept, dropped = [], {}
    for index, text in enumerate(texts):
        best, other = max(((score(texts[i], text), -i) for i in kept), default=(-1, 0))
        if best > threshold:
            dropped[index] = Match(-other, texts[-other], best)
        else:
            kept.append(index)
    return kept, dropped


@settings(max_examples=300, deadline=None)
@given(texts, thresholds)
def test_decisions_and_matches_equal_brute_force(texts, threshold):
    filtered = filter_similar(texts, threshold, str.split)
    assert (filtered.kept, filtered.dropped) == brute_force(texts, threshold, score)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["admit", "admit", "add", "nearest", "among"]), text),
                max_size=20), thresholds)
def test_any_order_of_calls_equals_brute_force(calls, threshold):
    similar, kept = SimilarityFilter(threshold, str.split), []
    for call, text in calls:
        among = len(kept) // 2 if call == "among" else len(kept)
        near = nearest(kept[:among], text)
        expected = near and Match(near[0], kept[near[0]], near[1])
        if call == "nearest":
            assert similar.nearest(text) == expected
        elif call == "among":
            assert similar.nearest(text, among=among) == expected
        elif call == "add":
            similar.add(text)
            kept.append(text)
        elif near and near[1] > threshold:
            assert similar.admit(text) == expected
        else:
            assert similar.admit(text) is None
            kept.append(text)
        assert (similar.texts, len(similar)) == (kept, len(kept))


def test_long_texts_equal_brute_force():
    rng = random.Random(0)
    words = [f"w{int(rng.paretovariate(0.6))}" for _ in range(12_000)]
    texts = [" ".join(words[start:start + 2000]) for start in range(0, 10_000, 700)]
    texts += [" ".join(rng.choices(words, k=length)) for length in (1, 3, 40, 500, 2000)]
    for first, second in pairwise(list(texts)):  # half of one and half of the other
        texts.append(" ".join(first.split()[:1000] + second.split()[1000:]))
    for threshold in (0.3, 0.7):
        filtered = filter_similar(texts, threshold, str.split)
        assert (filtered.kept, filtered.dropped) == brute_force(
            texts, threshold, lambda a, b: rouge_l(a.split(), b.split()))
        assert len(filtered.kept) > 3 < len(filtered.dropped)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_real_korean_equals_brute_force(threshold):
    texts = [row["instruction"] for row in read_jsonl(REPO / "data/seed_tasks.jsonl")[:40]]
    texts += [f"{text} 세 문장으로 짧게 써 주세요." for text in texts[::2]]
    kept, _ = brute_force([" ".join(morphemes(text)) for text in texts], threshold, score)
    assert filter_similar(texts, threshold).kept == kept
    similar = SimilarityFilter(threshold)
    assert [i for i, text in enumerate(texts) if similar.admit(text) is None] == kept
    assert len(kept) < len(texts)


def test_only_what_the_bound_allows_is_scored():
    rng = random.Random(0)
    words = [f"w{int(3000 ** rng.random())}" for _ in range(30_000)]  # Zipf: the first has 9 %
    texts = [" ".join(words[start:start + 15]) for start in range(0, 30_000, 15)]
    similar = SimilarityFilter(0.7, str.split)
    with patch.object(process, "extract_iter", wraps=process.extract_iter) as extract:
        assert sum(similar.admit(text) is None for text in texts) > 1900
        assert similar.scored < 20  # of two million pairs
        for text in texts[::100]:
            similar.nearest(f"{text} w0")
    assert similar.scored == sum(len(call.args[1]) for call in extract.call_args_list)
    assert similar.scored < 20 * 2000 / 10
    assert filter_similar(texts, 0.7, str.split).scored < 20


@given(st.lists(st.sampled_from("가나다라")), st.lists(st.sampled_from("가나다라")))
def test_rouge_l_is_rouge_scores(a, b):
    assert rouge_l(a, b) == score(" ".join(a), " ".join(b))
    assert rouge_l(a, b) == rouge_l(b, a)


def test_exactly_the_threshold_is_kept_and_asking_for_the_nearest_keeps_nothing():
    similar = SimilarityFilter(0.5, str.split)
    assert similar.nearest("a b") is None
    assert similar.admit("a b c d") is None
    assert similar.admit("a b x y") is None  # F1 is 0.5, and only above is dropped
    assert similar.admit("a b c z") == similar.nearest("a b c z") == Match(0, "a b c d", 0.75)
    assert similar.nearest("새 말") == Match(0, "a b c d", 0.0)
    assert similar.texts == ["a b c d", "a b x y"]
    assert similar.admit("새 말 b") is None


def test_korean_is_seen():
    first = "다음 문장을 존댓말로 바꾸세요.\n밥 먹었어?"
    second = "다음 문장을 존댓말로 바꾸어 주세요.\n밥 먹었어?"
    other = "춘천은 어느 도에 있나요?"
    stock = rouge_scorer.RougeScorer(["rougeL"])
    assert stock.score(first, first)["rougeL"].fmeasure == 0  # Hangul is deleted: no token is left
    filtered, similar = filter_similar([first, second, other]), SimilarityFilter()
    assert (filtered.kept, filtered.dropped[1].index) == ([0, 2], 0)
    assert [similar.admit(text) for text in (first, second, other)] == [
        None, filtered.dropped[1], None]
    assert morphemes("지도를 보자.") == ["지도", "를", "보", "자", "."] and morphemes("") == []


def test_a_threshold_that_is_none_is_refused():
    for threshold in (-0.1, 1.5, 70):
        with pytest.raises(CourseError, match="between 0 and 1"):
            SimilarityFilter(threshold)


def test_the_analyser_and_other_heavy_things_are_not_loaded_before_they_are_needed():
    program = """import sys
from course_utils import parsing, similarity, tasks
assert parsing.check_task(tasks.Task("춘천은 어느 도에 있나요?", "", "강원")) is None
print({"torch", "transformers", "openai", "kiwipiepy", "numpy", "datasets"} & {*sys.modules})"""
    said = subprocess.run([sys.executable, "-c", program], cwd=REPO, text=True, check=True,
                          capture_output=True).stdout
    assert said == "set()\n"
