"""The check of an exercise: what it says to whoever is wrong, and that it never raises."""

import time

import pytest

from course_utils.practice import checks as practice
from course_utils.practice.cases import Case, Hint
from course_utils.practice.checks import check, examine, same, show

HINT = Hint("두 배로 해 보세요.", "Double it.")


DOUBLE = [*(Case((number,), 2 * number, HINT) for number in (0, 2, 3)),
          Case(([1, 2],), [2, 4], HINT), Case((0.1,), 0.2, HINT)]


@pytest.fixture
def made_up(monkeypatch):
    """Exercise "09.1": twice a number, twice the items of a list; made_up(cases) for another."""
    def put(cases):
        monkeypatch.setattr(practice, "read_cases", lambda number: cases)

    put(DOUBLE)
    return put


pytestmark = pytest.mark.usefixtures("made_up")


def answer(value):
    return [2 * v for v in value] if isinstance(value, list) else 2 * value


def test_a_right_answer_says_on_how_many_inputs():
    outcome = examine("09.1", answer)
    assert outcome.state == "right"
    assert outcome.message.split("\n") == [
        "맞았습니다. 입력 5개에서 모두 기대한 값이 나왔습니다.",
        "Right: all 5 inputs give what they should.",
    ]


def test_a_wrong_answer_is_told_which_input_what_was_expected_and_what_came_back():
    outcome = examine("09.1", lambda value: value)
    assert outcome.state == "wrong"
    assert "(2)" in outcome.message  # 0 doubled is 0: the first that goes wrong is 2
    assert "기대 expected  4" in outcome.message and "결과 got       2" in outcome.message
    assert outcome.message.endswith("두 배로 해 보세요.\nDouble it.")


@pytest.mark.parametrize("nothing", [None, ..., lambda value: None, lambda value: ...])
def test_what_is_not_started_gets_a_friendly_answer(nothing, capsys):
    check("09.1", nothing)
    said = capsys.readouterr().out
    assert said.startswith("아직 시작하지 않았습니다") and "Not started yet" in said


def test_a_forgotten_return_is_not_taken_for_an_empty_stub():
    def forgetful(value):
        answer(value)

    outcome = examine("09.1", forgetful)
    assert outcome.state == "wrong"
    assert "return을 빠뜨리지 않았나요?" in outcome.message and "(0)" in outcome.message


def test_a_constant_is_an_answer_and_a_wrong_one():
    assert examine("09.1", lambda value: 0).state == "wrong"


def test_a_stub_with_a_docstring_and_more_arguments_is_empty():
    def stub(value, other=None):
        """Twice the value."""
        ...

    def passing(value):
        pass

    assert {examine("09.1", f).state for f in (stub, passing)} == {"not started"}


def test_an_exception_names_its_line_and_input():
    space = {}
    code = "def double(value):\n    half = 1 / value\n    return 2 * value\n"
    exec(compile(code, "<cell 8>", "exec"), space)
    outcome = examine("09.1", space["double"])
    assert outcome.state == "wrong" and "double(0)" in outcome.message
    error = "ZeroDivisionError: division by zero"
    assert f"셀의 2번째 줄에서 오류가 났습니다. {error}" in outcome.message
    assert f"Line 2 of the cell raised an error. {error}" in outcome.message


def test_the_line_is_the_students_where_a_library_raises():
    import json

    def broken(value):
        return json.loads("{")

    line = broken.__code__.co_firstlineno + 1
    outcome = examine("09.1", broken)
    assert f"Line {line} of the cell" in outcome.message
    assert 'return json.loads("{")' in outcome.message  # the line itself, too


def test_a_wrong_number_of_arguments_is_explained():
    outcome = examine("09.1", lambda: 1)
    assert outcome.state == "wrong"
    assert "takes 0 positional arguments but 1 was given" in outcome.message


@pytest.mark.parametrize("value", [3, [1, 2], answer(3)])
def test_a_value_in_place_of_the_function_is_explained(value):
    outcome = examine("09.1", value)
    assert outcome.state == "wrong"
    assert "괄호를 붙이지 않고" in outcome.message and show(value) in outcome.message


def test_a_function_that_changes_its_input_is_told_so():
    def in_place(value):
        if isinstance(value, list):
            value[:] = [2 * v for v in value]
            return value
        return 2 * value

    outcome = examine("09.1", in_place)
    assert outcome.state == "wrong"
    assert "입력을 바꿔 놓았습니다" in outcome.message and "([1, 2])" in outcome.message


def test_a_loop_that_never_stops_is_stopped(monkeypatch):
    monkeypatch.setattr(practice, "SECONDS", 0.2)

    def endless(value):
        while value == 3:
            try:
                time.sleep(0.01)
            except Exception:  # must not swallow the bell
                pass
        return 2 * value

    start = time.perf_counter()
    outcome = examine("09.1", endless)
    assert time.perf_counter() - start < 2
    assert outcome.state == "wrong"
    assert "endless(3)" in outcome.message and "within 0.2 seconds" in outcome.message


