"""What is counted on replies, against counting by hand."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils.intervals import StatsError
from course_utils.replies import exact_match, repetition_rate, stop_rate


def test_exact_match_reads_the_first_line_only():
    assert exact_match("4\nand then some", "4") and exact_match("  4 ", "4")
    assert not exact_match("44", "4") and not exact_match("so\n4", "4")
    assert not exact_match("", "4") and not exact_match("\n \n", "4")


def test_stop_rate_counts_replies_that_ended():
    replies = [SimpleNamespace(stopped=stopped) for stopped in (True, False, True, True)]
    assert stop_rate(replies) == 0.75
    with pytest.raises(StatsError, match="at least one reply"):
        stop_rate([])


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("", False),
        ("네 네 네 네 네", False),  # the four words come twice: at 0 and at 1
        ("네 네 네 네 네 네", True),
        ("가 나 다 라 가 나 다 라", False),
        ("가 나 다 라 가 나 다 라 가 나 다 라", True),
        ("가 나 다 라 마 바 가  나\n다 라 바 가 나 다 라", True),  # not side by side
        ("전주는 전북에 있고 비빔밥이 유명하며 강릉은 강원도에 있고 커피가 유명합니다.", False),
    ],
)
def test_repetition_is_four_words_three_times(text, repeats):
    assert repetition_rate([text]) == float(repeats)


def test_repetition_rate_is_a_share_of_replies():
    assert repetition_rate(["가", "가 나 " * 9, "가 나 다", "나"]) == 0.25
    assert repetition_rate(["가 나 가 나 가 나"], n=2) == 1.0
    with pytest.raises(StatsError, match="at least one reply"):
        repetition_rate([])


@given(st.lists(st.sampled_from("가나다"), max_size=40))
def test_repetition_agrees_with_counting_by_hand(words):
    grams = [" ".join(words[i : i + 4]) for i in range(len(words) - 3)]
    assert repetition_rate([" ".join(words)]) == float(any(grams.count(g) >= 3 for g in grams))
