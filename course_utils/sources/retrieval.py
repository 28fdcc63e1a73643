"""Texts of your own field, and the pieces of them that fit a question.

    folder of text files, or a search -> documents -> passages -> the best few for a question

Which ones fit is decided by BM25 on nouns, without a model: a shared word counts more the fewer
passages hold it. Source: BM25 (Robertson and Zaragoza, 2009), by bm25s. Taught in 06.
"""

import html
import http.client
import json
import re
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from course_utils import CourseError, korean
from course_utils.plumbing.files import read_text


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


def read_documents(folder) -> list[Document]:
    """Read the .txt and .md files of a folder (UTF-8) in the order of their names.

    Raises CourseError, naming the file and the cure, for one that is empty or not UTF-8.
    """
    try:
        paths = sorted(path for path in Path(folder).glob("[!.]*")
                       if path.suffix.lower() in (".txt", ".md") and path.is_file())
    except (OSError, ValueError):  # a name that no folder can have
        paths = []
    if not paths:
        raise CourseError(f"There is no .txt or .md file in {korean.clean(str(folder))}: put your "
                          "documents there, or check the folder's name.")
    documents = []
    for path in paths:
        text = korean.clean(read_text(path))
        if not text.strip():
            raise CourseError(f"{korean.clean(str(path))} is empty: put its text into it, or "
                              "remove the file.")
        documents.append(Document(korean.clean(path.name), text))
    return documents


def search_naver(query: str, display: int = 5, *, client_id: str, client_secret: str,
                 kind: str = "webkr", base_url: str = "https://openapi.naver.com",
                 timeout: float = 10) -> list[Document]:
    """Ask Naver's search API for up to 100 documents: title and extract, named by their address.

    `kind` is webkr (web pages), encyc, blog or news. The extracts are other people's texts: read
    Naver's terms and each page's licence before you publish what is made from them. Raises
    CourseError, which never holds the id or the secret.
    """
    keys = {"X-Naver-Client-Id": client_id.strip(), "X-Naver-Client-Secret": client_secret.strip()}
    if not all(re.fullmatch(r"[!-~]+", key) for key in keys.values()):
        raise CourseError("The Naver client id or secret is empty or holds a character that no key "
                          "has: copy both again from developers.naver.com.")
    asked = urllib.parse.urlencode({"query": query, "display": display})
    request = urllib.request.Request(f"{base_url}/v1/search/{kind}.json?{asked}")
    for name, key in keys.items():  # unredirected: they go to this address and to no other
        request.add_unredirected_header(name, key)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            found = [(item["link"], f"{item['title']}\n{item['description']}")
                     for item in json.load(response)["items"]]
        return [Document(link, html.unescape(re.sub(r"</?[A-Za-z][^>]*>", "", text)).strip())
                for link, text in found]
    except urllib.error.HTTPError as error:
        problem = f"{error.code} {error.read(300).decode('utf-8', 'replace')}"
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
        problem = f"no usable answer ({error})"
    for key in keys.values():  # a server may say again what it was sent
        problem = problem.replace(key, "[secret]")
    raise CourseError(f"Naver's search gave no documents: {' '.join(problem.split())}. Check "
                      "NAVER_CLIENT_ID, NAVER_CLIENT_SECRET and that 검색 is among the "
                      "application's APIs; after 429 try again tomorrow.")


def passages(documents: Iterable[Document], words: int = 80) -> list[Passage]:
    """Cut documents into passages of at most `words` 어절; all but the last have over half as many.

    Within these limits one ends where a paragraph does, else a sentence, else any word.
    """
    found = []
    for document in documents:
        left = list(re.finditer(r"\S+", document.text))
        while left:
            size = min(words, len(left))
            if size < len(left):
                sizes = range(words // 2 + 1, words + 1)
                size = max(sizes, key=lambda n: (_pause(left[n - 1], left[n]), n))
            start, end = left[0].start(), left[size - 1].end()
            found.append(Passage(document.name, start, end, document.text[start:end]))
            left = left[size:]
    return found


def _pause(word: re.Match, following: re.Match) -> int:
    """What ends between two words: 2 for a paragraph, 1 for a sentence or a line, 0 for neither."""
    breaks = word.string.count("\n", word.end(), following.start())
    return min(breaks, 2) or bool(re.search(r"[.?!][\"'”’)]*$", word[0]))


_NOUNS = {"NNG", "NNP"}  # common nouns and names
_CONTENT = _NOUNS | {"SL", "SN"}  # and words in Latin letters, numbers


def content_words(text: str) -> set[str]:
    """The morphemes that carry the matter of a text: nouns, foreign words and numbers.

    "전세 보증금을 2년 뒤에 돌려받습니다." -> {"전세", "보증금", "2", "뒤"}
    """
    return {form for form, tag in korean.tokens(plain(text)) if tag in _CONTENT}


def plain(text: str) -> str:
    """A text in the one form in which two are compared: "２㎡, 5,000만" -> "2m2, 5000만"."""
    wide = unicodedata.normalize("NFKC", korean.clean(text))
    return re.sub(r"(?<=\d),(?=\d{3})", "", wide.lower())


def _terms(text: str) -> list[str]:
    """The content words of a text, each as often as it is there, and neighbouring nouns joined.

    The analyser sees 확정일자 as one noun here and as two there: joined, the two are found as well.
    """
    pieces = korean.tokens(plain(text))
    joined = [first + second for (first, tag), (second, next_tag) in pairwise(pieces)
              if tag in _NOUNS and next_tag in _NOUNS]
    return [form for form, tag in pieces if tag in _CONTENT] + joined + joined


class PassageIndex:
    """Finds the passages for a question by BM25 on their content words."""

    def __init__(self, passages: Iterable[Passage]):
        import bm25s  # takes half a second, and only 06 needs it

        self.passages = list(passages)
        rows = [_terms(passage.text) for passage in self.passages]
        if not any(rows):
            raise CourseError("There is no passage to search: read_documents reads your texts.")
        self._bm25 = bm25s.BM25()
        self._bm25.index(rows, show_progress=False)

    def search(self, question: str, k: int = 3) -> list[Passage]:
        """The k best passages, best first; one that shares no content word is never among them."""
        words = sorted(_terms(question))  # in a fixed order: a float sum depends on it
        if not words:
            return []
        scores = self._bm25.get_scores(words)
        ranked = sorted(range(len(scores)), key=lambda index: -scores[index])
        return [self.passages[index] for index in ranked[:k] if scores[index] > 0]
