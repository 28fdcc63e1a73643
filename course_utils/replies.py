"""What can be counted on replies without a judge: exact match, stopping, repetition."""

from collections import Counter
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from course_utils.intervals import StatsError


def exact_match(reply: str, reference: str) -> bool:
    """Whether the first line of a reply is the reference, white space at its ends apart.

    The first line, because a base model that never learned to stop goes on after its answer: this
    judges it generously. exact_match("4\nand then", "4") -> True. Taught in 03, section 2.
    """
    lines = reply.strip().splitlines()
    return bool(lines) and lines[0].strip() == reference.strip()


def stop_rate(replies: Iterable[Any]) -> float:
    """Share of generated replies that ended by themselves, not at the limit of new tokens.

    Takes what `inference.generate` returns: objects with `stopped`. Raises StatsError without any.
    """
    stopped = [reply.stopped for reply in replies]
    if not stopped:
        raise StatsError("A stop rate needs at least one reply.")
    return fmean(stopped)


def repetition_rate(texts: Iterable[str], *, n: int = 4, times: int = 3) -> float:
    """Share of replies in which the same n words in a row, white space apart, come `times` times.

    Four words that come three times are how a model that has lost its thread sounds; people
    hardly ever write so. Raises StatsError without a reply.

    >>> repetition_rate(["네, 알겠습니다.", "비가 오면 나는 비가 오면 나는 비가 오면 나는 비가"])
    0.5
    """
    repeated = []
    for text in texts:
        words = text.split()
        grams = Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
        repeated.append(max(grams.values(), default=0) >= times)
    if not repeated:
        raise StatsError("A repetition rate needs at least one reply.")
    return fmean(repeated)
