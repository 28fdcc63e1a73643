"""ROUGE-L on Korean morphemes, and a filter that finds near-duplicates exactly and fast.

Self-instruct drops a new task whose ROUGE-L with anything kept so far is above 0.7. Two things
need care. ROUGE's stock tokenizer deletes every Hangul letter, so tokens here are morphemes. And
scoring every pair takes hours at Alpaca's size, so all but a few are ruled out without a score:

  The bound. ROUGE-L's F1 is 2·LCS / (m + n), and an LCS cannot be longer than the number of tokens
  that two texts share, in whatever order. An F1 of t takes at least t·(m + n) / 2 shared tokens.

  The count. For each token there is one long integer whose bit i says "kept text i has it". Write
  the integers of a new text's tokens below each other and add up every column:

      kept       나 는 간다    너 는 온다    나 는 온다
      나             1             0             1
      는             1             1             1
      온다           0             1             1
      shared         2             2             3

  Done with &, | and ^ on whole integers, this counts thousands of texts in microseconds.

The texts that share most are scored first, by rapidfuzz's bit-parallel LCS; where no other can be
nearer, the search ends. The decisions are those of rouge-score on every pair, always.
Sources: ROUGE (Lin, 2004); overlap by bitmaps (Kaser and Lemire, 2014). Taught in 01, section 4.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from course_utils import CourseError, korean


class Match(NamedTuple):
    """The nearest kept text: its index, the text itself, and the ROUGE-L F1 with it."""

    index: int
    text: str
    score: float


@dataclass(frozen=True)
class Filtered:
    """Indexes of the kept texts, and for each dropped index the kept text it is too close to.

    `scored` is how many pairs the bound left to be scored.
    """

    kept: list[int]
    dropped: dict[int, Match]
    scored: int


def morphemes(text: str) -> list[str]:
    """The surface forms of Kiwi's tokens, punctuation included and parts of speech left out.

    "지도를 보자." -> ["지도", "를", "보", "자", "."]
    """
    return [form for form, _ in korean.tokens(text)]


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """ROUGE-L F1 of two token lists, equal to the last bit to rouge-score's `fmeasure` on them.

    (["나", "는", "간다"], ["너", "는", "간다"]) -> 0.667
    """
    return _f1(LCSseq.similarity(list(a), list(b)), len(a), len(b))


def filter_similar(texts: Iterable[str], threshold: float = 0.7,
                   tokenize: Callable[[str], list[str]] = morphemes) -> Filtered:
    """Admit the texts in their order, tokenised together; all indexes are positions in `texts`."""
    texts = list(texts)
    rows = iter(korean.forms(texts) if tokenize is morphemes else map(tokenize, texts))
    similar = SimilarityFilter(threshold, lambda text: next(rows))
    kept, dropped = [], {}
    for index, text in enumerate(texts):
        match = similar.admit(text)
        if match is None:
            kept.append(index)
        else:
            dropped[index] = match._replace(index=kept[match.index])
    return Filtered(kept, dropped, similar.scored)


class SimilarityFilter:
    """A growing list, `texts`, that admits only what has no ROUGE-L F1 above the threshold with it.

    `tokenize` turns a text into tokens: `morphemes`, `str.split`, `list` (characters), ... Of
    equally near texts a Match names the first, by its position in `texts`.
    """

    def __init__(self, threshold: float = 0.7, tokenize: Callable[[str], list[str]] = morphemes):
        if not 0 <= threshold <= 1:
            raise CourseError(f"A similarity threshold lies between 0 and 1, not at {threshold}.")
        self.threshold = threshold
        self.tokenize = tokenize
        self.texts: list[str] = []
        self.scored = 0  # pairs so far for which the bound did not suffice
        # A token list is held as a string with one character a token, which is what rapidfuzz
        # compares fastest. Character 0 stands for a token that was never kept.
        self._characters: dict[str, str] = {}
        self._groups: dict[int, _Group] = {}

    def __len__(self) -> int:
        return len(self.texts)

    def admit(self, text: str) -> Match | None:
        """Keep the text and return None, or leave it out and return the nearest kept text."""
        row = self._encode(self.tokenize(text), learn=True)
        match = self._above(self.threshold, row)
        if match is None:
            self._keep(text, row)
        return match

    def add(self, text: str) -> None:
        """Keep the text whatever it resembles, as the seeds are."""
        self._keep(text, self._encode(self.tokenize(text), learn=True))

    def nearest(self, text: str, among: int | None = None) -> Match | None:
        """The nearest of all kept texts (or of the first `among`), or None if there is none yet."""
        if not self.texts[:among]:
            return None
        match = self._above(0.0, self._encode(self.tokenize(text)), among)
        return match or Match(0, self.texts[0], 0.0)

    def _keep(self, text: str, row: str) -> None:
        digits = len(row).bit_length()
        self._groups.setdefault(digits, _Group(digits)).append(len(self), row)
        self.texts.append(text)

    def _above(self, floor: float, row: str, among: int | None = None) -> Match | None:
        """The nearest kept text (of the first `among`), if its score is above the floor."""
        length, tokens = len(row), _numbered(row)
        score, index = floor, -1
        # Texts of much the same length first: a high score ends the search of the others early.
        for group in sorted(self._groups.values(), key=lambda group: abs(group.shortest - length)):
            least = _least(score, length, group.shortest)
            if least > min(length, group.longest):
                continue
            having = list(filter(None, map(group.having.get, tokens)))
            sums = _add(having) if len(having) >= least else []
            old = len(group.rows) if among is None else bisect_left(group.indexes, among)
            left = (1 << old) - 1
            while True:
                least = _least(score, length, group.shortest)
                shared, most = _largest(sums, left)
                if shared < least:
                    break
                left ^= most
                self.scored += most.bit_count()
                for other, found in group.scores(row, most, least):
                    if found > score or found == score and other < index:
                        score, index = found, other
        return None if index < 0 else Match(index, self.texts[index], score)

    def _encode(self, tokens: Sequence[str], learn: bool = False) -> str:
        for token in tokens if learn else ():
            if token not in self._characters:
                self._characters[token] = chr(len(self._characters) + 1)
        return "".join([self._characters.get(token, "\0") for token in tokens])


class _Group:
    """Kept texts of similar length: 4 to 7 tokens, 8 to 15, ... (as many binary digits)."""

    def __init__(self, digits: int):
        self.shortest, self.longest = 1 << digits >> 1, (1 << digits) - 1
        self.indexes: list[int] = []
        self.rows: list[str] = []
        self.having: dict[str, int] = {}  # bit i is set if rows[i] has the token

    def append(self, index: int, row: str) -> None:
        bit = 1 << len(self.rows)
        for token in _numbered(row):
            self.having[token] = self.having.get(token, 0) | bit
        self.indexes.append(index)
        self.rows.append(row)

    def scores(self, row: str, bits: int, least: int) -> Iterator[tuple[int, float]]:
        """(index, F1) of those texts among the bits whose LCS with the row is `least` or longer."""
        others = {}
        while bits:
            place = bits.bit_length() - 1
            others[self.indexes[place]] = self.rows[place]
            bits ^= 1 << place
        found = process.extract_iter(row, others, scorer=LCSseq.similarity, score_cutoff=least)
        for other, lcs, index in found:
            yield index, _f1(lcs, len(row), len(other))


def _numbered(row: str) -> list[str]:
    """The tokens with a number each: the second 는 of a text counts as a token of its own."""
    seen: Counter[str] = Counter()
    tokens = []
    for token in row:
        tokens.append(token + chr(seen[token]))
        seen[token] += 1
    return tokens


def _add(numbers: list[int]) -> list[int]:
    """Sums of the columns of bits: result[0] has the ones of every sum, result[1] the twos, ...

    [0b01, 0b01, 0b11] -> [0b11, 0b01]: the columns add up to 1 and 3
    """
    result = []
    while numbers:
        total, carries, pairs = 0, [], iter(numbers)
        for a, b in zip_longest(pairs, pairs, fillvalue=0):  # three bits become one and a carry
            either = a ^ b
            carry = a & b | either & total
            total ^= either
            if carry:
                carries.append(carry)
        result.append(total)
        numbers = carries
    return result


def _largest(columns: list[int], among: int) -> tuple[int, int]:
    """The largest sum in the columns whose bit is set in `among`, and the columns that have it."""
    largest = 0
    for place in reversed(range(len(columns))):
        if among & columns[place]:
            among &= columns[place]
            largest += 1 << place
    return largest, among


def _least(score: float, m: int, n: int) -> int:
    """The least overlap, and so the least LCS, that texts of m and n tokens need for a score."""
    # The margin keeps rounding on the safe side: a text too many is only a delay.
    return max(1, math.ceil(score * (m + n) / 2 - 1e-9))


def _f1(lcs: int, m: int, n: int) -> float:
    # In rouge-score's order of operations: 2·lcs / (m + n) can differ from it in the last bit, and
    # a threshold such as 0.5 or 0.7 is met exactly often enough for that to matter.
    if not lcs:
        return 0.0
    precision, recall = lcs / m, lcs / n
    return 2 * precision * recall / (precision + recall)
