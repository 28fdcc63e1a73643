"""The check cells of the exercises: what a student's function got wrong, and on which input.

An exercise is a list of inputs with their right results (exercises.py). `check` calls the student's
function on each of them and prints one of three answers, in Korean and in English: not started,
the first input that went wrong, or right. It never raises for what a student wrote, so that "Run
all" goes on. Taught at the end of every notebook.
"""

import copy
import dis
import linecache
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from types import FrameType
from typing import Any, Literal, NamedTuple

from course_utils import CourseError
from course_utils.tasks import Task

# What an empty body compiles to, docstring and `...` included.
NOTHING = {"RESUME", "NOP", "POP_TOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
SECONDS = 5
"""How long all inputs of one exercise may take together; most take none at all."""


class UnknownExercise(CourseError):
    """A number that no exercise has; the message names those of the notebook."""


class Hint(NamedTuple):
    """A sentence toward the idea, not the solution, in both languages."""

    ko: str
    en: str


@dataclass(frozen=True)
class Case:
    """One input of an exercise, its right result, and a hint for whoever gets it wrong."""

    args: tuple
    expected: Any
    hint: Hint | None = None


@dataclass(frozen=True)
class Outcome:
    """What `examine` found: the state, and the message that says it in two languages."""

    state: Literal["not started", "wrong", "right"]
    message: str


@dataclass
class _Attempt:
    """What the student's function did with one input."""

    case: Case
    got: Any = None
    trouble: Hint | None = None
    right: bool = field(default=False)
    shown: str = ""  # of `got`, at once: a list that the function keeps changes with later calls


def check(number: str, answer: Any) -> None:
    """Print whether the answer to an exercise is right, and if not, what is wrong with it.

    `number` is notebook and exercise, "01.2"; `answer` is the student's function.
    """
    print(examine(number, answer).message)


def examine(number: str, answer: Any) -> Outcome:
    """Return what `check` prints; raises UnknownExercise."""
    cases = _cases(number)
    if answer is None or answer is ... or _is_empty(answer):
        return Outcome("not started", _lines(
            "아직 시작하지 않았습니다. 위 셀의 ... 자리에 쓰고 두 셀을 차례로 실행하세요.",
            "Not started yet: write in place of ... above, then run both cells.",
        ))  # fmt: skip
    if not callable(answer):
        return Outcome("wrong", _lines(
            f"check에는 함수를 건네주세요. 받은 것은 {show(answer)}입니다. "
            f"괄호를 붙이지 않고 함수의 이름만 쓰면 됩니다.",
            f"Pass the function itself to check, without parentheses; this is {show(answer)}.",
        ))  # fmt: skip
    attempts = _try_all(answer, cases)
    wrong = [attempt for attempt in attempts if not attempt.right]
    if all(attempt.trouble is None and attempt.got is None for attempt in attempts):
        wrong[0].case = replace(wrong[0].case, hint=None)
        wrong[0].trouble = Hint(
            "어떤 입력에도 아무것도 돌려주지 않습니다. return을 빠뜨리지 않았나요?",
            "It returns nothing, whatever the input. Is a return missing?",
        )
    elif wrong and _remembers(answer, wrong[0]):
        wrong[0].trouble = Hint(
            "같은 입력을 다시 주니 다른 값이 나옵니다. "
            "함수 밖의 목록이나 기본값 []에 앞서 넣은 것이 남아 있지 않나요?",
            "The same input again gives another result: does a list outside, or a default [], keep "
            "what earlier calls put in?",
        )
    if not wrong:
        count = len(attempts)
        return Outcome("right", _lines(
            f"맞았습니다. 입력 {count}개에서 모두 기대한 값이 나왔습니다.",
            f"Right: all {count} inputs give what they should.",
        ))  # fmt: skip
    return Outcome("wrong", _explain(answer, wrong[0], len(cases)))


def show(value: Any, limit: int = 160) -> str:
    """Return a value as a student would write it, with its middle left out where it is long.

    >>> show([0.1 + 0.2, "가"])
    "[0.3, '가']"
    """
    text = _text(value)
    keep = limit // 2
    return text if len(text) <= limit else f"{text[:keep]} ... {text[-keep:]}"


def same(expected: Any, got: Any) -> bool:
    """Whether two results are equal: fractions to six digits, lists and tuples by what they hold.

    A tensor or an array counts as its numbers; True is not 1.
    """
    got = _plain(got)
    got = float(got) if isinstance(got, Fraction | Decimal) else got
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int):  # a count, an id: 4.0 is no number of rows
        return isinstance(got, int) and expected == got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return math.isclose(expected, got, rel_tol=1e-5, abs_tol=1e-9)
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        return len(expected) == len(got) and all(map(same, expected, got))
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        return expected.keys() == got.keys() and all(same(v, got[k]) for k, v in expected.items())
    return type(expected) is type(got) and bool(expected == got)


