"""A language model as judge: grade single answers, or let two models' answers battle.

A judgment that failed stays a failure: what is not exactly one allowed verdict in the form asked
for is asked for once more, then it is invalid, counted, and never a number or a tie. Verdicts come
as JSON held to a schema where the server keeps to one, and in double brackets elsewhere. Replies
are in the client's journal before anybody reads them, so judging again costs nothing. Taught in 03.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from course_utils import CourseError
from course_utils.judging import (
    BATTLE_VERDICTS,
    BRACKETS,
    GRADES,
    JSON,
    REMINDER,
    VerdictError,
    battle_prompt,
    grade_prompt,
    read_reply,
    verdict_format,
)
from course_utils.llm import LLM, Reply, Request
from course_utils.stats import Game, Grade, some_of


@dataclass(frozen=True)
class Item:
    """One question to judge: with `answer` for a grade, with `a` and `b` for a battle.

    The question is what the model was asked: the instruction, or the instruction, a blank line and
    the input. `reference`, if given, is shown to the judge as the right answer. `category` and
    `answer_lang` (the language to answer in) are for reports; the judge does not see them.
    """

    id: str
    question: str
    answer: str | None = None
    a: str | None = None
    b: str | None = None
    reference: str | None = None
    category: str = ""
    answer_lang: str = "ko"


@dataclass(frozen=True)
class Judgment:
    """One reply of the judge, read: what an audit and a report need.

    kind is "grade" or "battle"; order "ab" (a shown first), "ba", or "" for a grade; repeat counts
    from 0. verdict is "a", "b" or "tie" for a battle, "1" to "10" for a grade, None if invalid;
    then `invalid` names the failure and `error` says it in a sentence. reason is what the judge
    wrote, without the verdict if that could be read; model the one that answered, cost the dollars
    for all attempts, key where the journal holds the reply. key and model are "" if the judge was
    not asked: two identical answers are a tie.
    """

    id: str
    kind: str
    order: str
    repeat: int
    verdict: str | None
    reason: str
    invalid: str | None
    error: str
    key: str
    model: str
    cost: float


class Judge:
    """Judges through a client, `repeats` times; after a call `judgments` holds every one of them.

    `params` go along with each request, temperature=0 unless given. A repeat is the same request
    with another seed: its verdicts show how the judge wavers (`repeat_rows`), while grades and
    games are made of the first ones, so more repeats do not change a result.
    """

    def __init__(self, llm: LLM, *, repeats: int = 1, progress: bool = True, **params: Any):
        if repeats < 1:
            raise CourseError(f"A judge judges at least once, not {repeats} times.")
        self.llm, self.repeats, self.progress = llm, repeats, progress
        self.params = {"temperature": 0, **params}
        self.judgments: list[Judgment] = []
        self._form: str | None = None  # what this server keeps to, once that is known

    @property
    def invalid(self) -> dict[str, str]:
        """Why which judgments of the last call are invalid: {"q1 (ab order)": "a sentence"}."""
        return {_name(j): j.error for j in self.judgments if j.verdict is None}

    def grade(self, items: Iterable[Item]) -> list[Grade]:
        """Grade each item's answer from 1 to 10; an invalid judgment has the score None."""
        self._judge(self._grades(items), "grading")
        return [
            Grade(j.id, None if j.verdict is None else int(j.verdict), j.reason)
            for j in self.judgments
            if j.repeat == 0
        ]

    def battle(self, items: Iterable[Item]) -> list[Game]:
        """Compare each item's answers a and b in both orders; an invalid verdict is None.

        Two identical answers are a tie and the judge is not asked; empty ones are judged as they
        are. Both are said in a line.
        """
        items = list(items)
        self._judge(self._battles(items), "battles")
        verdicts = {(j.id, j.order): j.verdict for j in self.judgments if j.repeat == 0}
        return [
            Game(i.id, verdicts[i.id, "ab"], verdicts[i.id, "ba"], len(i.a), len(i.b))
            for i in items
        ]

    def grade_requests(self, items: Iterable[Item]) -> list[Request]:
        """What `grade` would ask for next, one request a judgment: hand them to `llm.plan`.

        A judgment that is already in the journal is there with the request that settled it.
        """
        return self._due(self._grades(items))

    def battle_requests(self, items: Iterable[Item]) -> list[Request]:
        """The same for `battle`: two an item, a shown first, then b; none if they are identical."""
        return self._due(self._battles(items))

    # ------------------------------------------------------------ from items to judgments

    def _grades(self, items: Iterable[Item]) -> list["_Case"]:
        items = _checked(items, "answer")
        return [_Case("grade", item, "", repeat) for repeat in range(self.repeats)
                for item in items]

    def _battles(self, items: Iterable[Item]) -> list["_Case"]:
        items = _checked(items, "a", "b")
        return [_Case("battle", item, order, repeat) for repeat in range(self.repeats)
                for item in items for order in ("ab", "ba")]

    def _judge(self, cases: list["_Case"], what: str) -> None:
        from tqdm.auto import tqdm

        _say_what_is_odd(cases)
        self._settle(cases, send=False)
        waiting = [case for case in cases if case.judgment is None]
        bar = tqdm(total=len(waiting), desc=what, disable=not self.progress)
        try:
            # The first is asked alone: what comes back tells which form this server keeps to.
            for some in (waiting[:1], waiting[1:]):
                self._settle(some, send=True, done=bar.update)
        except CourseError as error:
            self._settle(cases, send=False)  # what was on its way has reached the journal
            missing = [_name(case) for case in cases if case.judgment is None]
            error.args = (f"{error} {len(cases) - len(missing)} of {len(cases)} judgments are "
                          f"made, not yet: {some_of(missing)}.",)
            raise
        finally:
            bar.close()
            self.judgments = [case.judgment for case in cases if case.judgment]

    def _due(self, cases: list["_Case"]) -> list[Request]:
        self._settle(cases, send=False)
        return [self._request(case, self._form_of(case)) for case in cases if not case.identical]

    def _settle(self, cases: Sequence["_Case"], *, send: bool,
                done: Callable[[], object] = lambda: None) -> None:
        """Ask for each until it is judged; without `send`, as far as the journal answers."""
        while todo := [case for case in cases
                       if case.judgment is None and (send or self._is_answered(case))]:
            for case, reply in zip(todo, self.llm.complete(map(self._ask, todo)), strict=True):
                self._take(case, reply)
                if case.judgment:
                    done()

    # ------------------------------------------------------------ one judgment

    def _ask(self, case: "_Case") -> Request:
        case.form = self._form_of(case)  # only now: an earlier reply may have told which
        return self._request(case, case.form)

    def _form_of(self, case: "_Case") -> str:
        return case.form or self._form or JSON

    def _request(self, case: "_Case", form: str) -> Request:
        item, params = case.item, dict(self.params)
        if case.repeat:
            params["seed"] = params.get("seed", 0) + case.repeat
        if form == JSON:
            params["response_format"] = verdict_format(case.allowed)
        if case.kind == "grade":
            prompt = grade_prompt(item.question, item.answer, item.reference, form=form)
        else:
            answers = (item.a, item.b) if case.order == "ab" else (item.b, item.a)
            prompt = battle_prompt(item.question, *answers, item.reference, form=form)
        return Request([{"role": "user", "content": prompt}], params, case.repeat)

    def _is_answered(self, case: "_Case") -> bool:
        """Whether the journal holds the next step, in whatever form an earlier run asked."""
        for form in (case.form,) if case.form else (JSON, BRACKETS):
            if self.llm.journal.get(self.llm.key(self._request(case, form))):
                case.form = form
                return True
        return False

    def _take(self, case: "_Case", reply: Reply) -> None:
        """Make a judgment of a reply, or set the form in which to ask once more."""
        case.cost += reply.cost
        judgment = self._read(case, reply)
        self._learn(case, judgment, reply)
        if case.form == JSON and judgment.invalid == "refused request":
            case.form = BRACKETS  # nothing was paid, and perhaps it was only the schema
        elif judgment.invalid in _UNREADABLE and not case.asked_again:
            case.asked_again = True
            case.form = BRACKETS if case.form == JSON else REMINDER
        else:
            case.judgment = judgment

    def _learn(self, case: "_Case", judgment: Judgment, reply: Reply) -> None:
        if self._form or reply.text is None:
            return
        if case.form == JSON and judgment.verdict:
            self._form = JSON
        elif case.form != JSON or judgment.invalid in _UNREADABLE:
            self._form = BRACKETS
            if not reply.cached:
                print(f"{self.llm.model} does not keep to a JSON schema here: its verdicts are "
                      "asked for in double brackets.")

    def _read(self, case: "_Case", reply: Reply) -> Judgment:
        why = reply.finish_reason
        if reply.text is None:
            name = "refused request" if why == "refused" else "no reply"
            return case.failed(name, reply.error or "The judge did not reply.", reply)
        if self.llm.journal.get(reply.key).get("refusal"):
            return case.failed("refusal", "The judge refused to judge.", reply)
        if why in _CUT:  # whatever it holds: nobody knows what was to follow
            error = f"The judge's reply is cut (finish_reason {why})."
            return case.failed(_CUT[why], error, reply)
        try:
            verdict, reason = read_reply(reply.text, case.allowed, case.form)
        except VerdictError as error:
            return case.failed(error.name, str(error), reply)
        if case.kind == "battle":
            verdict = {"A": case.order[0], "B": case.order[1], "C": "tie"}[verdict]
        return case.judged(verdict, reason=reason, key=reply.key, model=reply.model)


