"""Texts and the passages that fit a question: whole, in place, and found by the formula."""

import http.server
import json
import math
import threading
import time
import unicodedata
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_utils import REPO, CourseError
from course_utils.sources.retrieval import (
    Document,
    Passage,
    PassageIndex,
    content_words,
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
    ("전세는 맡기는 돈입니다.".encode("cp949"), ["old.txt:1", "cp949", "iconv"]),
    (b"\n  \n", ["old.txt is empty", "remove the file"]),
])
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, words):
    (tmp_path / "good.txt").write_text("좋은 글입니다.", encoding="utf-8")
    (tmp_path / "old.txt").write_bytes(content)
    with pytest.raises(CourseError) as error:
        read_documents(tmp_path)
    assert all(word in str(error.value) for word in words)


def test_a_folder_without_texts_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CourseError, match=f"no .txt or .md file in {folder}"):
            read_documents(folder)


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
         "등기부를 봅니다.", "확정일자를 받습니다."]
INDEX = PassageIndex([Passage(str(number), 0, 0, text) for number, text in enumerate(TEXTS)])


def found(question, k=3, index=INDEX):
    return [int(passage.name) for passage in index.search(question, k)]


def test_scores_are_those_of_the_formula():
    def score(text, words, k1=1.5, b=0.75):
        total = 0.0
        mean = sum(len(other.split()) for other in TEXTS) / len(TEXTS)
        for word in words:
            holders = sum(word in other for other in TEXTS)
            rarity = math.log(1 + (len(TEXTS) - holders + 0.5) / (holders + 0.5))
            count = text.count(word)
            length = len(text.split()) / mean
            total += rarity * count * (k1 + 1) / (count + k1 * (1 - b + b * length))
        return total

    words = ["보증금", "월세", "방식"]
    assert content_words("보증금과 월세의 방식은?") == set(words)
    added = [sum(column) for column in zip(*map(INDEX._scores, words), strict=True)]
    assert added == pytest.approx([score(text, words) for text in TEXTS])
    assert found("보증금과 월세의 방식은?") == [1, 0]


def test_rare_words_count_more_and_strangers_are_never_found():
    assert found("전세 보증금은 무엇인가요?", 1) == [0]
    assert found("바다의 색은?") == []
    assert found("이것은 왜 그런가요?") == []


def test_a_word_is_found_however_the_analyser_cuts_it():
    assert content_words("확정 일자의 뜻은?") >= {"확정", "일자"}
    assert found("확정 일자의 뜻은?") == [3]


def test_equals_come_in_the_order_of_the_documents():
    same = PassageIndex([Passage(str(number), 0, 0, "전세입니다.") for number in range(5)])
    assert found("전세란?", 3, same) == [0, 1, 2]


def test_there_must_be_something_to_search():
    with pytest.raises(CourseError, match="read_documents"):
        PassageIndex([])


def test_a_thousand_passages_are_searched_in_a_moment():
    index = PassageIndex([Passage(str(i), 0, 0, TEXTS[i % 4] * 10) for i in range(2000)])
    start = time.perf_counter()
    assert len(index.search("전세 보증금과 월세의 방식은?", 3)) == 3
    assert time.perf_counter() - start < 1


# ---------------------------------------------------------------- Naver

KEYS = {"client_id": "an-id", "client_secret": "a-secret"}
ITEMS = [{"title": "<b>전세</b>란?", "link": "https://example.com/1",
          "description": "집을 빌리는 &quot;<b>전세</b>&quot; &amp; 보증금 &lt;3억&gt;"},
         {"title": "월세", "link": "https://example.com/2", "description": "다달이 냅니다."}]
GOOD = (200, {"total": 2, "items": ITEMS})


def refusal(status, code, said):
    return status, {"errorCode": code, "errorMessage": said}


