"""ROUGE-L on Korean morphemes, and a filter that finds near-duplicates exactly and fast.

Self-instruct drops a new task whose ROUGE-L with anything kept so far is above 0.7. Two things
need care. ROUGE's stock tokenizer deletes every Hangul letter, so tokens here are morphemes. And
scoring every pair takes hours at Alpaca's size, so most pairs are ruled out without a score:

  ROUGE-L's F1 is 2·LCS / (m + n), and an LCS cannot be longer than what two texts share. So F1 > t
  needs at least t·m / (2 - t) shared tokens, however long the other text is. Sort the tokens of
  both texts in one fixed order, rare ones first: two texts that share that many must already meet
  within the first m - t·m / (2 - t) + 1 of them, the prefix. An index of prefixes therefore names
  every candidate, and rapidfuzz's bit-parallel LCS decides each of them.

The decisions are those of rouge-score on every pair, always; a property test holds both together.
Sources: ROUGE (Lin, 2004); prefix filtering (Chaudhuri et al., 2006; Bayardo et al., 2007).
Taught in 01, section 4.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import Indel, LCSseq

from course_utils import CourseError, korean


class Match(NamedTuple):
    """The nearest kept text: its index, the text itself, and the ROUGE-L F1 with it."""

    index: int
    text: str
    score: float


@dataclass(frozen=True)
class Filtered:
    """Indexes of the kept texts, and for each dropped index the kept text it is too close to."""

    kept: list[int]
    dropped: dict[int, Match]


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
    """Admit texts one after another; the indexes in the result are positions in `texts`.

    The same as a SimilarityFilter over the list, and faster: the texts are tokenised together, and
    token frequencies are known from the start.
    """
    texts = list(texts)
    rows = korean.forms(texts) if tokenize is morphemes else [tokenize(text) for text in texts]
    similar = SimilarityFilter(threshold, tokenize)
    similar._learn(rows)
    kept: list[int] = []
    dropped: dict[int, Match] = {}
    for index, (text, row) in enumerate(zip(texts, rows, strict=True)):
        match = similar._admit(text, row)
        if match is None:
            kept.append(index)
        else:
            dropped[index] = match._replace(index=kept[match.index])
    return Filtered(kept, dropped)


class SimilarityFilter:
    """A growing list, `texts`, that admits only what has no ROUGE-L F1 above the threshold with it.

    `tokenize` turns a text into tokens: `morphemes`, `str.split`, `list` (characters), ... The
    index of a Match is a position in `texts`; of equally near texts it names the first.
    """

    def __init__(self, threshold: float = 0.7, tokenize: Callable[[str], list[str]] = morphemes):
        if not 0 <= threshold <= 1:
            raise CourseError(f"A similarity threshold lies between 0 and 1, not at {threshold}.")
        self.threshold = threshold
        self.tokenize = tokenize
        self.texts: list[str] = []
        # A token list is held as a string with one character a token, which is what rapidfuzz
        # compares fastest. Character 0 stands for a token that was never kept.
        self._rows: list[str] = []
        self._characters: dict[str, str] = {}
        self._postings: dict[tuple[str, int], list[int]] = {}

    def __len__(self) -> int:
        return len(self.texts)

    def admit(self, text: str) -> Match | None:
        """Keep the text and return None, or leave it out and return the nearest kept text."""
        return self._admit(text, self.tokenize(text))

    def add(self, text: str) -> None:
        """Keep the text whatever it resembles, as the seeds are."""
        self._keep(text, self._encode(self.tokenize(text), learn=True))

    def nearest(self, text: str, among: int | None = None) -> Match | None:
        """The nearest of all kept texts (or of the first `among`), or None if there is none yet."""
        rows = self._rows[:among]
        if not rows:
            return None
        row = self._encode(self.tokenize(text))
        if not row:
            return Match(0, self.texts[0], 0.0)
        # Indel's similarity is 2·LCS / (m + n) and picks the few that can be nearest; which of
        # them is, down to the last bit, is then for rouge-score's own formula to say.
        _, best, _ = process.extractOne(row, rows, scorer=Indel.normalized_similarity)
        near = process.extract_iter(row, rows, scorer=Indel.normalized_similarity,
                                    score_cutoff=max(best - 1e-4, 0.0))
        scores = {index: self._score(row, index) for _, _, index in near}
        index = max(scores, key=lambda index: (scores[index], -index))
        return Match(index, self.texts[index], scores[index])

    def _admit(self, text: str, tokens: Sequence[str]) -> Match | None:
        row = self._encode(tokens, learn=True)
        candidates = self._candidates(row)
        found = process.extract_iter(row, [self._rows[index] for index in candidates],
                                     scorer=LCSseq.similarity, score_cutoff=self._least(len(row)))
        best = None
        for other, lcs, position in found:
            score = _f1(lcs, len(row), len(other))
            if score > self.threshold and (best is None or score > best.score):
                index = candidates[position]
                best = Match(index, self.texts[index], score)
        if best is None:
            self._keep(text, row)
        return best

    def _keep(self, text: str, row: str) -> None:
        for key in self._prefix(row):
            self._postings.setdefault(key, []).append(len(self.texts))
        self.texts.append(text)
        self._rows.append(row)

    def _candidates(self, row: str) -> list[int]:
        """Indexes, ascending, of all kept texts whose score could be above the threshold."""
        postings = [self._postings.get(key, ()) for key in self._prefix(row)]
        return sorted(set().union(*postings))

    def _prefix(self, row: str) -> list[tuple[str, int]]:
        # The second 는 of a text is a token of its own, rarer than the first. New tokens get higher
        # characters, so "highest first" is an order that never changes and begins with rare ones.
        seen = Counter()
        keys = []
        for character in row:
            keys.append((character, seen[character]))
            seen[character] += 1
        keys.sort(reverse=True)
        return keys[:len(row) - self._least(len(row)) + 1]

    def _least(self, length: int) -> int:
        """The least overlap, and so the least LCS, that can put a text of this length above t."""
        # The tiny margin keeps rounding on the safe side: too many candidates are only a delay.
        return max(1, math.ceil(self.threshold * length / (2 - self.threshold) - 1e-9))

    def _encode(self, tokens: Sequence[str], learn: bool = False) -> str:
        if learn:
            self._learn_tokens(tokens)
        return "".join([self._characters.get(token, "\0") for token in tokens])

    def _learn(self, rows: Sequence[Sequence[str]]) -> None:
        """Give characters to the tokens of many texts at once, the most frequent one the lowest."""
        counts = Counter(token for row in rows for token in row)
        self._learn_tokens(token for token, _ in counts.most_common())

    def _learn_tokens(self, tokens: Iterable[str]) -> None:
        for token in tokens:
            if token not in self._characters:
                if len(self._characters) + 1 > 0x10FFFF:
                    raise CourseError("More than 1,114,111 different tokens: filter the texts in "
                                      "parts, or use a tokenizer with a smaller vocabulary.")
                self._characters[token] = chr(len(self._characters) + 1)

    def _score(self, row: str, index: int) -> float:
        other = self._rows[index]
        return _f1(LCSseq.similarity(row, other), len(row), len(other))


def _f1(lcs: int, m: int, n: int) -> float:
    # In rouge-score's order of operations: 2·lcs / (m + n) can differ from it in the last bit, and
    # a threshold such as 0.5 or 0.7 is met exactly often enough for that to matter.
    if not lcs:
        return 0.0
    precision, recall = lcs / m, lcs / n
    return 2 * precision * recall / (precision + recall)
