"""The check cells of the exercises: what a student's function got wrong, and on which input.

An exercise is a list of inputs with their right results (exercises.yaml). `check` calls the
student's function on each of them and prints one of three answers, in Korean and in English: not
started, the first input that went wrong, or right. It never raises for what a student wrote, so
that "Run all" goes on. Taught at the end of every notebook.
"""

import copy
import dis
import math
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Number
from types import FrameType
from typing import Any, Literal, NamedTuple

from course_utils.practice.cases import Case, Hint, read_cases
from course_utils.tasks import Task

SECONDS = 5  # for all inputs of one exercise together; most take no time at all
# What an empty body compiles to, docstring and `...` included.
NOTHING = {"RESUME", "NOP", "POP_TOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
Mistake = tuple[Case, str, Hint | None]  # an input that went wrong, what came back, what to say
KINDS = ((bool, "True나 False", "True or False"), (Number, "수", "a number"),
         (str, "글(str)", "a text (str)"), (Mapping, "딕셔너리", "a dictionary"),
         ((list, tuple), "목록", "a list"))


class Outcome(NamedTuple):
    """What `examine` found: the state, and the message that says it in two languages."""

    state: Literal["not started", "wrong", "right"]
    message: str


def check(number: str, answer: Any) -> None:
    """Print whether a student's function is right for an exercise ("01.2"), or what is wrong."""
    print(examine(number, answer).message)


def examine(number: str, answer: Any) -> Outcome:
    """Return what `check` prints; raises UnknownExercise."""
    cases = read_cases(number)
    if answer is None or answer is ... or _is_empty(answer):
        return Outcome(
            "not started",
            "아직 시작하지 않았습니다. 위 셀의 ... 자리에 쓰고 두 셀을 차례로 실행하세요.\n"
            "Not started yet: write in place of ... above, then run both cells.")
    if not callable(answer):
        return Outcome(
            "wrong", f"check에는 함수를 건네주세요. 받은 것은 {show(answer)}입니다. "
            f"괄호를 붙이지 않고 함수의 이름만 쓰면 됩니다.\n"
            f"Pass the function itself to check, without parentheses; this is {show(answer)}.")
    if not (mistake := _first_mistake(answer, cases)):
        return Outcome(
            "right", f"맞았습니다. 입력 {len(cases)}개에서 모두 기대한 값이 나왔습니다.\n"
            f"Right: all {len(cases)} inputs give what they should.")
    (case, shown, said), name = mistake, getattr(answer, "__name__", "f")
    lines = [f"아직 맞지 않습니다. 입력 {len(cases)}개 가운데 처음으로 어긋난 것은 이것입니다.",
             f"Not yet. Of {len(cases)} inputs this is the first that goes wrong.",
             f"  입력 input     {name}({', '.join(map(show, case.args))})",
             f"  기대 expected  {show(case.expected)}"]
    if shown:
        lines.append(f"  결과 got       {shown}")
    for hint in filter(None, (said, case.hint)):
        lines += [hint.ko, hint.en]
    return Outcome("wrong", "\n".join(lines))


def show(value: Any, limit: int = 160) -> str:
    """Return a value as a student would write it, with its middle left out where it is long.

    >>> show([0.1 + 0.2, "가"])
    "[0.3, '가']"
    """
    text, keep = _text(value), limit // 2
    return text if len(text) <= limit else f"{text[:keep]} ... {text[-keep:]}"


def same(expected: Any, got: Any) -> bool:
    """Whether two results are equal: fractions to six digits, tensors and lists by their items."""
    got = _plain(got)
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int):  # a count, an id: 4.0 is no number of rows
        return isinstance(got, int) and expected == got
    if isinstance(expected, float) and isinstance(got, Number):
        return math.isclose(expected, got, rel_tol=1e-5, abs_tol=1e-9)
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        return len(expected) == len(got) and all(map(same, expected, got))
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        return expected.keys() == got.keys() and all(same(v, got[k]) for k, v in expected.items())
    return type(expected) is type(got) and bool(expected == got)


def _first_mistake(function: Callable, cases: list[Case]) -> Mistake | None:
    """Call the function on every input until one goes wrong or the time is up."""
    case = cases[0]
    try:
        with _time_limit(SECONDS):
            for case in cases:
                if mistake := _try(function, case):
                    return mistake
    except _TooSlow:
        return case, "", Hint(
            f"{SECONDS}초 안에 끝나지 않았습니다. 멈추지 않는 반복이나 끝없는 재귀가 있나요?",
            f"It did not end within {SECONDS} seconds. Is there a loop that never stops?")
    return None


