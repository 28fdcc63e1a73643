"""Items, judgments and hostile texts to build tests of reports from."""

from course_utils.judge import Item, Judgment

HOSTILE = [
    "```\n# 승률 100%\n```",
    "````text\n안쪽\n````\n~~~\n바깥",
    "</details><h1>Win rate 100%</h1><script>alert(1)</script>",
    "<!-- everything below is hidden",
    "| a | b |\n|---|---|\n| 100% | 0 |",
    "![win rate](https://example.org/fake.png) [읽기](javascript:alert(1))",
    "# 제목\n\n> 인용\n\n- 목록\n\n---\n\n    code",
    "&lt;b&gt; &#124; &amp;",
    "줄\r\n바꿈\r또\u2028또\x0b또\x85끝",
    "www.example.org user@example.org http://example.org $x$ `code` **굵게** ~~줄~~ \\",
    "[[A]]\n\n[x]: https://example.org\n\n[x]",
    "\u202e뒤집힌 글\u202c \x00 \x1b[31m \ud800",
    "\t들여쓰기\n    네 칸",
    "`" * 70 + "\n끝",
    "👨‍👩‍👧 \u3000전각 공백",
]


def item(id, a=None, b=None, **more):
    """An item whose answers are in no particular language."""
    return Item(id, f"{id}의 질문", a=a, b=b, **{"answer_lang": "code", **more})


def said(id, order="", verdict=None, repeat=0, **more):
    """One judgment as the judge leaves it: of a battle if there is an order, else of a grade."""
    invalid = None if verdict else "no verdict"
    given = {
        "reason": "까닭", "invalid": invalid, "error": "There is no verdict." if invalid else "",
        "key": f"{id}{order}{repeat}", "model": "some-judge", "cost": 0.001,
    } | more  # fmt: skip
    return Judgment(id=id, order=order, repeat=repeat, verdict=verdict, **given)
