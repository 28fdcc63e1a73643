"""Strengths of several models from battles between pairs of them."""

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from course_utils.agreement import count_invalid
from course_utils.intervals import StatsError


def bradley_terry(
    games: Mapping[tuple[str, str], Iterable[Any]], *, allow_invalid: bool = False
) -> dict[str, float]:
    """Strengths of several models from their battles: {("tuned", "base"): games} -> log-strengths.

    Model x beats y with probability 1 / (1 + exp(strength[y] - strength[x])); the strengths have
    mean 0, and a tie is half a win for each. Raises StatsError for invalid judgments, and when some
    models never lost to the others, for then no finite strength fits. Hunter, Ann. Stat. 32 (2004).
    """
    won: dict[str, dict[str, float]] = {}  # won[x][y]: questions that x won against y
    for (a, b), battle in games.items():
        battle = list(battle)
        scores = [game.score for game in battle if game.score is not None]
        count_invalid(battle, scores, f"questions of {a} against {b}", allow_invalid)
        for x, y, points in [(a, b, sum(scores)), (b, a, len(scores) - sum(scores))]:
            row = won.setdefault(x, {})
            row[y] = row.get(y, 0) + points
    if not won:
        raise StatsError("Bradley-Terry needs at least one battle.")
    _refuse_unbeaten(won)
    strength = dict.fromkeys(won, 1.0)
    for _ in range(10_000):
        update = {}
        for x, row in won.items():
            faced = sum((row[y] + won[y][x]) / (strength[x] + strength[y]) for y in row)
            update[x] = sum(row.values()) / faced
        mean = fmean(math.log(s) for s in update.values())
        update = {x: s / math.exp(mean) for x, s in update.items()}
        moved = max(abs(math.log(update[x] / strength[x])) for x in won)
        strength = update
        if moved < 1e-10:
            break
    return {x: math.log(s) for x, s in strength.items()}


def _refuse_unbeaten(won: dict[str, dict[str, float]]) -> None:
    """Every model must have lost to every other, at least through a chain of losses."""
    for start in won:
        reached, frontier = {start}, [start]
        while frontier:
            x = frontier.pop()
            new = {y for y, points in won[x].items() if points > 0} - reached
            reached |= new
            frontier += new
        if unbeaten := sorted(won.keys() - reached):
            raise StatsError(
                f"Bradley-Terry has no finite answer: {', '.join(unbeaten)} never lost to {start}, "
                "not even through other models; add battles between them."
            )
