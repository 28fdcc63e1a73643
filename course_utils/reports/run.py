"""One table for a whole run: what was generated, what was learned, how much better, how sure.

It reads sealed artefacts only, so it says what the files say:

    preprocess  tasks.jsonl, funnel.json   a GenerationReport as an object
    train       result.json                a TrainResult as an object
    evaluate    summary.json               {"by_family": {name: {"n", "before", "after"}},
                                            "unseen": {"n", "before", "after"},
                                            "battle": a BattleSummary as an object, with
                                                "truth": the true win rate, where it is known,
                                                "one_order": a VerdictSummary as an object}

Exact match and win rates are shares from 0 to 1. What an evaluation did not measure is left out.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_utils import CourseError, shown
from course_utils.checkpoint import CheckpointStore
from course_utils.recipe import Recipe
from course_utils.tasks import write_atomic

STEPS = {"preprocess": "funnel.json", "train": "result.json", "evaluate": "summary.json"}


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, before tuning (or at the start), and after."""

    what: str
    before: str = ""
    after: str = ""


def write_report(store: CheckpointStore, recipe: Recipe, *, data: Path | None = None) -> str:
    """Write report.md into the run's folder, beside the steps, and return its table as text.

    Raises CourseError for a step that was never sealed or a file that cannot be read.
    """
    rows = collect(store, data=data)
    home = store.root / store.run
    path = home / "report.md"
    rows.append(Row("everything is in", after=shown(home)))
    write_atomic(path, _markdown(rows, recipe, data))
    return format_table(rows)


def collect(store: CheckpointStore, *, data: Path | None = None) -> list[Row]:
    """Return the rows of a run from its newest sealed artefacts."""
    folders = {step: store.latest(step) for step in STEPS}
    for step, folder in folders.items():
        if folder is None:
            raise CourseError(
                f"The run '{store.run}' has no finished step '{step}' in {shown(store.root)}: run "
                f"the notebook that makes it, or all of them with make course."
            )
    funnel, result, summary = (_read(folders[step] / name) for step, name in STEPS.items())
    source = f"tasks in {data.name}" if data else "tasks generated"
    rejected = sorted(funnel.get("rejected", {}).items(), key=lambda item: -item[1])
    return [
        Row(source, after=f"{funnel['candidates']:,}"),
        Row("tasks kept", after=f"{funnel['kept']:,}"),
        *(Row(f"  rejected: {reason}", after=f"{count:,}") for reason, count in rejected),
        Row("training loss", f"{result['first_loss']:.3f}", f"{result['last_loss']:.3f}"),
        *_evaluation_rows(summary),
        Row("tasks are in", after=shown(folders["preprocess"] / "tasks.jsonl")),
        Row("adapter is in", after=shown(_adapter(folders["train"]))),
        Row("judgments are in", after=shown(folders["evaluate"])),
    ]


def format_table(rows: list[Row]) -> str:
    """Return the rows as aligned text.

    >>> print(format_table([Row("training loss", "2.310", "0.120")]))
                   before/first  after/last
    training loss         2.310       0.120
    """
    header = Row("", "before/first", "after/last")
    # A long single value (a path) must not push the columns of numbers apart.
    numbers = [row for row in rows if row.before]
    what, before = max(len(row.what) for row in rows), len(header.before)
    after = max([len(header.after), *(len(row.after) for row in numbers)])
    lines = []
    for row in [header, *rows]:
        line = f"{row.what:<{what}}  {row.before:>{before}}  "
        # Numbers end at one edge; whatever is too long for the column starts at its beginning.
        line += f"{row.after:>{after}}" if len(row.after) <= after else row.after
        lines.append(line.rstrip())
    return "\n".join(lines)


def _evaluation_rows(summary: dict[str, Any]) -> list[Row]:
    rows = []
    families = summary.get("by_family") or {}
    if families:
        n = sum(family["n"] for family in families.values())
        mean = {
            side: sum(family[side] * family["n"] for family in families.values()) / n
            for side in ("before", "after")
        }
        rows.append(_match_row("exact match, held out", {"n": n, **mean}))
        rows += [_match_row(f"  {name}", family) for name, family in families.items()]
    if summary.get("unseen"):
        rows.append(_match_row("exact match, unseen wordings", summary["unseen"]))
    if battle := summary.get("battle"):
        rows.append(Row("win rate of the tuned model", after=_with_interval(battle)))
        rows.append(Row("  questions, both orders", after=f"{battle['n']:,}"))
        if battle.get("contradictions"):
            rows.append(Row("  contradictions", after=f"{battle['contradictions']:,}"))
        if battle.get("invalid"):
            rows.append(Row("  invalid judgments", after=f"{battle['invalid']:,}"))
        if battle.get("truth") is not None:
            rows.append(Row("  true win rate (simulated world)", after=f"{battle['truth']:.1%}"))
        if one := battle.get("one_order"):
            rows.append(Row("  one order alone would say", after=_with_interval(one)))
    return rows


def _match_row(what: str, score: dict[str, Any]) -> Row:
    return Row(f"{what} ({score['n']})", f"{score['before']:.1%}", f"{score['after']:.1%}")


def _with_interval(rate: dict[str, Any]) -> str:
    low, high = rate.get("interval") or rate["wilson"]  # the latter in summaries sealed before
    return f"{rate['win_rate']:.1%} (95%: {low:.1%} to {high:.1%})"


def _adapter(folder: Path) -> Path:
    """Return the folder that holds the adapter within a sealed training step."""
    found = sorted(folder.rglob("adapter_model.safetensors"), key=lambda p: len(p.parts))
    return found[0].parent if found else folder


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(
            f"{shown(path)} cannot be read ({error}): run that step's notebook again."
        ) from None


def _markdown(rows: list[Row], recipe: Recipe, data: Path | None) -> str:
    lines = ["| | before / first | after / last |", "|---|---:|---:|"]
    for row in rows:
        what = re.sub("^  ", "&nbsp;&nbsp;", row.what)
        lines.append(f"| {what} | {row.before} | {row.after} |")
    own = f", own tasks from {data.name}" if data else ""
    parts = [
        f"# The run '{recipe.name}'",
        f"Base model {recipe.base_model}, teacher {recipe.teacher.model}, "
        f"judge {recipe.judge.model}{own}.",
        "\n".join(lines),
        "Exact match: the first line of the reply equals the reference. Win rate: the judge "
        "compared the tuned model with its base on each question in both orders: a win needs both, "
        "a tie or a contradiction is half a win, and the 95% interval counts questions, not "
        "verdicts.",
    ]
    if recipe.teacher.simulated or recipe.judge.simulated:
        parts.insert(2, "**Teacher and judge are simulations** with a known truth, for learning "
                     "how the parts work: these numbers say nothing about real models.")
    return "\n\n".join(parts) + "\n"