_CUT = {"length": "truncated", "content_filter": "content filter"}
_UNREADABLE = ("no verdict", "several verdicts", "not offered", "not on the last line")


@dataclass(eq=False)
class _Case:
    """One judgment in the making: what to judge, and how far it has come."""

    kind: str
    item: Item
    order: str
    repeat: int
    form: str | None = None
    asked_again: bool = False
    cost: float = 0.0
    judgment: Judgment | None = None

    def __post_init__(self):
        if self.identical:
            self.judgment = self.judged("tie")

    @property
    def id(self) -> str:
        return self.item.id

    @property
    def identical(self) -> bool:
        return self.kind == "battle" and self.item.a == self.item.b

    @property
    def allowed(self) -> tuple[str, ...]:
        return GRADES if self.kind == "grade" else BATTLE_VERDICTS

    def judged(self, verdict: str | None, *, reason: str = "", invalid: str | None = None,
               error: str = "", key: str = "", model: str = "") -> Judgment:
        return Judgment(self.id, self.kind, self.order, self.repeat, verdict, reason, invalid,
                        error, key, model, self.cost)

    def failed(self, name: str, error: str, reply: Reply) -> Judgment:
        return self.judged(None, reason=(reply.text or "").strip(), invalid=name, error=error,
                           key=reply.key, model=reply.model)


