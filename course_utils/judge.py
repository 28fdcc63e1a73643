"""A language model as judge: grade single answers, or let two models' answers battle.

A judgment that failed stays a failure: whatever is not exactly one allowed verdict on the last line
of the reply is invalid, counted, and never a number or a tie. Taught in 03.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from course_utils import CourseError
from course_utils.llm import LLM, Reply, Request
from course_utils.prompts import battle_prompt, grade_prompt
from course_utils.stats import Game, Grade, Verdict

__all__ = ["Game", "Grade", "Item", "Judge", "VerdictError", "parse_verdict"]

GRADES = tuple(str(score) for score in range(1, 11))
BATTLE_VERDICTS = ("A", "B", "C")  # the answer shown first, the one shown second, a tie
PARAMS = {"temperature": 0}


class VerdictError(CourseError):
    """A judge's reply that holds no verdict, several, or one that was not offered."""


@dataclass(frozen=True)
class Item:
    """One question to judge: with `answer` for a grade, with `a` and `b` for a battle.

    The question is what the model was asked: the instruction, or the instruction, a blank line and
    the input. `reference`, if given, is shown to the judge as the right answer.
    """

    id: str
    question: str
    answer: str | None = None
    a: str | None = None
    b: str | None = None
    reference: str | None = None


def parse_verdict(text: str, allowed: Collection[str]) -> str:
    """Return the verdict in a judge's reply, or raise VerdictError instead of guessing.

    All [[...]] of the reply must say the same, it must be one of `allowed`, and it must stand on
    the last line that is not empty.

    >>> parse_verdict("답변 B만 맞습니다." + chr(10) + "[[B]]", ["A", "B", "C"])
    'B'
    """
    pattern = r"\[\[([^\[\]]*)\]\]"
    found = set(re.findall(pattern, text))
    offered = ", ".join(f"[[{verdict}]]" for verdict in allowed)
    if len(found) != 1:
        said = "no verdict" if not found else f"{len(found)} different verdicts"
        raise VerdictError(f"The judge gave {said} where one of {offered} was asked for.")
    verdict = found.pop()
    if verdict not in allowed:
        raise VerdictError(f"The judge's verdict [[{verdict}]] is none of {offered}.")
    if not re.search(pattern, text.strip().splitlines()[-1]):
        raise VerdictError(f"The judge's verdict [[{verdict}]] is not on the reply's last line.")
    return verdict


class Judge:
    """Judges through a client; after a call, `invalid` tells why which judgments are invalid.

    Replies come from the client's journal when they are there, so judging again costs nothing.
    """

    def __init__(self, llm: LLM, *, progress: bool = True):
        self.llm = llm
        self.progress = progress
        self.invalid: dict[str, str] = {}

    def grade(self, items: Iterable[Item]) -> list[Grade]:
        """Grade each item's answer from 1 to 10; an invalid judgment has the score None."""
        items = list(items)
        grades = []
        replies = self._ask(self.grade_requests(items), "grading")
        for item, reply in zip(items, replies, strict=True):
            verdict = self._read(reply, GRADES, item.id)
            reason = re.sub(r"\s*\[\[\d+\]\]\W*$", "", reply.text or "").strip()
            grades.append(Grade(item.id, None if verdict is None else int(verdict), reason))
        return grades

    def battle(self, items: Iterable[Item]) -> list[Game]:
        """Compare each item's answers a and b in both orders; an invalid verdict is None."""
        items = list(items)
        games = []
        replies = self._ask(self.battle_requests(items), "battles")
        for item, first, second in zip(items, replies[::2], replies[1::2], strict=True):
            verdicts: list[Verdict | None] = []
            for reply, order in ((first, "ab"), (second, "ba")):
                verdict = self._read(reply, BATTLE_VERDICTS, f"{item.id} ({order} order)")
                verdicts.append({"A": order[0], "B": order[1], "C": "tie"}.get(verdict))
            games.append(Game(item.id, *verdicts, len(item.a), len(item.b)))
        return games

    def grade_requests(self, items: Iterable[Item]) -> list[Request]:
        """The requests that `grade` sends, one an item: hand them to `llm.plan` first."""
        items = _checked(items, "answer")
        return [_request(grade_prompt(i.question, i.answer, i.reference)) for i in items]

    def battle_requests(self, items: Iterable[Item]) -> list[Request]:
        """The requests that `battle` sends, two an item: a shown first, then b shown first."""
        return [
            _request(battle_prompt(item.question, *answers, item.reference))
            for item in _checked(items, "a", "b")
            for answers in ((item.a, item.b), (item.b, item.a))
        ]

    def _ask(self, requests: Sequence[Request], what: str) -> list[Reply]:
        from tqdm.auto import tqdm

        self.invalid = {}
        replies = self.llm.complete(requests)
        return list(tqdm(replies, desc=what, total=len(requests), disable=not self.progress))

    def _read(self, reply: Reply, allowed: Collection[str], name: str) -> str | None:
        """The reply's verdict, or None with the reason noted."""
        if reply.text is None:
            self.invalid[name] = reply.error or "The judge did not reply."
        elif reply.finish_reason in ("length", "content_filter"):
            self.invalid[name] = f"The judge's reply is cut (finish_reason {reply.finish_reason})."
        else:
            try:
                return parse_verdict(reply.text, allowed)
            except VerdictError as error:
                self.invalid[name] = str(error)
        return None


def _request(prompt: str) -> Request:
    return Request(messages=[{"role": "user", "content": prompt}], params=PARAMS)


def _checked(items: Iterable[Item], *fields: str) -> list[Item]:
    """The items, if all have these fields and no two one id; else a CourseError, at no cost."""
    items = list(items)
    for field in fields:
        if lacking := [item.id for item in items if getattr(item, field) is None]:
            raise CourseError(f"Nothing was judged: no '{field}' in the items {_some(lacking)}.")
    if twice := [id for id, count in Counter(item.id for item in items).items() if count > 1]:
        raise CourseError(f"Nothing was judged: several items have the id {_some(twice)}.")
    return items


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return ", ".join(map(str, ids[:5])) + more
