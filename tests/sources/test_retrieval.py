"""Texts and the passages that fit a question: whole, in place, and found by the formula."""

import time
import unicodedata
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Loopback

from course_utils import REPO, CourseError
from course_utils.sources.retrieval import (
    Document,
    Passage,
    PassageIndex,
    passages,
    read_documents,
    search_naver,
)

# ---------------------------------------------------------------- files


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    (tmp_path / "b.md").write_bytes("# 월세\r\n\r\n다달이 냅니다.".encode())
    nfd = unicodedata.normalize("NFD", "전세")
    (tmp_path / f"{nfd}.TXT").write_text(f"\ufeff{nfd}는 맡깁니다.", encoding="utf-8")
    for name in (".hidden.txt", "table.csv", "noext"):
        (tmp_path / name).write_bytes(b"\xff\xfe broken")
    (tmp_path / "folder.txt").mkdir()
    assert read_documents(tmp_path) == [
        Document("b.md", "# 월세\n\n다달이 냅니다."), Document("전세.TXT", "전세는 맡깁니다.")]


@pytest.mark.parametrize(("content", "words"), [
    ("전세는 맡기는 돈입니다.".encode("cp949"), r"old.txt:1 .*cp949.*iconv"),
    (b"\n  \n", "old.txt is empty.*remove the file"),
    (None, "no .txt or .md file in"),
])
def test_a_file_that_cannot_be_used_and_a_folder_without_texts_are_named(tmp_path, content, words):
    if content:
        (tmp_path / "good.txt").write_text("좋은 글입니다.", encoding="utf-8")
        (tmp_path / "old.txt").write_bytes(content)
    with pytest.raises(CourseError, match=words):
        read_documents(tmp_path)


def test_the_texts_of_the_course_are_short_and_of_one_kind():
    documents = read_documents(REPO / "data" / "domain")
    assert len(documents) == 6
    for document in documents:
        title, _, body = document.text.partition("\n\n")
        assert 150 <= len(document.text.split()) <= 250 and "\n" not in title
        sentences = " ".join(body.split()).removesuffix(".").split(". ")
        assert all(text.endswith(("니다", "세요")) for text in sentences), document.name


# ---------------------------------------------------------------- passages


@given(st.text(st.sampled_from("가나 .?\n”"), max_size=200), st.integers(1, 12))
def test_passages_hold_every_word_once_in_its_place(text, words):
    found = passages([Document("a", text)], words)
    assert " ".join(passage.text for passage in found).split() == text.split()
    for passage in found:
        assert text[passage.start:passage.end] == passage.text == passage.text.strip()
        assert 1 <= len(passage.text.split()) <= words


def test_a_text_is_cut_between_paragraphs_then_sentences_then_words():
    text = "# 제목\n\n하나 둘 셋.\n\n넷 다섯 여섯. 일곱 여덟 아홉. 열\n\n가 나 다 라 마 바"
    assert [passage.text for passage in passages([Document("a", text)], 5)] == [
        "# 제목\n\n하나 둘 셋.", "넷 다섯 여섯.", "일곱 여덟 아홉. 열", "가 나 다 라 마", "바"]
    assert [passage.text for passage in passages([Document("a", text)], 99)] == [text]


# ---------------------------------------------------------------- BM25

TEXTS = ["전세는 보증금을 맡기는 방식입니다.", "월세는 보증금과 월세를 내는 방식, 월세입니다.",
         "등기부를 봅니다.", "확정일자를 받습니다.", "2년 뒤에 나갑니다.",
         "2025년에 지은 집입니다.", "200만 원을 냅니다.",
         "바닷가에서 확정한 일정을 일자별로 적습니다.",
         "그렇습니다!"]


def index_of(texts):
    return PassageIndex([Passage(str(number), 0, 0, text) for number, text in enumerate(texts)])


INDEX = index_of(TEXTS)


def found(question, k=3, index=INDEX):
    return [int(passage.name) for passage in index.search(question, k)]


@pytest.mark.parametrize(("question", "numbers"), [
    ("보증금과 월세의 방식은?", [1, 0]),
    ("전세 보증금은 무엇인가요?", [0, 1]),  # a rare word counts more
    ("바다의 색은?", []),
    ("이것은 왜 그런가요?", []),
    ("2년이면 되나요?", [4]),  # and not 2025 or 200만
    ("2,025년에는?", [5]),
    ("200만 원인가요?", [6]),
    ("확정일자의 뜻은?", [3]),  # and not 확정 here and 일자 there
    ("확정 일자의 뜻은?", [3, 7]),
])
def test_what_is_found(question, numbers):
    assert found(question) == numbers


