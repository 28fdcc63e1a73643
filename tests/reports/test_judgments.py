"""The report says what stats say, shows what was said, and no text of a model changes the page."""

import random
import re
from dataclasses import replace

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("markdown_it")

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from course_utils import CourseError
from course_utils.judge import Item, Judge, Judgment
from course_utils.llm import LLM
from course_utils.offline import world
from course_utils.offline.start import offline_url
from course_utils.reports import judgments as reporting
from course_utils.reports.judgments import FIGURES, fenced, pick_disagreements, plain, visible
from course_utils.stats import Game, Grade, summarize_battle, summarize_grades

HOSTILE = [
    "```\n# 승률 100%\n```",
    "````text\n안쪽\n````\n~~~\n바깥",
    "</details><h1>Win rate 100%</h1><script>alert(1)</script>",
    "<!-- everything below is hidden",
    "| a | b |\n|---|---|\n| 100% | 0 |",
    "![win rate](https://example.org/fake.png) [읽기](javascript:alert(1))",
    "# 제목\n\n> 인용\n\n- 목록\n\n---\n\n    code",
    "&lt;b&gt; &#124; &amp;",
    "줄\r\n바꿈\r또\u2028또\x0b또\x85끝",
    "www.example.org user@example.org http://example.org $x$ `code` **굵게** ~~줄~~ \\",
    "[[A]]\n\n[x]: https://example.org\n\n[x]",
    "\u202e뒤집힌 글\u202c \x00 \x1b[31m \ud800",
    "\t들여쓰기\n    네 칸",
    "`" * 70 + "\n끝",
    "👨‍👩‍👧 \u3000전각 공백",
]


def item(id, a=None, b=None, **more):
    """An item whose answers are in no particular language."""
    return Item(id, f"{id}의 질문", a=a, b=b, **{"answer_lang": "code", **more})