def pair_items(a: Iterable[Item], b: Iterable[Item]) -> list[Item]:
    """Two models' graded items as items of a battle, matched by id, in the order of `a`.

    Raises CourseError for ids that come twice or in one list only, and for two different questions
    or references under one id.
    """
    a, b = _checked(a, "answer"), {item.id: item for item in _checked(b, "answer")}
    if alone := [item.id for item in a if item.id not in b] + [*b.keys() - {i.id for i in a}]:
        raise CourseError("Answered by one of the models only: "
                          f"{some_of(sorted(alone, key=str))}. Judge both on the same questions.")
    pairs = [(item, b[item.id]) for item in a]
    if unlike := [x.id for x, y in pairs
                  if (x.question, x.reference) != (y.question, y.reference)]:
        raise CourseError("The models were not asked the same question, or have another reference: "
                          f"{some_of(unlike)}.")
    return [Item(x.id, x.question, a=x.answer, b=y.answer, reference=x.reference,
                 category=x.category, answer_lang=x.answer_lang) for x, y in pairs]


def repeat_rows(judgments: Iterable[Judgment]) -> list[list[str | int | None]]:
    """The verdicts of each question and order, one row of `repeats`; grades are numbers.

    Hand them to `stats.summarize_repeats`.
    """
    rows: dict[tuple, list] = {}
    for j in sorted(judgments, key=lambda j: j.repeat):
        graded = j.kind == "grade" and j.verdict is not None
        rows.setdefault((j.id, j.order), []).append(int(j.verdict) if graded else j.verdict)
    return list(rows.values())


def _name(judged: Judgment | _Case) -> str:
    """How messages call a judgment: "q1", "q1 (ab order)", "q1 (ab order, repeat 2)"."""
    about = [f"{judged.order} order"] * bool(judged.order)
    about += [f"repeat {judged.repeat + 1}"] * bool(judged.repeat)
    return f"{judged.id} ({', '.join(about)})" if about else f"{judged.id}"


def _checked(items: Iterable[Item], *fields: str) -> list[Item]:
    """The items, if all have these texts and no two one id; else a CourseError, at no cost."""
    items = list(items)
    for name in ("question", *fields):
        if lacking := [item.id for item in items if not isinstance(getattr(item, name), str)]:
            raise CourseError(f"Nothing was judged: no '{name}' in the items {some_of(lacking)}.")
    if twice := [id for id, count in Counter(item.id for item in items).items() if count > 1]:
        raise CourseError(f"Nothing was judged: several items have the id {some_of(twice)}.")
    return items


def _say_what_is_odd(cases: Iterable[_Case]) -> None:
    """Print which answers are empty (they are judged) and which pairs are identical (not)."""
    empty, identical = {}, {}
    for case in cases:
        for side in ("answer",) if case.kind == "grade" else ("a", "b"):
            if not getattr(case.item, side).strip():
                empty[case.item.id + (f" ({side})" if case.kind == "battle" else "")] = None
        if case.identical:
            identical[case.item.id] = None
    if empty:
        print(f"Empty answers, judged as they are: {some_of(list(empty))}.")
    if identical:
        print(f"Identical answers, a tie without asking the judge: {some_of(list(identical))}.")
