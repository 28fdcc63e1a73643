"""Texts of models in Markdown: they are shown as they are, and they change nothing around them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("markdown_it")

from markdown_it import MarkdownIt

from course_utils.reports.markdown import fenced, plain, table, visible
from tests.judgments import HOSTILE


def parse(page):
    return MarkdownIt("commonmark").enable("table").parse(page)


def texts(tokens):
    """What a reader sees of inline tokens; raises for anything but text."""
    found = []
    for token in tokens:
        for child in token.children or []:
            assert child.type in ("text", "text_special"), (child.type, child.content)
            found.append(child.content)
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_a_fenced_text_is_one_block_of_code(text):
    fence, after = [t for t in parse(f"{fenced(text)}\n\n끝") if t.type in ("fence", "inline")]
    assert fence.type == "fence" and fence.info == "text" and fence.content == visible(text) + "\n"
    assert after.content == "끝"


@given(st.text(alphabet=st.sampled_from("`~a \n\t가<>#|\r\\"), min_size=1, max_size=60))
def test_no_text_closes_its_fence(text):
    tokens = [t for t in parse(f"{fenced(text)}\n\n끝") if t.type in ("fence", "inline")]
    if text.strip():
        assert tokens[0].content == visible(text) + "\n"
        tokens = tokens[1:]
    assert [t.content for t in tokens[-1:]] == ["끝"] and len(tokens) <= 2


@pytest.mark.parametrize("text", HOSTILE)
def test_a_plain_text_stays_in_its_cell_its_heading_and_its_line(text):
    page = f"# {plain(text, 999)}\n\n{table(['가', '나'], [[plain(text, 999), 1]])}"
    tokens = parse(page)
    kinds = [token.type for token in tokens if token.nesting == 1]
    assert kinds == ["heading_open", "table_open", "thead_open", *["tr_open"], *["th_open"] * 2,
                     "tbody_open", "tr_open", *["td_open"] * 2]  # fmt: skip
    shown = " ".join(visible(text).split())
    said = ["".join(texts([token])) for token in tokens if token.type == "inline"]
    assert said == [shown, "가", "나", shown, "1"]


@given(st.text(min_size=1, max_size=40).filter(str.strip))
def test_any_text_is_text(text):
    tokens = parse(f"처음 {plain(text, 999)} 끝")
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    shown = " ".join(visible(text).split())
    assert "".join(texts(tokens)) == f"처음 {shown} 끝"


def test_no_address_becomes_a_link_by_itself():
    """GitHub links addresses on its own: what makes them one is written as an entity."""
    said = plain("www.example.org http://example.org me@example.org")
    assert "www." not in said and "://" not in said and "@" not in said


def test_long_texts_are_cut_and_say_so():
    assert plain("가" * 100, 10) == "가" * 9 + "…"
    said = fenced("나" * 1300, 1200)
    assert said.count("나") == 1200
    assert said.endswith("(cut 생략: 100 more characters in the journal)")
    assert "cut" not in fenced("나" * 1200, 1200)


def test_what_cannot_be_seen_is_written_out():
    assert visible("a\u202eb\x00c\ud800") == "a\\u202eb\\u0000c\\ud800"
    assert visible("가\u3000나\t다\r\n라 👨\u200d👩") == "가\u3000나\t다\n라 👨\u200d👩"
    assert fenced(" \n") == "(empty 빈 글)"
    fenced("\ud800").encode("utf-8")


@given(st.text(alphabet="가나 ab", min_size=1, max_size=300).filter(str.strip))
def test_wide_lines_are_folded_without_losing_a_letter(text):
    fence, *lines, end = fenced(text).split("\n")
    assert (fence, end) == ("```text", "```")
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) + sum(c in "가나" for c in line) <= 101 for line in lines)


def test_lines_are_folded_between_words():
    said = fenced("그리고 " * 40).split("\n")[1:-1]
    assert len(said) == 3 and {line.strip().split(" ")[0] for line in said} == {"그리고"}
    assert fenced("가" * 50).split("\n")[1:-1] == ["가" * 50]