def test_deep_recursion_and_a_strange_result_do_not_raise():
    def deep(value):
        return deep(value)

    class Strange:
        def __eq__(self, other):
            raise ValueError("strange")

    assert "RecursionError" in examine("09.1", deep).message
    assert examine("09.1", lambda value: Strange()).state == "wrong"


@pytest.mark.parametrize(
    "expected, got, equal",
    [
        (0.3, 0.1 + 0.2, True),
        (1.0, 1, True),
        (4_902_912, 4_902_913, False),  # a count is exact
        (True, 1, False),
        ([1, 2], (1, 2), True),
        ((1, 2), [1, 2, 3], False),
        ({"a": [0.3]}, {"a": [0.1 + 0.2]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (None, 0, False),
        ("가", "가", True),
        ([], None, False),
    ],
)
def test_what_counts_as_equal(expected, got, equal):
    assert same(expected, got) is equal


def test_a_tensor_counts_as_its_numbers():
    torch = pytest.importorskip("torch")
    assert same([[1, 2]], torch.tensor([[1, 2]])) and not same([[1, 2]], torch.tensor([1, 2]))
    assert same(True, torch.tensor(True)) and same(0.5, torch.tensor(0.5))


def test_values_are_shown_short_and_as_one_would_write_them():
    assert show([0.1 + 0.2, "가", (1,), None, 2.0]) == "[0.3, '가', (1,), None, 2.0]"
    assert show({"rule": answer}) == "{'rule': answer}"
    assert len(show(list(range(1000)))) < 200 and " ... " in show(list(range(1000)))


def test_after_a_check_no_alarm_is_left():
    import signal

    before = signal.getsignal(signal.SIGALRM)
    examine("09.1", answer)
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


# --- what a student really does ----------------------------------------------------------------


def test_a_list_kept_from_call_to_call_is_named_and_shown_as_it_was():
    kept = []

    def keeps(value):
        if not isinstance(value, list):
            return 2 * value
        kept.extend(2 * v for v in value)
        return kept

    kept.append(7)  # from an earlier run of the cell
    outcome = examine("09.1", keeps)
    assert "결과 got       [7, 2, 4]\n" in outcome.message
    assert "같은 입력을 다시 주니 다른 값이" in outcome.message


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda value: (2 * v for v in value), "기대한 것은 목록, 나온 것은 generator입니다."),
        (lambda value: None, "이 입력에서는 None이 나왔습니다."),
        (lambda value: [2.0, 4.0], "값은 맞지만 정수가 아닙니다(2.0)."),
        (lambda value: "24", "나온 것은 str입니다."),
    ],
)
def test_a_mistake_of_form_is_called_one(returned, said):
    outcome = examine("09.1", lambda v: returned(v) if isinstance(v, list) else 2 * v)
    assert outcome.state == "wrong" and said in outcome.message


def test_a_rounded_value_is_called_rounded(made_up):
    made_up([Case((3,), 1 / 3, HINT)])
    assert "반올림한 값입니다" in examine("09.1", lambda n: round(1 / n, 2)).message
    assert examine("09.1", lambda n: round(1 / n, 6)).state == "right"


def test_other_keys_are_named(made_up):
    made_up([Case((3,), {"a": 1, "b": 2}, HINT)])
    said = examine("09.1", lambda n: {"a": 1, "c": 2}).message
    assert "기대한 것은 ['a', 'b']입니다." in said and "expected are ['a', 'b']." in said


def test_a_fraction_may_be_exact():
    from decimal import Decimal
    from fractions import Fraction

    assert same(0.15, Fraction(3, 20)) and same(0.15, Decimal("0.15"))
    assert not same(4, 4.0) and not same(4, Fraction(4))


def test_what_comes_after_the_first_mistake_is_not_waited_for():
    def wrong_then_endless(value):
        while isinstance(value, list):
            pass
        return value + 1

    start = time.perf_counter()
    assert "(0)" in examine("09.1", wrong_then_endless).message
    assert time.perf_counter() - start < 1


def test_a_loop_that_swallows_everything_is_stopped(monkeypatch):
    monkeypatch.setattr(practice, "SECONDS", 0.2)

    def endless(value):
        while True:
            try:
                time.sleep(0.01)
            except:  # noqa: E722
                pass

    assert "within 0.2 seconds" in examine("09.1", endless).message


def test_leaving_python_does_not_leave_the_notebook():
    def leaves(value):
        raise SystemExit(3)

    def holds_itself(value):
        value = [value]
        value.append(value)
        return value

    assert "SystemExit" in examine("09.1", leaves).message
    assert examine("09.1", holds_itself).state == "wrong"