def _cases(number: str) -> list[Case]:
    from course_utils.practice.cases import EXERCISES

    if number not in EXERCISES:
        near = [name for name in EXERCISES if name.startswith(str(number)[:2])] or list(EXERCISES)
        raise UnknownExercise(f"There is no exercise '{number}'; there are {', '.join(near)}.")
    return list(EXERCISES[number]())


def _try_all(function: Callable, cases: Iterable[Case]) -> list[_Attempt]:
    """Call the function on every input; when the time is up, on no further one."""
    attempts = []
    try:
        with _time_limit(SECONDS):
            for case in cases:
                attempts.append(_Attempt(case, trouble=_too_slow()))  # until it has come back
                attempts[-1] = _try(function, case)
                last = attempts[-1]
                if not last.right and (last.trouble or last.got is not None):
                    break  # what comes after the first that goes wrong is not shown
    except _TooSlow:
        pass
    return attempts


def _try(function: Callable, case: Case) -> _Attempt:
    args = copy.deepcopy(case.args)
    try:
        got = function(*args)
        right = same(case.expected, got)
        shown = show(got)
    except (Exception, SystemExit) as error:  # whatever a student's code may raise
        return _Attempt(case, trouble=_raised(function, error))
    if right and not same(case.args, args):
        return _Attempt(replace(case, hint=None), got, Hint(
            "값은 맞지만 함수가 받은 입력을 바꿔 놓았습니다. 복사본을 만들어 그것을 바꾸세요.",
            "The result is right, but the function changed its input. Make a copy and change that.",
        ), shown=shown)  # fmt: skip
    return _Attempt(case, got, right=right, shown=shown)


def _remembers(function: Callable, attempt: _Attempt) -> bool:
    """Whether the function answers the same input differently the second time."""
    if attempt.trouble or not isinstance(attempt.got, list | tuple | Mapping | int | float | str):
        return False
    again = _try_all(function, [attempt.case])[-1]
    return again.trouble is None and again.shown != attempt.shown


KINDS = (
    (bool, "True나 False", "True or False"),
    ((int, float, Fraction, Decimal), "수", "a number"),
    (str, "글(str)", "a text (str)"),
    (Mapping, "딕셔너리", "a dictionary"),
    ((list, tuple), "목록", "a list"),
)