class Naver(http.server.ThreadingHTTPServer):
    """Answers as it is told, one reply after another, the last one again and again."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked, self.replies, self.delay = [], [GOOD], 0.0
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_):  # a client that went away is part of these tests
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append((self.path, dict(self.headers.items())))
        status, body, *more = server.replies.pop(0) if server.replies[1:] else server.replies[0]
        time.sleep(server.delay)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in more:
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def naver():
    with Naver() as server:
        yield server
        server.shutdown()


def search(naver, query="전세 계약", **settings):
    return search_naver(query, base_url=naver.url, backoff=0.01, **{**KEYS, **settings})


def test_a_search_gives_documents_without_markup(naver):
    assert search(naver, display=2, kind="encyc") == [
        Document("https://example.com/1",
                 "전세란?\n집을 빌리는 \"전세\" & 보증금 <3억>"),
        Document("https://example.com/2", "월세\n다달이 냅니다.")]
    [(path, headers)] = naver.asked
    assert urlsplit(path).path == "/v1/search/encyc.json"
    assert parse_qs(urlsplit(path).query) == {"query": ["전세 계약"], "display": ["2"]}
    headers = {name.lower(): value for name, value in headers.items()}
    assert headers["x-naver-client-id"] == "an-id"
    assert headers["x-naver-client-secret"] == "a-secret"


def test_nothing_found_is_no_document(naver):
    naver.replies = [(200, {"items": []})]
    assert search(naver) == []


@pytest.mark.parametrize(("reply", "words"), [
    (refusal(401, "024", "Scope Status Invalid : Authentication failed."),
     ["401, 024: Scope Status", "NAVER_CLIENT_ID", "검색"]),
    (refusal(429, "010", "Query limit exceeded."), ["429, 010", "tomorrow"]),
    (refusal(400, "SE01", "Incorrect query request"), ["400, SE01", "check the query"]),
    ((404, b"<html>"), ["404, no code", "address"]),
])
def test_what_no_retry_cures_is_said_at_once(naver, reply, words):
    naver.replies = [reply]
    with pytest.raises(CourseError) as error:
        search(naver)
    said = str(error.value)
    assert all(word in said for word in words)
    assert len(naver.asked) == 1 and "a-secret" not in said and "an-id" not in said


@pytest.mark.parametrize("reply", [
    refusal(429, "012", "Rate limit exceeded."), refusal(500, "SE99", "System Error"),
    (502, b"bad gateway"), (200, b"<html>"), (200, {"error": "none"}), (200, {"items": [{}]})])
def test_what_may_pass_is_tried_again(naver, reply):
    naver.replies = [reply, reply, GOOD]
    assert len(search(naver)) == 2 and len(naver.asked) == 3
    naver.asked.clear()
    naver.replies = [reply]
    with pytest.raises(CourseError, match="3 attempts were made: try again later") as error:
        search(naver, retries=2)
    assert len(naver.asked) == 3 and "a-secret" not in str(error.value)


def test_a_slow_or_absent_server_is_one_sentence(naver):
    naver.delay = 1
    with pytest.raises(CourseError, match="timed out.*2 attempts"):
        search(naver, timeout=0.05, retries=1)
    with pytest.raises(CourseError, match="gave no usable answer.*1 attempts"):
        search_naver("전세", base_url="http://127.0.0.1:9", retries=0, **KEYS)


def test_the_keys_are_not_sent_on_to_another_address(naver):
    naver.replies = [(302, b"", ("location", f"{naver.url}/elsewhere")), (200, {"items": []})]
    search(naver)
    headers = {name.lower() for name in naver.asked[1][1]}
    assert naver.asked[1][0] == "/elsewhere" and not any("naver" in name for name in headers)


@pytest.mark.parametrize("settings", [
    {"client_secret": ""}, {"client_secret": "two\nlines-secret"}, {"client_id": "비밀-secret"}])
def test_a_key_that_is_none_is_refused_without_being_shown(naver, settings):
    with pytest.raises(CourseError, match="copy both again") as error:
        search(naver, **settings)
    assert not naver.asked and "lines" not in str(error.value) and "비밀" not in str(error.value)


def test_a_key_may_have_white_space_around_it(naver):
    assert len(search(naver, client_secret=" a-secret\n")) == 2


@pytest.mark.parametrize("settings", [{"display": 0}, {"display": 101}, {"kind": "../x"}])
def test_a_search_that_naver_does_not_know_is_not_sent(naver, settings):
    with pytest.raises(CourseError, match="1 to 100 documents of the kind webkr"):
        search(naver, **settings)
    assert not naver.asked
