"""The check cells of the exercises: what a student's function got wrong, and on which input.

An exercise is a list of inputs with their right results (exercises.yaml). `check` calls the
student's function on each of them and prints one of three answers, in Korean and in English: not
started, the first input that went wrong, or right. It never raises for what a student wrote, so
that "Run all" goes on. Taught at the end of every notebook.
"""

import copy
import dis
import math
import re
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

SECONDS = 5  # for all inputs of one exercise together; most take no time at all
# What an empty body compiles to, docstring and `...` included.
NOTHING = {"RESUME", "NOP", "POP_TOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
ALIKE = {float: Number, list: (list, tuple), tuple: (list, tuple), dict: Mapping}
"""The types that will do where an exercise expects such a value."""
Mistake = tuple[Case, str, Hint | None]  # an input that went wrong, what came back, what to say


class Outcome(NamedTuple):
    """What `examine` found: the state, and the message that says it in two languages."""

    state: Literal["not started", "wrong", "right"]
    message: str


def check(number: str, answer: Any) -> None:
    """Print whether a student's function is right for an exercise ("01.2"), or what is wrong."""
    print(examine(number, answer).message)


def examine(number: str, answer: Any) -> Outcome:
    """Return what `check` prints; raises CourseError for a number that no exercise has."""
    cases = read_cases(number)
    if answer is None or answer is ... or _is_empty(answer):
        return Outcome(
            "not started",
            "아직 시작하지 않았습니다. ... 자리에 쓰고 다시 실행하세요.\n"
            "Not started yet: write in place of ... and run it again.")
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
    try:
        text = repr(value)
    except Exception:  # a __repr__ of the student's own
        return f"<{type(value).__name__}>"
    text = re.sub(r"\d+\.\d{7,}(e-?\d+)?", lambda long: f"{float(long[0]):.6g}", text)
    text = re.sub(r"<function (?:\S*\.)?(\w+|<lambda>) at 0x\w+>", r"\1", text)
    return text if len(text) <= limit else f"{text[:limit // 2]} ... {text[-limit // 2:]}"


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
        got = _plain(function(*args))
        right, shown = same(case.expected, got), show(got)
        if right and same(case.args, args):
            return None
    except (KeyboardInterrupt, _TooSlow):
        raise
    except BaseException as error:  # whatever a student's code may raise, SystemExit too
        return case, "", _raised(function, error)
    said, wanted = None, type(case.expected)
    if right:
        case, said = case._replace(hint=None), Hint(
            "값은 맞지만 함수가 받은 입력을 바꿔 놓았습니다. 복사본을 만들어 그것을 바꾸세요.",
            "The result is right, but the function changed its input: make a copy to change.")
    elif got is None:
        said = Hint("이 입력에서는 None이 나왔습니다. return을 빠뜨리지 않았나요?",
                    "For this input it returns None: is a return missing?")
    elif case.expected is not None and not isinstance(got, ALIKE.get(wanted, wanted)):
        names = (wanted.__name__, type(got).__name__)
        said = Hint("자료형이 다릅니다. 기대한 것은 {}, 나온 것은 {}입니다.".format(*names),
                    "The kind differs: expected is {}, and this is {}.".format(*names))
    return case, shown, said


def _raised(function: Callable, error: BaseException) -> Hint:
    """Say in one line what was raised and in which line of the student's cell."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [at for at in traceback.extract_tb(error.__traceback__) if at.filename == file]
    what = " ".join(" ".join(traceback.format_exception_only(error)).split())
    if not lines:
        return Hint(f"함수를 부르다가 오류가 났습니다. {what}", f"The call failed. {what}")
    number, code = lines[-1].lineno, f" ({lines[-1].line})" if lines[-1].line else ""
    return Hint(f"셀의 {number}번째 줄에서 오류가 났습니다{code}. {what}",
                f"Line {number} of the cell raised an error{code}. {what}")


def _is_empty(function: Any) -> bool:
    """Whether nothing has been written into a function yet: no more than a docstring and `...`."""
    code = getattr(function, "__code__", None)
    return (code is not None and {step.opname for step in dis.get_instructions(code)} <= NOTHING
            and set(code.co_consts) <= {None, ..., function.__doc__})


def _plain(value: Any) -> Any:
    """Return a tensor or an array as its numbers, anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


class _TooSlow(BaseException):
    """Not an Exception: a student's own `except Exception` must not swallow it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TooSlow in the running code when the time is up; not in a thread, nor on Windows."""
    if threading.current_thread() != threading.main_thread() or not hasattr(signal, "SIGALRM"):
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
