"""The check of an exercise: what it says to whoever is wrong, and that it never raises."""

import json
import signal
import time
from fractions import Fraction

import pytest

from course_utils.practice import checks as practice
from course_utils.practice.cases import Case, Hint
from course_utils.practice.checks import check, examine, same, show

HINT = Hint("두 배로 해 보세요.", "Double it.")
DOUBLE = [*(Case((number,), 2 * number, HINT) for number in (0, 2, 3)),
          Case(([1, 2],), [2, 4], HINT), Case((0.1,), 0.2, HINT)]


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """Exercise "09.1": twice a number, twice the items of a list."""
    monkeypatch.setattr(practice, "read_cases", lambda number: DOUBLE)


def answer(value):
    return [2 * v for v in value] if isinstance(value, list) else 2 * value


def test_a_right_answer_says_on_how_many_inputs():
    outcome = examine("09.1", answer)
    assert outcome.state == "right"
    assert outcome.message == ("맞았습니다. 입력 5개에서 모두 기대한 값이 나왔습니다.\n"
                               "Right: all 5 inputs give what they should.")


def test_a_wrong_answer_is_told_which_input_what_was_expected_and_what_came_back():
    outcome = examine("09.1", lambda value: value)
    assert outcome.state == "wrong"
    assert "(2)" in outcome.message  # 0 doubled is 0: the first that goes wrong is 2
    assert "기대 expected  4" in outcome.message and "결과 got       2" in outcome.message
    assert outcome.message.endswith("두 배로 해 보세요.\nDouble it.")


def passing(value, other=None):
    """A stub with a docstring and more arguments."""
    pass


@pytest.mark.parametrize("nothing", [None, ..., lambda value: None, lambda value: ..., passing])
def test_what_is_not_started_gets_a_friendly_answer(nothing, capsys):
    check("09.1", nothing)
    said = capsys.readouterr().out
    assert said.startswith("아직 시작하지 않았습니다") and "Not started yet" in said


def forgets_return(value):
    answer(value)


def in_place(value):
    if isinstance(value, list):
        value[:] = [2 * v for v in value]
        return value
    return 2 * value


def gives_a_generator(value):
    return (2 * v for v in value) if isinstance(value, list) else 2 * value


@pytest.mark.parametrize(("function", "first", "said"), [
    (forgets_return, "(0)", "이 입력에서는 None이 나왔습니다. return을 빠뜨리지 않았나요?"),
    (lambda value: 0, "(2)", "결과 got       0"),
    (in_place, "([1, 2])", "값은 맞지만 함수가 받은 입력을 바꿔 놓았습니다."),
    (gives_a_generator, "([1, 2])", "기대한 것은 list, 나온 것은 generator입니다."),
    (lambda value: 2.0 * value, "(0)", "기대한 것은 int, 나온 것은 float입니다."),
    (lambda: 1, "(0)", "takes 0 positional arguments but 1 was given"),
    (3, "(0)", "'int' object is not callable"),
])
def test_a_mistake_is_shown_with_its_input_and_called_by_its_name(function, first, said):
    outcome = examine("09.1", function)
    assert outcome.state == "wrong" and said in outcome.message
    assert first in outcome.message.split("\n")[2], outcome.message


def test_an_exception_names_its_line_in_the_students_cell_even_where_a_library_raises():
    def broken(value):
        return json.loads("{")

    line, outcome = broken.__code__.co_firstlineno + 1, examine("09.1", broken)
    assert f"셀의 {line}번째 줄에서 오류가" in outcome.message
    assert f'Line {line} of the cell raised an error (return json.loads("{{"))' in outcome.message
    assert "JSONDecodeError: Expecting property name" in outcome.message


class Strange(BaseException):
    """What no check should have to do with."""

    def __eq__(self, other):
        raise ValueError("strange")

    def __str__(self):
        raise ValueError("stranger")

    __repr__ = __str__


def raises(error):
    raise error


def deep(value):
    return deep(value)


def holds_itself(value):
    value = [value]
    value.append(value)
    return value


@pytest.mark.parametrize(("function", "said"), [
    (deep, "RecursionError"), (lambda value: raises(SystemExit(3)), "SystemExit: 3"),
    (lambda value: raises(Strange()), "Strange"), (lambda value: raises(GeneratorExit), "Gen"),
    (lambda value: Strange(), "int, 나온 것은 Strange"), (Strange(), "not callable"),
    (holds_itself, "나온 것은 list")])
def test_nothing_that_a_student_writes_makes_the_check_raise(function, said):
    outcome = examine("09.1", function)
    assert outcome.state == "wrong" and said in outcome.message


def test_ctrl_c_is_the_students_own():
    with pytest.raises(KeyboardInterrupt):
        examine("09.1", lambda value: raises(KeyboardInterrupt))


def sleeps(value):
    while value == 3:
        time.sleep(0.01)
    return 2 * value


def swallows_exceptions(value):
    while value == 3:
        try:
            time.sleep(0.01)
        except Exception:
            pass
    return 2 * value


def swallows_everything(value):
    while value == 3:
        try:
            time.sleep(0.01)
        except:  # noqa: E722
            pass
    return 2 * value


@pytest.mark.parametrize("endless", [sleeps, swallows_exceptions, swallows_everything])
def test_a_loop_that_never_stops_is_stopped_and_no_alarm_is_left(endless, monkeypatch):
    monkeypatch.setattr(practice, "SECONDS", 0.2)
    start, before = time.perf_counter(), signal.getsignal(signal.SIGALRM)
    outcome = examine("09.1", endless)
    assert time.perf_counter() - start < 2
    assert f"{endless.__name__}(3)" in outcome.message and "within 0.2 seconds" in outcome.message
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize(("expected", "got", "equal"), [
    (0.3, 0.1 + 0.2, True), (1.0, 1, True), (0.15, Fraction(3, 20), True),
    (4_902_912, 4_902_913, False), (4, 4.0, False), (True, 1, False),  # a count is exact
    ([1, 2], (1, 2), True), ((1, 2), [1, 2, 3], False), ({"a": [0.3]}, {"a": [0.1 + 0.2]}, True),
    ({"a": 1}, {"a": 1, "b": 2}, False), (None, 0, False), ("가", "가", True), ([], None, False)])
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
