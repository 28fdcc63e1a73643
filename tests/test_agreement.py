"""Agreement of two raters, and of a judge with itself, against values that others computed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.agreement import agreement, cohen_kappa, summarize_repeats
from course_utils.intervals import StatsError, wilson_interval

LABELS = ["a", "b", "tie"]
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=2)


def test_kappa_against_a_worked_example():
    # Two raters on 50 grant proposals: yes/yes 20, yes/no 5, no/yes 10, no/no 15 -> kappa 0.4.
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)
    assert cohen_kappa(a, a) == 1
    assert cohen_kappa(["a", "b"], ["b", "a"]) == -1


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (["a"], ["a", "b"], "1 and 2"),
        ([], [], "0 and 0"),
        (["a", None], ["a", "b"], "None"),
        (["a", "a"], ["a", "a"], "undefined"),
    ],
)
def test_kappa_that_does_not_exist_is_no_number(a, b, message):
    with pytest.raises(StatsError, match=message):
        cohen_kappa(a, b)


def test_kappa_of_three_labels_against_scikit_learn():
    a = "ABACBBAAAABCBAACCBBAABAACBBAABBCCBACBCBC"
    b = "ABACACBCAABCBAACBBCAABCBCBBAACBCABACBBBC"
    # sklearn.metrics.cohen_kappa_score of scikit-learn 1.9.1
    assert cohen_kappa(a, b) == pytest.approx(0.5849056603773585, abs=1e-12)


@given(pairs)
def test_kappa_does_not_mind_who_is_first_nor_what_labels_are_called(found):
    a, b = zip(*found, strict=True)
    if len({*a, *b}) == 1:
        return
    kappa = cohen_kappa(a, b)
    assert cohen_kappa(b, a) == pytest.approx(kappa)
    assert cohen_kappa(*zip(*reversed(found), strict=True)) == pytest.approx(kappa)
    renamed = {"a": 3, "b": 1, "tie": 2}
    assert cohen_kappa([renamed[x] for x in a], [renamed[y] for y in b]) == pytest.approx(kappa)
    assert -1 <= kappa <= 1


def test_labels_of_another_set_are_named():
    with pytest.raises(StatsError, match="labels a, b, tie, but there is 'A', 'C'"):
        cohen_kappa(["A", "a", None], ["a", "C", "b"], labels=LABELS)
    assert cohen_kappa(["a", "b"], ["a", "b"], labels=LABELS) == 1


def test_excluded_pairs_are_counted_and_only_when_asked():
    judge, person = ["a", "a", "b", None, "tie"], ["a", "b", "b", "b", None]
    with pytest.raises(StatsError, match="2 of 5 pairs of labels"):
        agreement(judge, person)
    found = agreement(judge, person, allow_invalid=True)
    assert (found.n, found.excluded) == (3, 2)
    assert found.rate == pytest.approx(2 / 3) and found.wilson == wilson_interval(2, 3)
    assert found.kappa == cohen_kappa(["a", "a", "b"], ["a", "b", "b"])
    assert "kappa 0.40, on 3 labels, 2 excluded" in str(found)
    with pytest.raises(StatsError, match="no valid pairs"):
        agreement([None, "a"], ["a", None], allow_invalid=True)


def test_one_label_throughout_is_agreement_without_a_kappa():
    found = agreement(["a", "a"], ["a", "a"])
    assert (found.rate, found.kappa) == (1, None) and "kappa does not exist" in str(found)


def test_the_spread_of_a_judge_asked_again():
    found = summarize_repeats([[8, 8, 8], [5, 7, 9], [1, 2, 3]])
    assert (found.n, found.k, found.invalid) == (3, 3, 0)
    assert found.unanimous == pytest.approx(1 / 3) and found.wilson == wilson_interval(1, 3)
    assert found.deviation == pytest.approx((0 + 2 + 1) / 3)
    words = summarize_repeats([["a", "a"], ["a", "tie"], ["b", "b"], ["b", "b"]])
    assert words.unanimous == 0.75 and words.deviation is None


def test_a_repeat_that_failed_takes_its_question_out():
    rows = [[8, 8], [5, None], [2, 3]]
    with pytest.raises(StatsError, match="1 of 3 repeated questions"):
        summarize_repeats(rows)
    found = summarize_repeats(rows, allow_invalid=True)
    assert (found.n, found.invalid, found.unanimous) == (2, 1, 0.5)


@pytest.mark.parametrize("rows", [[], [[8]], [[8, 8], [8]]])
def test_rows_that_are_no_repeats(rows):
    with pytest.raises(StatsError, match="same number of verdicts"):
        summarize_repeats(rows)