def test_nouns_are_found_however_the_analyser_cuts_them():
    one = [("전입신고", "NNG"), ("를", "JKO")]
    two = [("전입", "NNG"), ("신고", "NNG"), ("를", "JKO")]
    for here, there in ((one, two), (two, one)):
        cuts = {"passage": here, "question": there, "other": [("신호", "NNG")]}
        with patch("course_utils.korean.tokens", cuts.__getitem__):
            assert found("question", 3, index_of(["other", "passage"])) == [1]


def test_equals_come_in_the_order_of_the_documents():
    assert found("전세란?", 3, index_of(["전세입니다."] * 5)) == [0, 1, 2]


@pytest.mark.parametrize("texts", [[], ["...", "그렇다."]])
def test_there_must_be_something_to_search(texts):
    with pytest.raises(CourseError, match="read_documents"):
        index_of(texts)


# ---------------------------------------------------------------- Naver

KEYS = {"client_id": "an-id", "client_secret": "a-secret"}
ITEMS = [{"title": "<b>전세</b>란?", "link": "https://example.com/1",
          "description": "집을 빌리는 &quot;<b>전세</b>&quot; &amp; 보증금 &lt;3억&gt;"},
         {"title": "월세", "link": "https://example.com/2", "description": "다달이 냅니다."}]
GOOD = (200, {"total": 2, "items": ITEMS})


class Naver(Loopback):
    """Answers as it is told, one reply after another; `asked` has paths and headers."""

    def __init__(self):
        self.asked, self.replies, self.delay = [], [GOOD], 0.0
        super().__init__()

    def get(self, path, key):
        self.asked.append((path, {name.lower(): text for name, text in self.headers.items()}))
        time.sleep(self.delay)
        return self.replies.pop(0)


@pytest.fixture
def naver():
    with Naver() as server:
        yield server


def search(naver, query="전세 계약", **settings):
    return search_naver(query, base_url=naver.host, **{**KEYS, **settings})


def test_a_search_gives_documents_without_markup(naver):
    assert search(naver, display=2, kind="encyc", client_secret=" a-secret\n") == [
        Document("https://example.com/1",
                 "전세란?\n집을 빌리는 \"전세\" & 보증금 <3억>"),
        Document("https://example.com/2", "월세\n다달이 냅니다.")]
    [(path, headers)] = naver.asked
    assert urlsplit(path).path == "/v1/search/encyc.json"
    assert parse_qs(urlsplit(path).query) == {"query": ["전세 계약"], "display": ["2"]}
    assert headers["x-naver-client-id"] == "an-id"
    assert headers["x-naver-client-secret"] == "a-secret"


@pytest.mark.parametrize(("reply", "words"), [
    ((401, {"errorMessage": "Scope Status Invalid", "errorCode": "024"}), "401.*Scope.*024"),
    ((429, {"errorMessage": "Query limit exceeded.", "errorCode": "010"}), "429.*limit exceeded"),
    ((404, b"<html>\n\n<b>"), "404 <html> <b>"),
    ((502, b"bad \xff gateway"), "502 bad . gateway"),
    ((403, b"an-id and a-secret are wrong"), r"403 \[secret\] and \[secret\] are wrong"),
    ((200, b"<html>"), "no usable answer"),
    ((200, {"error": "none"}), "no usable answer"),
    ((200, {"items": [{}]}), "no usable answer"),
    ((200, {"items": 3}), "no usable answer"),
])
def test_what_went_wrong_is_one_sentence_without_a_key(naver, reply, words):
    naver.replies = [reply]
    with pytest.raises(CourseError, match=f"gave no documents: {words}.*NAVER_CLIENT_ID") as error:
        search(naver)
    said = str(error.value)
    assert "a-secret" not in said and "an-id" not in said and "\n" not in said


def test_a_slow_or_absent_server_is_one_sentence(naver):
    naver.delay = 1
    with pytest.raises(CourseError, match="timed out"):
        search(naver, timeout=0.05)
    with pytest.raises(CourseError, match="no usable answer"):
        search_naver("전세", base_url="http://127.0.0.1:9", **KEYS)


def test_the_keys_are_not_sent_on_to_another_address(naver):
    naver.replies = [(302, b"", [("location", f"{naver.host}/elsewhere")]), (200, {"items": []})]
    assert search(naver) == []
    assert naver.asked[1][0] == "/elsewhere"
    assert not any("naver" in name for name in naver.asked[1][1])


@pytest.mark.parametrize("settings", [
    {"client_secret": ""}, {"client_secret": "two\nlines-secret"}, {"client_id": "비밀-secret"}])
def test_a_key_that_is_none_is_refused_without_being_shown(naver, settings):
    with pytest.raises(CourseError, match="copy both again") as error:
        search(naver, **settings)
    assert not naver.asked and "lines" not in str(error.value) and "비밀" not in str(error.value)
