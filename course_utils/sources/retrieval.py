"""Texts of your own field, and the pieces of them that fit a question.

    folder of text files, or a search -> documents -> passages -> the best few for a question

Which passages fit is decided by BM25 on nouns, exactly and without a model: a word that both share
counts more the fewer passages hold it. Source: BM25 (Robertson and Zaragoza, 2009).
Taught in 01, section 9.
"""

import html
import http.client
import json
import math
import re
import time
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from course_utils import CourseError, korean
from course_utils.tasks import read_text


@dataclass(frozen=True)
class Document:
    """A text, and the name it goes by: a file's name, or the address of a page."""

    name: str
    text: str


@dataclass(frozen=True)
class Passage:
    """A piece of a document, short enough to be shown: `text` is document.text[start:end]."""

    name: str
    start: int
    end: int
    text: str


# ---------------------------------------------------------------- documents


def read_documents(folder) -> list[Document]:
    """Read the .txt and .md files of a folder (UTF-8) in the order of their names.

    Raises CourseError, naming the file and the cure, for one that is empty or not UTF-8.
    """
    folder = Path(folder)
    paths = [path for path in folder.glob("*.*") if path.suffix.lower() in (".txt", ".md")]
    paths = sorted(path for path in paths if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise CourseError(f"There is no .txt or .md file in {folder}: put your documents there, or "
                          "check the folder's name.")
    documents = []
    for path in paths:
        text = unicodedata.normalize("NFC", read_text(path)).replace("\r\n", "\n")
        if not text.strip():
            raise CourseError(f"{path} is empty: put its text into it, or remove the file.")
        documents.append(Document(unicodedata.normalize("NFC", path.name), text))
    return documents


NAVER_KINDS = ("webkr", "encyc", "blog", "news")


def search_naver(query: str, display: int = 5, *, client_id: str, client_secret: str,
                 kind: str = "webkr", base_url: str = "https://openapi.naver.com",
                 timeout: float = 10, retries: int = 3, backoff: float = 0.5) -> list[Document]:
    """Ask Naver's search API for up to 100 documents: title and extract, named by their address.

    `kind` is webkr (web pages), encyc, blog or news; `timeout` and `backoff` (the first pause
    before a retry) are seconds. What comes back are short extracts of other people's texts: read
    Naver's terms and the licence of each page before you publish what is made from them.

    Raises CourseError in one sentence, which never holds the id or the secret.
    """
    if not 1 <= display <= 100 or kind not in NAVER_KINDS:
        raise CourseError(f"Naver gives 1 to 100 documents of the kind {', '.join(NAVER_KINDS)}, "
                          f"not {display} of {kind}.")
    if not all(re.fullmatch(r"[!-~]+", value.strip()) for value in (client_id, client_secret)):
        raise CourseError("The Naver client id or secret is empty or holds a character that no key "
                          "has: copy both again from developers.naver.com.")
    asked = urllib.parse.urlencode({"query": query, "display": display})
    request = urllib.request.Request(f"{base_url}/v1/search/{kind}.json?{asked}")
    # Unredirected: whatever the answer, the keys go to this address and to no other.
    request.add_unredirected_header("X-Naver-Client-Id", client_id.strip())
    request.add_unredirected_header("X-Naver-Client-Secret", client_secret.strip())
    local = urllib.parse.urlsplit(base_url).hostname in ("localhost", "127.0.0.1", "::1")
    # A proxy set for the outside world must not be asked for a server on this machine.
    opener = urllib.request.build_opener(*[urllib.request.ProxyHandler({})] * local)
    for attempt in range(retries + 1):
        try:
            with opener.open(request, timeout=timeout) as response:
                items = json.load(response)["items"]
            return [Document(item["link"], _unmarked(f"{item['title']}\n{item['description']}"))
                    for item in items]
        except urllib.error.HTTPError as error:
            problem = _naver_problem(error)
        except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            problem = f"{base_url} gave no usable answer ({reason})"
        if attempt < retries:
            time.sleep(backoff * 2**attempt)
    raise CourseError(f"{problem}; {retries + 1} attempts were made: try again later.") from None


def _naver_problem(error: urllib.error.HTTPError) -> str:
    """What may pass, as a sentence; raises CourseError for what no retry will cure."""
    with error:
        try:
            body = json.load(error)
            code, said = body["errorCode"], body["errorMessage"].rstrip(".")
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            code, said = "no code", error.reason
    said = f"({error.code}, {code}: {said})"
    if error.code == 401:
        raise CourseError(f"Naver refused the client id and secret {said}: check NAVER_CLIENT_ID "
                          "and NAVER_CLIENT_SECRET, and that the application at "
                          "developers.naver.com has 검색 among its APIs.") from None
    if error.code == 429 and code == "010":
        raise CourseError(f"Naver's daily number of searches is used up {said}: go on "
                          "tomorrow.") from None
    if error.code < 500 and error.code != 429:
        raise CourseError(f"Naver refused the search {said}: check the query, the kind and the "
                          "address.") from None
    return f"Naver is too busy or out of order {said}"


def _unmarked(text: str) -> str:
    """The text without the tags and entities that Naver marks it up with."""
    return html.unescape(re.sub(r"</?[A-Za-z][^>]*>", "", text)).strip()


# ---------------------------------------------------------------- passages


def passages(documents: Iterable[Document], words: int = 80) -> list[Passage]:
    """Cut documents into passages of at most `words` 어절, between paragraphs if that will do.

    A paragraph that is too long is cut between sentences, and a sentence that is too long between
    words. Nothing is left out but the white space at the cuts.
    """
    found = []
    for document in documents:
        for start, end in _spans(document.text, 0, len(document.text), words, _BOUNDARIES):
            if text := document.text[start:end].strip():
                start = document.text.index(text, start)
                found.append(Passage(document.name, start, start + len(text), text))
    return found


_BOUNDARIES = [re.compile(edge) for edge in (r"\n\s*\n", r"(?<=[.?!])[\"'”’)]*\s+|\n", r"\s+")]


def _spans(text: str, start: int, end: int, words: int, boundaries) -> list[tuple[int, int]]:
    """Cut text[start:end] at the first kind of boundary that will do, into as few as possible."""
    if len(text[start:end].split()) <= words or not boundaries:
        return [(start, end)]
    spans: list[tuple[int, int]] = []
    edges = [match.end() for match in boundaries[0].finditer(text, start, end)]
    for piece in pairwise([start, *edges, end]):
        for a, b in _spans(text, *piece, words, boundaries[1:]):
            if spans and len(text[spans[-1][0]:b].split()) <= words:
                a, _ = spans.pop()
            spans.append((a, b))
    return spans


# ---------------------------------------------------------------- which of them fit

_CONTENT = frozenset("NNG NNP SL SN".split())  # nouns, names, words in Latin letters, numbers


def content_words(text: str) -> set[str]:
    """The morphemes that carry the matter of a text: nouns, foreign words and numbers.

    "전세 보증금을 2년 뒤에 돌려받습니다." -> {"전세", "보증금", "2", "뒤"}
    """
    return {form for form, tag in korean.tokens(plain(text)) if tag in _CONTENT}


def plain(text: str) -> str:
    """A text in the one form in which two are compared: "２㎡, 5,000만" -> "2m2, 5000만"."""
    return re.sub(r"(?<=\d),(?=\d{3})", "", unicodedata.normalize("NFKC", text).lower())


class PassageIndex:
    """Finds the passages for a question by BM25 on its content words.

    Passages are not taken apart: a word counts as often as its letters stand in a passage, for an
    analyser may see 확정일자 as one noun here and as two there.
    """

    def __init__(self, passages: Iterable[Passage]):
        self.passages = list(passages)
        if not self.passages:
            raise CourseError("There is no passage to search: read_documents reads your texts.")
        self._texts = [plain(passage.text) for passage in self.passages]
        lengths = [len(text.split()) for text in self._texts]
        self._lengths = [length * len(lengths) / sum(lengths) for length in lengths]  # mean 1

    def search(self, question: str, k: int = 3) -> list[Passage]:
        """The k best passages, best first; one that shares no content word is never among them."""
        scores = [0.0] * len(self.passages)
        for word in sorted(content_words(question)):  # in a fixed order: a float sum depends on it
            for index, score in enumerate(self._scores(word)):
                scores[index] += score
        ranked = sorted(range(len(scores)), key=lambda index: -scores[index])
        return [self.passages[index] for index in ranked[:k] if scores[index] > 0]

    def _scores(self, word: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
        """What one word adds to the score of each passage."""
        counts = [text.count(word) for text in self._texts]
        holders = sum(count > 0 for count in counts)
        rarity = math.log(1 + (len(counts) - holders + 0.5) / (holders + 0.5))
        return [rarity * count * (k1 + 1) / (count + k1 * (1 - b + b * length))
                for count, length in zip(counts, self._lengths, strict=True)]