def _plain(value: Any) -> Any:
    """Return a tensor or an array as its numbers, anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def _form(expected: Any, got: Any) -> Hint | None:
    """What is wrong with the form of a result, whose value may well be right."""
    got = _plain(got)
    if expected is None:
        return None
    if got is None:
        return Hint(
            "이 입력에서는 None이 나왔습니다. return을 만나지 않고 끝나는 길이 있는지 보세요.",
            "For this input it returns None: is there a way through it without a return?",
        )
    kind, ko, en = next((k for k in KINDS if isinstance(expected, k[0])), (object, "", ""))
    if not isinstance(got, kind) or isinstance(got, bool) != isinstance(expected, bool):
        name = type(got).__name__
        return Hint(
            f"자료형이 다릅니다. 기대한 것은 {ko}, 나온 것은 {name}입니다.",
            f"The kind differs: expected is {en}, and this is of type {name}.",
        )
    if isinstance(expected, Mapping):
        if missing := [key for key in expected if key not in got]:
            return Hint(f"빠진 키가 있습니다: {show(missing)}", f"Missing keys: {show(missing)}")
        if extra := [key for key in got if key not in expected]:
            return Hint(f"없어야 할 키가 있습니다: {show(extra)}", f"Too many keys: {show(extra)}")
        expected, got = list(expected.values()), [got[key] for key in expected]
    if isinstance(expected, list | tuple):
        forms = map(_form, expected, got) if len(expected) == len(got) else ()
        return next(filter(None, forms), None)
    if isinstance(expected, int) and not isinstance(got, int) and expected == got:
        return Hint(
            f"값은 맞지만 정수가 아닙니다({show(got)}). /와 //의 차이를 보세요.",
            f"The value is right, but {show(got)} is no integer: mind / and //.",
        )
    if isinstance(expected, float) and got and not same(expected, got):
        if any(got == round(expected, digits) for digits in range(1, 6)):
            return Hint("반올림한 값입니다. 그대로 돌려주세요.", "Rounded: return it as it is.")
    return None


def _raised(function: Callable, error: Exception) -> Hint:
    """Say in one line what was raised and in which line of the student's cell."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    line, trace = None, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if line is None:
        return Hint(
            f"함수를 부르다가 오류가 났습니다. {what}", f"Calling the function failed. {what}"
        )
    code = linecache.getline(file, line).strip()
    code = f" ({code})" if code else ""
    return Hint(
        f"셀의 {line}번째 줄에서 오류가 났습니다{code}. {what}",
        f"Line {line} of the cell raised an error{code}. {what}",
    )


def _explain(function: Callable, attempt: _Attempt, count: int) -> str:
    name = getattr(function, "__name__", "f")
    case = attempt.case
    rows = [
        f"  입력 input     {name}({', '.join(map(show, case.args))})",
        f"  기대 expected  {show(case.expected)}",
    ]
    if attempt.shown:
        rows.append(f"  결과 got       {attempt.shown}")
    form = None if attempt.trouble else _form(case.expected, attempt.got)
    hints = [hint for hint in (attempt.trouble, form, case.hint) if hint]
    return "\n".join([
        _lines(
            f"아직 맞지 않습니다. 입력 {count}개 가운데 처음으로 어긋난 것은 이것입니다.",
            f"Not yet. Of {count} inputs this is the first that goes wrong.",
        ),
        *rows,
        *(f"{hint.ko}\n{hint.en}" for hint in hints),
    ])  # fmt: skip


def _is_empty(function: Any) -> bool:
    """Whether nothing has been written into a function yet: no more than a docstring and `...`."""
    if not hasattr(function, "__code__"):
        return False
    steps = list(dis.get_instructions(function))
    returned = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    empty = all(value is None or value is ... for value in returned)
    return empty and {step.opname for step in steps} <= NOTHING


def _too_slow() -> Hint:
    return Hint(
        f"{SECONDS}초 안에 끝나지 않았습니다. 멈추지 않는 반복이나 끝없는 재귀가 있나요?",
        f"It did not end within {SECONDS} seconds. Is there a loop that never stops?",
    )


def _lines(korean: str, english: str) -> str:
    return f"{korean}\n{english}"


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
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return repr(value)


class _TooSlow(BaseException):
    """Not an Exception: a student's own `except Exception` must not swallow it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TooSlow in the running code when the time is up, where the system can."""
    if not hasattr(signal, "setitimer") or threading.current_thread() != threading.main_thread():
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