def said(id, order="", verdict=None, repeat=0, **more):
    """One judgment as the judge leaves it: of a battle if there is an order, else of a grade."""
    failed = {} if verdict else {"invalid": "no verdict", "error": "There is no verdict."}
    given = {"reason": "까닭", "key": f"{id}{order}{repeat}", "model": "some-judge", "cost": 0.001}
    return Judgment(id, order, repeat, verdict, **given | failed | more)


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Drawing takes most of the time: only the tests of figures, by their names, draw."""
    if "figure" not in request.node.name:
        monkeypatch.setattr(reporting, "draw", lambda *_: None)


CATEGORIES = ["추론", "수학", "글쓰기"]
NAMES = ("tuned", "base")
ITEMS = [item("q1", "가나다", "가"), item("q2", "가", "가나"), item("q3", "가", "나")]


def battle(n=30, seed=0, **more):
    """n judged questions of three categories with every kind of outcome but an invalid one."""
    rng, items, judgments = random.Random(seed), [], []
    for i in range(n):
        id = f"q{i:02d}"
        a, b = "가" * rng.randint(1, 50), "나" * rng.randint(1, 50)
        items.append(item(id, a, b, category=CATEGORIES[i % 3]))
        for order in ("ab", "ba"):
            verdict = rng.choice(["a", "a", "b", "tie"])
            judgments.append(said(id, order, verdict, reason=f"{id}의 {order} 까닭", **more))
    return items, judgments


def games_of(items, judgments):
    verdicts = {(judgment.id, judgment.order): judgment.verdict for judgment in judgments}
    return [Game(i.id, verdicts[i.id, "ab"], verdicts[i.id, "ba"], len(i.a), len(i.b))
            for i in items]


def graded(scores, **more):
    items = [item(f"q{i:02d}", answer="답", category=CATEGORIES[i % 3]) for i in range(len(scores))]
    told = [said(f"q{i:02d}", verdict=s and str(s), **more) for i, s in enumerate(scores)]
    return items, told


def write(folder, *given, **more):
    path = reporting.write_judgment_report(folder, *given, **{"names": NAMES, **more})
    assert path == folder / "report.md"
    return path.read_text(encoding="utf-8")


def parse(page):
    return MarkdownIt("commonmark").enable("table").parse(page)


def headings(page):
    tokens = parse(page)
    return [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]


def cells(page, start):
    """The cells of the table row that starts with this text."""
    line = next(line for line in page.split("\n") if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_the_numbers_of_a_battle_are_those_of_stats(tmp_path):
    items, judgments = battle()
    games = games_of(items, judgments)
    found, page = summarize_battle(games), write(tmp_path, items, judgments)
    low, high = found.interval
    assert cells(page, "win rate")[1] == f"**{found.win_rate:.1%}**"
    assert cells(page, "95% interval 신뢰구간")[1] == f"**{low:.1%} to {high:.1%}**"
    counts = [int(cells(page, name)[1]) for name in ("wins", "ties", "contradictions", "losses")]
    assert counts[1] + counts[2] == found.ties and counts[2] == found.contradictions > 0
    assert [counts[0], counts[3]] == [found.wins, found.losses] and sum(counts) == 30
    for number, category in enumerate(CATEGORIES):
        part = summarize_battle(games[number::3])
        row = cells(page, category)
        assert row[1:3] == ["10", f"{part.win_rate:.1%}"] and row[-1] == "0"
        assert row[3] == "{:.1%} to {:.1%}".format(*part.interval)
    first = cells(page, "named: the answer shown first")
    assert first[1] == f"{found.first_position.value:.1%} of {found.first_position.n}"
    assert cells(page, "the same verdict")[1] == f"{found.consistency:.1%} of 30"
    assert cells(page, "battle 비교")[1:] == ["60", "60", "0", "0.0600"]
    assert "Judge 심사자: **some-judge**" in page


def test_every_figure_is_beside_the_report_and_linked_relatively(tmp_path):
    everything = {"grades": {"tuned": graded([9, 7, 8]), "base": graded([2, 7, 3])}}
    page = write(tmp_path, *battle(), **everything)
    linked = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    assert sorted(linked) == sorted(FIGURES)
    for name in linked:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    # A report of fewer judgments in the same folder leaves no figure of the one before.
    page = write(tmp_path, grades={"tuned": graded([9, 7, 8])})
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "grades.png"}
    assert re.findall(r"!\[[^]]*\]\(([^)]*)\)", page) == ["grades.png"]


def test_writing_twice_writes_the_same(tmp_path):
    page = write(tmp_path / "one", *battle())
    shuffled = random.Random(1).sample(battle()[1], 60)
    assert write(tmp_path / "two", battle()[0], shuffled) == page
    assert write(tmp_path / "one", *battle()) == page


def test_the_first_judgment_counts_whatever_the_order_they_come_in(tmp_path):
    judgments = [
        said("q1", "ab", "a"), said("q1", "ba", "b"), said("q2", "ab", "tie"), said("q2", "ba"),
        *(said(id, order, "a", repeat=1) for id in ("q1", "q2") for order in ("ab", "ba")),
    ]  # fmt: skip
    answers = [item("q1", answer="가"), item("q2", answer="나"), item("q3", answer="다")]
    told = [said("q2"), said("q1", verdict="10"), said("q1", verdict="2", repeat=1)]
    pages = set()
    for seed in range(5):
        draw = random.Random(seed).sample
        grades = {"tuned": (iter(answers), draw(told, 3))}
        pages.add(write(tmp_path, iter(ITEMS), draw(judgments, 8), grades=grades))
    (page,) = pages
    assert [cells(page, name)[1] for name in ("wins", "contradictions", "invalid 무효")] == [
        "0", "1", "2"]  # an invalid one stays invalid, so does what was never judged
    assert cells(page, "tuned")[1] == "10.00" and cells(page, "tuned")[3:5] == ["1", "2"]
    assert cells(page, "battle 비교")[1] == "8"
    assert "5 invalid: not judged 3, no verdict 2" in page


@pytest.mark.parametrize(("items", "judgments", "names", "message"), [
    ([*ITEMS, item("q2", "가", "나")], [], NAMES, "several items have the id q2"),
    ([item("q9", "가", None)], [], NAMES, "no 'b' in the items q9"),
    (ITEMS, [said("q9", "ab", "a")], NAMES, r"judgment q9 \(ab order\) is of no item of battle"),
    (ITEMS, [said("q1", "", "7")], NAMES, "judgment q1 is of no item of battle .*grades=.model"),
    (ITEMS, [said("q1", "ab", "a")] * 2, NAMES, r"twice in one order and repeat: q1 \(ab"),
    (ITEMS, [], ("x", "x"), "Both models are called 'x'"),
    ([], [], NAMES, "nothing to report"),
])
def test_what_cannot_be_reported_is_named(tmp_path, items, judgments, names, message):
    with pytest.raises(CourseError, match=message):
        write(tmp_path / "new", items, judgments, names=names)
    assert not (tmp_path / "new").exists()


def test_disagreements_come_by_kind_then_by_length():
    games = [Game("longer", "a", "a", 50, 10), Game("half", "a", "tie", 90, 10),
             Game("shorter", "a", "a", 10, 50), Game("graded", "b", "b", 10, 80),
             Game("second", "b", "a", 10, 20), Game("first", "a", "b", 10, 60),
             Game("invalid", "a", None, 10, 900), Game("tied", "tie", "tie", 10, 900)]
    gains = {"graded": 3, "longer": 2, "first": -5, "tied": 4}
    ranks, found, reasons = zip(*pick_disagreements(games, gains), strict=True)
    assert [game.id for game in found] == ["first", "second", "graded", "half", "longer"]
    assert ranks == (1, 1, 2, 3, 4)
    assert reasons[:2] == ("whichever was shown first won", "whichever was shown second won")
    assert [rank for rank, _, _ in pick_disagreements(games, {})] == [1, 1, 3, 4, 4]
    assert pick_disagreements([], {}) == []


def test_a_simulated_judge_is_announced_before_any_number(tmp_path):
    page = write(tmp_path, *battle(model="simulated-judge"))
    said_so = page.index("THE JUDGE WAS A SIMULATION")
    assert said_so < page.index("##") and "모의 심사자" in page
    assert "SIMULATION" not in write(tmp_path, *battle())


def test_invalid_judgments_are_listed_bounded_and_never_counted(tmp_path):
    items, judgments = battle()
    for index, why in ((0, "refusal"), (3, "truncated"), (5, "truncated")):
        judgments[index] = said(
            judgments[index].id, judgments[index].order, None,
            invalid=why, error=f"The judge's reply: {why} [[A]] | <b>",
        )  # fmt: skip
    page = write(tmp_path, items, judgments[:-1])  # a quota that ended: the last is missing
    games = games_of(items, [*judgments[:-1], said("q29", "ba")])
    found = summarize_battle(games, allow_invalid=True)
    assert found.invalid == 4 and cells(page, "invalid 무효, left out")[1] == "4"
    bounds = f"{found.worst:.1%} to {found.best:.1%}"
    assert cells(page, "win rate if all of these")[1] == bounds
    assert "4 invalid: truncated 2, refusal 1, not judged 1" in page
    row = cells(page, "q00 | battle")
    assert row[1:3] == ["battle, tuned first", "refusal"] and "&#91;&#91;A&#93;&#93;" in row[3]
    assert cells(page, "q29 | battle")[1:3] == ["battle, base first", "not judged"]


def test_a_battle_without_a_valid_question_has_no_win_rate(tmp_path):
    items, _ = battle(3)
    page = write(tmp_path, items, [said(i.id, order) for i in items for order in ("ab", "ba")])
    assert "There is no win rate" in page and "\n| win rate 승률 |" not in page
    assert "6 invalid: no verdict 6" in page
    assert "There is none among the valid questions" in page and "![" not in page


def test_grades_alone(tmp_path):
    scores = {"tuned": [9, 10, None, 8, 9, 7], "base": [2, 3, 4, 8, 1, 2]}
    page = write(tmp_path, grades={name: graded(found) for name, found in scores.items()})
    mean = summarize_grades([Grade("", score) for score in (9, 10, 8, 9, 7)])
    assert cells(page, "tuned")[1] == f"{mean.mean:.2f}" and cells(page, "tuned")[3:5] == ["5", "1"]
    assert cells(page, "tuned")[5] == "7.33 to 8.83"  # (43 + 1) / 6 and (43 + 10) / 6
    assert "On the same 5 questions tuned is graded **+5.40** against base" in page
    assert "higher on 4, equal on 1, lower on 0" in page
    assert "Win rate" not in page and "Disagreements" not in page
    assert "1 invalid: no verdict 1" in page


def test_models_graded_on_different_questions_are_not_compared(tmp_path):
    page = write(tmp_path, grades={"tuned": graded([9, 8, 7]), "base": graded([2, 3])})
    assert "No comparison of tuned and base: Graded for one model only: q02" in page


def test_disagreements_show_both_answers_and_what_was_said_in_either_order(tmp_path):
    items, judgments = battle()
    page = write(tmp_path, items, judgments)
    shown = [heading for heading in headings(page) if re.match(r"\d+\.", heading)]
    assert len(shown) == 10
    ids = [re.search(r"q\d\d", heading)[0] for heading in shown]
    contradictions = {game.id for game in games_of(items, judgments) if game.contradicts}
    assert set(ids) <= contradictions if len(contradictions) >= 10 else contradictions <= set(ids)
    code = [token.content for token in parse(page) if token.type == "fence"]
    for id in ids:
        one = next(i for i in items if i.id == id)
        expected = [one.question, one.a, one.b, f"{id}의 ab 까닭", f"{id}의 ba 까닭"]
        at = code.index(one.question + "\n")
        assert code[at : at + 5] == [text + "\n" for text in expected]


def test_grades_that_contradict_the_battle_are_worth_reading(tmp_path):
    items = [item("q00", "가나", "가나")]
    judgments = [said("q00", "ab", "a"), said("q00", "ba", "a")]
    told = {"tuned": graded([3]), "base": graded([8])}
    page = write(tmp_path, items, judgments, grades=told)
    assert "1. q00: the grades prefer the other model" in headings(page)
    assert "There is none" in write(tmp_path, items, judgments)


def test_flags_stand_beside_the_score(tmp_path):
    items = [item("q1", "Seoul is the capital.", "서울입니다.", answer_lang="ko"),
             item("q2", "Seoul is the capital.", "", answer_lang="en")]
    judgments = [said(i.id, order, "a") for i in items for order in ("ab", "ba")]
    page = write(tmp_path, items, judgments)
    assert cells(page, "q1 | tuned")[2] == "mostly not Korean: 0% Hangul"
    assert cells(page, "q2 | base")[2] == "empty answer"
    assert "2 flagged" in page and cells(page, "wins")[1] == "2"


def page_of(tmp_path, text):
    """A report in which every text of a model, and every name that people choose, is this text."""
    name = f"{text[:20]} 1" if text.strip() else "1"
    items = [replace(item(f"q{n}{text}", text, text + "."), category=f"c{n}{text}",
                     reference=text, question=text) for n in (1, 2)]
    judgments = [said("q1" + text, "ab", "a", reason=text, model=text),
                 said("q1" + text, "ba", "b", reason=text),
                 said("q2" + text, "ab", "a", reason=text)]
    judgments.append(said("q2" + text, "ba", reason=text, invalid="no verdict" + text, error=text))
    return write(tmp_path, items, judgments, names=(name, text + " 2"))


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_no_text_changes_the_page_around_it(tmp_path, number):
    text = HOSTILE[number]
    harmless, hostile = (parse(page_of(tmp_path, said)) for said in ("해롭지 않은 글", text))
    assert [t.type for t in hostile] == [t.type for t in harmless]
    kinds = [[child.type for t in tokens for child in t.children or []
              if child.type not in ("text", "text_special")] for tokens in (harmless, hostile)]
    assert kinds[0] == kinds[1]
    fences = [t.content for t in hostile if t.type == "fence"]
    assert fences.count(visible(text) + "\n") >= 4  # question, reference, an answer, two reasons


def test_from_the_simulated_judge_to_its_report(tmp_path):
    """The names that the judge gives are those that the report reads."""
    items = [Item(f"q{number}", f"{task.instruction}\n\n{task.input}".strip(), a=task.output,
                  b=task.output if number % 3 == 0 else "몰라요.", category=task.meta["family"])
             for number, task in enumerate(world.sample_tasks(6, split="heldout", seed=2))]
    judge = Judge(LLM("simulated-judge", base_url=offline_url()), repeats=2, progress=False)
    found, page = summarize_battle(judge.battle(items)), write(tmp_path, items, judge.judgments)
    assert "THE JUDGE WAS A SIMULATION" in page
    assert cells(page, "win rate")[1] == f"**{found.win_rate:.1%}**" and found.wins > 0
    assert cells(page, "battle 비교")[1:] == ["24", "16", "0", "0.0000"]
    graded = [Item(item.id, item.question, item.a) for item in items]
    judge.grade(graded)
    page = write(tmp_path, grades={"tuned": (graded, judge.judgments)})
    assert cells(page, "grades of tuned 채점")[1:4] == ["12", "12", "0"]


# ---------------------------------------------------------------- texts of models in Markdown


def texts(tokens):
    """What a reader sees of inline tokens; raises for anything but text."""
    found = []
    for token in tokens:
        for child in token.children or []:
            assert child.type in ("text", "text_special"), (child.type, child.content)
            found.append(child.content)
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_a_fenced_text_is_one_block_of_code(text):
    fence, after = [t for t in parse(f"{fenced(text)}\n\n끝") if t.type in ("fence", "inline")]
    assert fence.type == "fence" and fence.info == "text" and fence.content == visible(text) + "\n"
    assert after.content == "끝"


@given(st.text(alphabet=st.sampled_from("`~a \n\t가<>#|\r\\"), min_size=1, max_size=60))
def test_no_text_closes_its_fence(text):
    tokens = [t for t in parse(f"{fenced(text)}\n\n끝") if t.type in ("fence", "inline")]
    if text.strip():
        assert tokens[0].content == visible(text) + "\n"
        tokens = tokens[1:]
    assert [t.content for t in tokens[-1:]] == ["끝"] and len(tokens) <= 2


@pytest.mark.parametrize("text", HOSTILE)
def test_a_plain_text_stays_in_its_cell_its_heading_and_its_line(text):
    said = plain(text, 999)
    page = f"# {said}\n\n| 가 | 나 |\n| --- | --- |\n| {said} | 1 |"
    tokens = parse(page)
    kinds = [token.type for token in tokens if token.nesting == 1]
    assert kinds == ["heading_open", "table_open", "thead_open", *["tr_open"], *["th_open"] * 2,
                     "tbody_open", "tr_open", *["td_open"] * 2]  # fmt: skip
    shown = " ".join(visible(text).split())
    said = ["".join(texts([token])) for token in tokens if token.type == "inline"]
    assert said == [shown, "가", "나", shown, "1"]


@given(st.text(min_size=1, max_size=40).filter(str.strip))
def test_any_text_is_text(text):
    tokens = parse(f"처음 {plain(text, 999)} 끝")
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    shown = " ".join(visible(text).split())
    assert "".join(texts(tokens)) == f"처음 {shown} 끝"


def test_no_address_becomes_a_link_by_itself():
    """GitHub links addresses on its own: what makes them one is written as an entity."""
    said = plain("www.example.org http://example.org me@example.org")
    assert "www." not in said and "://" not in said and "@" not in said


def test_long_texts_are_cut_and_say_so():
    assert plain("가" * 100, 10) == "가" * 9 + "…"
    said = fenced("나" * 1300, 1200)
    assert said.count("나") == 1200
    assert said.endswith("(cut 생략: 100 more characters in the journal)")
    assert "cut" not in fenced("나" * 1200, 1200)


def test_what_cannot_be_seen_is_written_out():
    assert visible("a\u202eb\x00c\ud800") == "a\\u202eb\\u0000c\\ud800"
    assert visible("가\u3000나\t다\r\n라 👨\u200d👩") == "가\u3000나\t다\n라 👨\u200d👩"
    assert fenced(" \n") == "(empty 빈 글)"
    fenced("\ud800").encode("utf-8")


@given(st.text(alphabet="가나 ab", min_size=1, max_size=300).filter(str.strip))
def test_wide_lines_are_folded_between_words_without_losing_a_letter(text):
    fence, *lines, end = fenced(text).split("\n")
    assert (fence, end) == ("```text", "```")
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) + sum(c in "가나" for c in line) <= 101 for line in lines)
    said = fenced("그리고 " * 40).split("\n")[1:-1]
    assert len(said) == 3 and {line.strip().split(" ")[0] for line in said} == {"그리고"}
