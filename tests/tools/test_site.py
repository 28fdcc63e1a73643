"""The site: links rewritten and alive, two languages page by page, and what a real browser shows.

Without `.venv-site` (made by `make site`) or a Chromium, the tests that need them are skipped.
SITE=all (make site-test) looks at every page and at the search; else at two pages a language.
"""

import functools
import os
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tools import REPO, repository, tag
from tools.site import render

ALL = os.environ.get("SITE") == "all"
only_all = pytest.mark.skipif(not ALL, reason="only with make site-test")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("[guide](colab_guide.ko.md#2-First)", "[guide](guide.md#2-first)"),
        ("[en](README.md)", "[en](../en/index.html)"),
        ("[02](notebooks/ko/02_train.ipynb)", "[02](02_train.md)"),
        ("[en](notebooks/en/02_train.ipynb)", "[en](../en/02_train.html)"),
        ("[here](#Some-Part)", "[here](#some-part)"),
        ("[web](https://example.org/a.md#B)", "[web](https://example.org/a.md#B)"),
        ("[![Colab](https://x.org/b.svg)](https://x.org/n)", "[Colab에서 열기](https://x.org/n)"),
        ("`[a](README.md)`\n```\n[b](README.md)\n```\n", None),
        ("about $10 or $12, `$a$`", None),
        ("Text:\n- one\n- two", "Text:\n\n- one\n- two"),
        ("See `x`\n- one", "See `x`\n\n- one"),
        ("- `one` is\n  so\n- two\n\n```\na\n- b\n```", None),
        ("<details>\n<summary>", '<details markdown="1">\n<summary>'),
    ],
)
def test_prose(text, written):
    assert render.prose(text, REPO / "README.ko.md", "ko") == (text if written is None else written)


def test_a_link_to_a_file_that_is_no_page_leads_to_the_published_repository():
    link = render.address("../../LICENSE", REPO / "notebooks/ko/01_preprocess.ipynb", "ko")
    assert link == f"https://github.com/{repository()}/blob/{tag()}/LICENSE"


def test_a_figure_is_copied_into_the_site(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "REPO", tmp_path)
    monkeypatch.setattr(render, "PAGES", tmp_path / "build")
    figure = tmp_path / "assets" / "figures" / "mask.svg"
    figure.parent.mkdir(parents=True)
    figure.write_text("<svg/>")
    link = render.prose("![마스크](assets/figures/mask.svg)", tmp_path / "README.md", "en")
    assert link == "![마스크](files/assets/figures/mask.svg)"
    assert (tmp_path / "build/en/files/assets/figures/mask.svg").read_text() == "<svg/>"


def test_a_block_that_holds_a_fence_gets_a_longer_one():
    assert render.fenced("a\n```\nb\n", "text") == "````text\na\n```\nb\n````"


def test_dead_links_and_what_is_loaded_from_elsewhere_are_named(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html">1</a><a href="a.html#top">2</a><a href="#end">3</a>'
        '<img src="no.png"><script src="https://cdn.example.org/x.js"></script>'
        '<link rel="stylesheet" href="//fonts.example.org/f.css"><a href="https://x.org">4</a>'
    )
    assert render.dead_links(tmp_path) == [
        "a.html: b.html leads nowhere",
        "a.html: #end: no such place on that page",
        "a.html: no.png leads nowhere",
        "a.html: https://cdn.example.org/x.js is loaded from elsewhere",
        "a.html: //fonts.example.org/f.css is loaded from elsewhere",
    ]


@pytest.fixture(scope="module")
def site():
    python = REPO / ".venv-site" / "bin" / "python"
    if not (REPO / ".venv-site" / "ready").is_file():
        pytest.skip("the site's tools are not installed: make site")
    # Rendering fails by itself, and says which, where a link is dead.
    done = subprocess.run(
        [python, "-m", "tools.site.render"], cwd=REPO, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return REPO / "build" / "site"


@pytest.fixture(scope="module")
def address(site):
    """The site on loopback, as any server would give it."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def names(site, language):
    return {path.name for path in (site / language).glob("*.html")}


def test_every_page_is_there_in_both_languages(site):
    assert names(site, "ko") == names(site, "en")
    notebooks = {f"{path.stem}.html" for path in (REPO / "notebooks" / "ko").glob("*.ipynb")}
    assert names(site, "ko") >= {"index.html", "guide.html", "data.html"} | notebooks
    assert 'url=ko/index.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_code_outputs_figures_and_formulas_are_in_the_pages(site):
    page = (site / "ko" / "02_train.html").read_text(encoding="utf-8")
    assert page.count('class="output"') > 20 and page.count('class="language-python') > 20
    assert "<img" in page and "<math" in page and "$W$" not in page


@only_all
def test_the_switch_leads_to_the_same_page(visit, address):
    page = visit(f"{address}/ko/02_train.html")
    for language in ("en", "ko"):
        page.click(f".md-header a[hreflang={language}]")
        page.wait_for_url(f"{address}/{language}/02_train.html")
        assert page.get_attribute("html", "lang") == language


@only_all
@pytest.mark.parametrize(
    ("place", "language", "query", "found"),
    [("server", "ko", "마스킹", "02_train"), ("disk", "ko", "마스킹", "02_train"),
     ("disk", "en", "masking", "02_train"), ("disk", "ko", "쀍쀍쀍", None)],
)  # fmt: skip
def test_search_finds_what_is_there(visit, address, site, place, language, query, found):
    root = address if place == "server" else f"file://{site}"
    page = visit(f"{root}/{language}/index.html")
    page.fill(".md-search__input", query)
    page.press(".md-search__input", "End")  # it looks when a key is let go
    if found:
        page.wait_for_selector(f".md-search-result__link[href*='{found}']", state="attached")
    else:
        page.wait_for_selector(".md-search-result__meta:has-text('없습니다')", state="attached")
        assert page.locator(".md-search-result__link").count() == 0
    assert page.complaints == []


EMPTY = "[...document.images].filter(image => !image.naturalWidth).map(image => image.src)"
TOO_SMALL = """[...document.querySelectorAll('article pre code')].filter(code => {
  const style = getComputedStyle(code), scrolls = ['auto', 'scroll'].includes(style.overflowX)
  const fits = code.scrollWidth <= code.clientWidth + 1
  return parseFloat(style.fontSize) < 12 || !(fits || scrolls)
}).map(code => code.innerText)"""


@pytest.mark.parametrize("language", render.WORDS)
def test_pages_as_a_browser_shows_them(visit, address, site, language):
    for name in sorted(names(site, language)) if ALL else ["index.html", "02_train.html"]:
        page = visit(f"{address}/{language}/{name}")
        where = f"{language}/{name}"
        assert page.complaints == [], where
        outside = [r for r in page.asked if not r.startswith((address, "data:"))]
        assert outside == [], where
        assert page.evaluate(EMPTY) == [], where
        for width in (1280, 400):  # a desktop, a phone
            page.set_viewport_size({"width": width, "height": 900})
            widest = page.evaluate("document.documentElement.scrollWidth")
            assert widest <= width, f"{where} at {width}: the page is {widest} wide"
            small = page.evaluate(TOO_SMALL)
            assert small == [], f"{where} at {width}: code too small, or cut off"
        page.close()
