"""The closing table: everything it says comes from sealed files, and nothing is made up."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("markdown_it")

from markdown_it import MarkdownIt

from course_utils import CourseError
from course_utils.checkpoint import CheckpointStore
from course_utils.inference import Device
from course_utils.recipe import load_recipe
from course_utils.reports.card import card
from course_utils.reports.doctor import steps
from course_utils.reports.run import Row, collect, format_table, write_report

FUNNEL = {"candidates": 2480, "kept": 2300, "rejected": {"similar": 120, "medium": 60},
          "calls": 124}
RESULT = {"first_loss": 2.31, "last_loss": 0.1234, "steps": 288}
SUMMARY = {
    "by_family": {
        "politeness": {"n": 30, "before": 0.0, "after": 1.0},
        "reversal": {"n": 10, "before": 0.1, "after": 0.6},
    },
    "unseen": {"n": 24, "before": 0.0, "after": 0.75},
    "battle": {
        "n": 60, "win_rate": 0.9, "interval": [0.811, 0.949], "wilson": [0.798, 0.953],
        "contradictions": 7, "invalid": 0, "truth": 0.88,
        "one_order": {"n": 60, "win_rate": 0.97, "interval": [0.9, 0.99]},
    },
}  # fmt: skip


def sealed_run(root, funnel=FUNNEL, summary=SUMMARY, run="offline"):
    store = CheckpointStore.open(run, root)
    files = {
        "preprocess/tasks.jsonl": "{}\n",
        "preprocess/funnel.json": json.dumps(funnel),
        "train/result.json": json.dumps(RESULT),
        "train/adapter/adapter_model.safetensors": "",
        "evaluate/summary.json": json.dumps(summary),
    }
    for name, content in files.items():
        step, _, inner = name.partition("/")
        path = store.local(step) / inner
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for step in ("preprocess", "train", "evaluate"):
        store.seal(step)
    return store


def test_every_number_of_the_run_is_in_the_table(tmp_path):
    store = sealed_run(tmp_path)
    rows = {row.what: row for row in collect(store)}
    assert rows["tasks generated"].after == "2,480" and rows["tasks kept"].after == "2,300"
    assert rows["  rejected: similar"].after == "120" and rows["  rejected: medium"].after == "60"
    assert rows["training loss"] == Row("training loss", "2.310", "0.123")
    # A mean over tasks, not over families: (0.1 * 10) / 40 and (30 + 6) / 40.
    overall = rows["exact match, held out (40)"]
    assert (overall.before, overall.after) == ("2.5%", "90.0%")
    assert rows["  reversal (10)"].after == "60.0%"
    assert rows["exact match, unseen wordings (24)"].after == "75.0%"
    assert rows["win rate of the tuned model"].after == "90.0% (95%: 81.1% to 94.9%)"
    assert rows["  contradictions"].after == "7"
    assert rows["  true win rate (simulated world)"].after == "88.0%"
    assert rows["  one order alone would say"].after == "97.0% (95%: 90.0% to 99.0%)"
    assert "  invalid" not in rows
    assert rows["adapter is in"].after.endswith("offline/train/part-0001/adapter")


def test_the_report_is_written_beside_the_steps(tmp_path):
    store = sealed_run(tmp_path)
    table = write_report(store, load_recipe("offline"))
    report = (tmp_path / "offline" / "report.md").read_text(encoding="utf-8")
    assert "simulations" in report and "90.0% (95%: 81.1% to 94.9%)" in report
    assert "training loss" in table and "training loss" in report
    assert write_report(store, load_recipe("offline")) == table


def test_a_real_recipe_is_not_called_a_simulation(tmp_path):
    store = sealed_run(tmp_path)
    write_report(store, load_recipe("gemma-2b-l4"))
    report = (tmp_path / "offline" / "report.md").read_text(encoding="utf-8")
    assert "simulations" not in report and "google/gemma-2b-it" in report


def test_own_data_and_an_evaluation_without_families(tmp_path):
    store = sealed_run(
        tmp_path,
        funnel={"candidates": 12, "kept": 9, "rejected": {}},
        summary={"battle": {"n": 9, "win_rate": 0.5, "interval": [0.2, 0.8], "invalid": 2,
                            "worst": 0.4, "best": 0.6}},
    )
    table = write_report(store, load_recipe("offline"), data=tmp_path / "mine.json")
    assert "tasks in mine.json" in table and "exact match" not in table
    assert re.search("  invalid, left out +2\n.* all of these were lost +40.0%\n.* won +60", table)
    assert "true win rate" not in table
    assert "50.0% (95%: 20.0% to 80.0%)" in table


HOSTILE_NAMES = [
    "a | b", "<b>x</b>.json", "<script>alert(1)</script>", "![x](http://a.example/x)", "a\\|b",
    "[가](javascript:alert(1))", "**굵게** `code` $x$ ~~줄~~", "&lt;b&gt; &#124;", "www.a.eu @b",
    "줄\n# 제목\n\n| 1 | 2 |\n|---|---|", "\u202e뒤집힘\x1b[31m"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_of_a_file_a_model_or_a_family_changes_the_page(name, tmp_path):
    def page(name):
        by_family = {name: {"n": 2, "before": 0.0, "after": 0.5}}
        store = sealed_run(tmp_path / str(len(name)), summary=SUMMARY | {"by_family": by_family},
                           funnel=FUNNEL | {"rejected": {name: 1}})
        recipe = load_recipe("offline").replace("base_model", name)
        recipe = recipe.replace("teacher.model", name).replace("judge.model", f"served {name}")
        data = Path("of") / name.replace("/", "\N{DIVISION SLASH}")
        write_report(store, recipe, data=data)
        text = (store.root / store.run / "report.md").read_text(encoding="utf-8")
        tokens = MarkdownIt("commonmark").enable("table").parse(text)
        inner = [child.type for token in tokens for child in token.children or []]
        return text, [token.type for token in tokens], {*inner} - {"text", "text_special"}

    (text, *kinds), (_, *expected) = page(name), page("harmless")
    assert kinds == expected
    assert "<" not in text and "\x1b" not in text and "\u202e" not in text and "www." not in text


def test_the_card_says_one_thing_a_line_whatever_its_files_are_called(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    recipe = load_recipe("offline").replace("judge.model", "x\nTeacher   free\x1b[31m\u202e")
    said = card(recipe, CheckpointStore.open("offline", tmp_path), Device("cpu", "CPU"),
                data=Path("a\rb\nJudge c.json"), base="tiny", why="asked for", drive=None)
    names = [line.split()[0] for line in said.split("\n")]
    assert len(names) == len(set(names)) and said.replace("\n", "").isprintable()
    assert "\nJudge       x Teacher   free [31m : SIMULATED" in said
    assert r"a\rb\nJudge c.json, instead" in said


def test_the_doctor_only_looks(tmp_path):
    def there():
        return {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}

    store, empty = sealed_run(tmp_path), CheckpointStore.open("never-begun", tmp_path)
    before = there()
    told = steps(store, load_recipe("offline")) + steps(empty, load_recipe("offline"))
    assert there() == before
    assert "preprocess/part-0001" not in told[0] and "part-0001 whole (2 files)" in told[0]
    assert told[3].startswith("preprocess   nothing yet\n")


def test_a_step_that_was_never_sealed_is_named(tmp_path):
    with pytest.raises(CourseError, match="no finished step 'preprocess'"):
        collect(CheckpointStore.open("offline", tmp_path))


def test_the_table_is_aligned_and_long_values_do_not_widen_it():
    rows = [Row("training loss", "2.310", "0.120"),
            Row("everything is in", after="runs/" + "x" * 60)]
    header, loss, place = format_table(rows).split("\n")
    assert header.index("before/first") + len("before/first") == loss.index("2.310") + 5
    assert len(loss) == len(header)
    assert place.index("runs/") == header.index("after/last")