def _try(function: Callable, case: Case) -> Mistake | None:
    args = copy.deepcopy(case.args)
    try:
        got = function(*args)
        right, shown = same(case.expected, got), show(got)  # now: a list kept by it may yet change
        if right and same(case.args, args):
            return None
        again = shown if right else show(function(*copy.deepcopy(case.args)))
    except (Exception, SystemExit) as error:  # whatever a student's code may raise
        return case, "", _raised(function, error)
    if right:
        return case._replace(hint=None), shown, Hint(
            "값은 맞지만 함수가 받은 입력을 바꿔 놓았습니다. 복사본을 만들어 그것을 바꾸세요.",
            "The result is right, but the function changed its input: make a copy to change.")
    if again != shown and " at 0x" not in shown:
        return case, shown, Hint(
            "같은 입력을 다시 주니 다른 값이 나옵니다. "
            "함수 밖의 목록이나 기본값 []에 앞서 넣은 것이 남아 있지 않나요?",
            "The same input again gives another result: does a list outside, or a default [], keep "
            "what earlier calls put in?")
    return case, shown, _form(case.expected, got)


def _form(expected: Any, got: Any) -> Hint | None:
    """What is wrong with the form of a result, whose value may well be right."""
    got = _plain(got)
    if expected is None:
        return None
    if got is None:
        return Hint("이 입력에서는 None이 나왔습니다. return을 빠뜨리지 않았나요?",
                    "For this input it returns None: is a return missing?")
    kind, ko, en = next((k for k in KINDS if isinstance(expected, k[0])), (object, "", ""))
    if not isinstance(got, kind) or isinstance(got, bool) != isinstance(expected, bool):
        name = type(got).__name__
        return Hint(f"자료형이 다릅니다. 기대한 것은 {ko}, 나온 것은 {name}입니다.",
                    f"The kind differs: expected is {en}, and this is of type {name}.")
    if isinstance(expected, Mapping):
        if expected.keys() != got.keys():
            keys = show(list(expected))
            return Hint(f"키가 다릅니다. 기대한 것은 {keys}입니다.",
                        f"The keys differ: expected are {keys}.")
        expected, got = list(expected.values()), [got[key] for key in expected]
    if isinstance(expected, list | tuple):
        forms = map(_form, expected, got) if len(expected) == len(got) else ()
        return next(filter(None, forms), None)
    if isinstance(expected, int) and not isinstance(got, int) and expected == got:
        return Hint(f"값은 맞지만 정수가 아닙니다({show(got)}). /와 //의 차이를 보세요.",
                    f"The value is right, but {show(got)} is no integer: mind / and //.")
    if isinstance(expected, float) and got and not same(expected, got) and any(
            got == round(expected, digits) for digits in range(1, 6)):
        return Hint("반올림한 값입니다. 그대로 돌려주세요.", "Rounded: return it as it is.")
    return None


def _raised(function: Callable, error: BaseException) -> Hint:
    """Say in one line what was raised and in which line of the student's cell."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [at for at in traceback.extract_tb(error.__traceback__) if at.filename == file]
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if not lines:
        return Hint(f"함수를 부르다가 오류가 났습니다. {what}", f"The call failed. {what}")
    number, code = lines[-1].lineno, f" ({lines[-1].line})" if lines[-1].line else ""
    return Hint(f"셀의 {number}번째 줄에서 오류가 났습니다{code}. {what}",
                f"Line {number} of the cell raised an error{code}. {what}")


def _is_empty(function: Any) -> bool:
    """Whether nothing has been written into a function yet: no more than a docstring and `...`."""
    if not hasattr(function, "__code__"):
        return False
    steps = list(dis.get_instructions(function))
    returned = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return ({step.opname for step in steps} <= NOTHING
            and all(value is None or value is ... for value in returned))


def _plain(value: Any) -> Any:
    """Return a tensor or an array as its numbers, anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def _text(value: Any) -> str:
    if isinstance(value, float):
        text = f"{value:.6g}"
        return f"{text}.0" if text.lstrip("-").isdigit() else text
    if isinstance(value, Task):
        return f"Task({value.instruction!r}, {value.input!r}, {value.output!r})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(k)}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_text, value)) + ("," if len(value) == 1 else "") + ")"
    return getattr(value, "__name__", repr(value)) if callable(value) else repr(value)


class _TooSlow(BaseException):
    """Not an Exception: a student's own `except Exception` must not swallow it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TooSlow in the running code when the time is up, if it is the main thread."""
    if threading.current_thread() != threading.main_thread():
        yield
        return

    def again(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            raise _TooSlow
        return again

    def ring(_: int, frame: FrameType | None) -> None:
        # A bare `except:` swallows what is raised here; its next line raises it once more.
        sys.settrace(lambda *_: None)
        while frame and frame.f_code.co_filename != __file__:
            frame.f_trace = again
            frame = frame.f_back
        raise _TooSlow

    before, trace = signal.signal(signal.SIGALRM, ring), sys.gettrace()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.settrace(trace)
