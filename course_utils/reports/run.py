"""One table for a whole run: what was generated, what was learned, how much better, how sure.

It reads sealed artefacts only, so it says what the files say:

    preprocess  tasks.jsonl, funnel.json   a GenerationReport as an object
    train       result.json, adapter       a TrainResult as an object
    evaluate    summary.json               {"by_family": {name: {"n", "before", "after"}},
                                            "unseen": {"n", "before", "after"},
                                            "battle": a BattleSummary as an object, with "truth",
                                                the true win rate, where it is known, and
                                                "one_order", a VerdictSummary as an object}

Exact match and win rates are shares from 0 to 1. What an evaluation did not measure is left out.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from course_utils import CourseError, shown
from course_utils.checkpoint import CheckpointStore
from course_utils.recipe import Recipe
from course_utils.reports.judgments import plain
from course_utils.tasks import write_atomic

STEPS = {"preprocess": "funnel.json", "train": "result.json", "evaluate": "summary.json"}


class Row(NamedTuple):
    """One line: what was measured, before tuning (or at the start of training), and after."""

    what: str
    before: str = ""
    after: str = ""


def write_report(store: CheckpointStore, recipe: Recipe, *, data: Path | None = None) -> str:
    """Write report.md into the run's folder, beside the steps, and return its table as text.
    Raises CourseError for a step that was never sealed."""
    home = store.root / store.run
    rows = [*collect(store, data=data), Row("everything is in", after=shown(home))]
    write_atomic(home / "report.md", _markdown(rows, recipe, data))
    return format_table(rows)


def collect(store: CheckpointStore, *, data: Path | None = None) -> list[Row]:
    """The rows of a run from its newest sealed artefacts."""
    folders = {step: store.latest(step) for step in STEPS}
    for step, folder in folders.items():
        if folder is None:
            raise CourseError(f"The run '{store.run}' has no finished step '{step}' in "
                              f"{shown(store.root)}: run its notebook, or make course.")
    funnel, result, summary = (json.loads((folders[step] / name).read_text("utf-8"))
                               for step, name in STEPS.items())
    source = f"tasks in {data.name}" if data else "tasks generated"
    adapter = folders["train"] / "adapter"
    rejected = sorted(funnel.get("rejected", {}).items(), key=lambda item: -item[1])
    return [
        Row(source, after=f"{funnel['candidates']:,}"),
        Row("tasks kept", after=f"{funnel['kept']:,}"),
        *(Row(f"  rejected: {reason}", after=f"{count:,}") for reason, count in rejected),
        Row("training loss", f"{result['first_loss']:.3f}", f"{result['last_loss']:.3f}"),
        *_exact_match(summary),
        *_win_rate(summary.get("battle") or {}),
        Row("tasks are in", after=shown(folders["preprocess"] / "tasks.jsonl")),
        Row("adapter is in", after=shown(adapter if adapter.is_dir() else folders["train"])),
        Row("judgments are in", after=shown(folders["evaluate"])),
    ]


def _exact_match(summary: dict[str, Any]) -> list[Row]:
    scores = {f"  {name}": score for name, score in (summary.get("by_family") or {}).items()}
    if scores:
        n = sum(score["n"] for score in scores.values())
        mean = {side: sum(score[side] * score["n"] for score in scores.values()) / n
                for side in ("before", "after")}
        scores = {"exact match, held out": {"n": n, **mean}, **scores}
    if summary.get("unseen"):
        scores["exact match, unseen wordings"] = summary["unseen"]
    return [Row(f"{what} ({score['n']})", f"{score['before']:.1%}", f"{score['after']:.1%}")
            for what, score in scores.items()]


def _win_rate(battle: dict[str, Any]) -> list[Row]:
    def rate(judged: dict[str, Any]) -> str:
        low, high = judged["interval"]
        return f"{judged['win_rate']:.1%} (95%: {low:.1%} to {high:.1%})"

    if not battle:
        return []
    rows = [Row("win rate of the tuned model", after=rate(battle)),
            Row("  questions, both orders", after=f"{battle['n']:,}")]
    if battle.get("contradictions"):
        rows.append(Row("  contradictions", after=f"{battle['contradictions']:,}"))
    if battle.get("invalid"):
        rows.append(Row("  invalid, left out", after=f"{battle['invalid']:,}"))
        rows += [Row(f"  win rate if all of these were {end}", after=f"{battle[name]:.1%}")
                 for end, name in (("lost", "worst"), ("won", "best")) if name in battle]
    if battle.get("truth") is not None:
        rows.append(Row("  true win rate (simulated world)", after=f"{battle['truth']:.1%}"))
    if one := battle.get("one_order"):
        rows.append(Row("  one order alone would say", after=rate(one)))
    return rows


def format_table(rows: list[Row]) -> str:
    """The rows as aligned text, under "before/first" and "after/last"."""
    header = Row("", "before/first", "after/last")
    width = max(len(row.what) for row in rows)
    # Numbers end at one edge; whatever is too long for a column starts at its beginning.
    return "\n".join(f"{row.what:<{width}}  {row.before:>12}  {row.after:>10}".rstrip()
                     for row in (header, *rows))


def _markdown(rows: list[Row], recipe: Recipe, data: Path | None) -> str:
    # Names of files, models and families are other people's: `plain`, or they would be Markdown.
    own = f", own tasks from {data.name}" if data else ""
    asked = plain(f"Base model {recipe.base_model}, teacher {recipe.teacher.model}, judge "
                  f"{recipe.judge.model}{own}.", 999)
    simulated = ""
    if recipe.teacher.simulated or recipe.judge.simulated:
        simulated = ("**Teacher and judge are simulations**: these numbers say nothing about real "
                     "models.\n\n")
    table = "\n".join(f"| {'&nbsp;&nbsp;' * row.what.startswith('  ')}"
                      f"{' | '.join(plain(cell, 999) for cell in row)} |" for row in rows)
    return (f"# The run '{plain(recipe.name)}'\n\n{asked}\n\n{simulated}"
            f"| | before / first | after / last |\n|---|---:|---:|\n{table}\n\n"
            "Exact match: the first line of the reply equals the reference; of a reference of "
            "several lines, as many lines as it has. Win rate: the judge compared both models on "
            "each question in both orders: a win needs both, a tie or a contradiction is half a "
            "win, and the 95% interval counts questions, not verdicts.\n")
