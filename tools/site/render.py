"""Render both editions of the notebooks, README, guide and the rest into build/site.

Each language becomes one MkDocs site with a search of its own; pages have the same names in both,
so the switch in the header leads to the same page. A notebook is turned into Markdown here, code
and outputs included, which needs none of Jupyter. Nothing is executed and nothing is fetched.

    make site        then open build/site/index.html, from the disk or from any server
"""

import base64
import html
import json
import os
import re
import shutil
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools import PICTURES, REPO, repository, tag

HERE = REPO / "tools" / "site"
PAGES = REPO / "build" / "pages"
SITE = REPO / "build" / "site"
WORDS = {
    "ko": {"name": "한국어", "home": "처음", "notebooks": "노트북", "more": "더 보기",
           "colab": "Colab에서 열기"},
    "en": {"name": "English", "home": "Home", "notebooks": "Notebooks", "more": "More",
           "colab": "Open in Colab"},
}  # fmt: skip

FENCE = re.compile(r"(^ *(?:```+|~~~+).*?^ *(?:```+|~~~+) *$)", re.M | re.S)
INLINE = re.compile(r"(`[^`\n]+`)")
BADGE = re.compile(r"!\[([^\]]*)\]\(https?://[^)]*\)")  # a picture from elsewhere becomes its name
LINK = re.compile(
    r"(\]\(<?|\b(?:href|src)=[\"']|^ {0,3}\[[^\]^\n]+\]:\s*)([^)\"'<>\s]+)", re.M
)
MATH = re.compile(r"(?<![\\$\w])\$(?![\s\d])([^$\n]+?)(?<!\s)\$(?![$A-Za-z\d])")  # no price of $10
LIST_AFTER_TEXT = re.compile(r"^(?!\s|(?:[-*+]|\d+\.) |[#>|])(.+\n)(?=(?:[-*+]|\d+\.) )", re.M)


def sources(language: str) -> dict[str, Path]:
    """Return each page's name with the file that it is made of; Korean ones end in .ko.md."""

    def edition(name: str) -> Path:
        korean = REPO / name.replace(".md", ".ko.md")
        return korean if language == "ko" and korean.is_file() else REPO / name

    named = {
        "index.md": "README.md", "guide.md": "colab_guide.md", "data.md": "data/README.md",
        "teaching.md": "notebooks/TEACHING.md", "contributing.md": "CONTRIBUTING.md",
        "changelog.md": "CHANGELOG.md",
    }  # fmt: skip
    files = {page: edition(name) for page, name in named.items()}
    notebooks = sorted((REPO / "notebooks" / language).glob("*.ipynb"))
    files |= {f"{path.stem}.md": path for path in notebooks}
    return {page: path for page, path in files.items() if path.is_file()}


def stage(language: str) -> list:
    """Write one language's pages as Markdown into build/pages; return MkDocs' nav."""
    folder = PAGES / language
    files = sources(language)
    for page, source in files.items():
        if source.suffix == ".ipynb":
            text = notebook_text(source, language)
        else:
            text = prose(source.read_text(encoding="utf-8"), source, language)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(text, encoding="utf-8")
    words = WORDS[language]
    first = [page for page in ("guide.md", "teaching.md") if page in files]
    notebooks = [page for page, source in files.items() if source.suffix == ".ipynb"]
    more = [page for page in files if page not in ("index.md", *first, *notebooks)]
    nav = [{words["home"]: "index.md"}, {words["notebooks"]: notebooks}, *first]
    return [*nav, {words["more"]: more}] if more else nav


def notebook_text(path: Path, language: str) -> str:
    """Return a notebook as Markdown: its prose, its code, and what the code showed."""
    pieces = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            pieces.append(prose(source, path, language))
            continue
        pieces.append(fenced(source, "python"))
        shown = [
            output_text(output, PAGES / language, f"figures/{path.stem}-{number}-{place}.png")
            for place, output in enumerate(cell["outputs"])
        ]
        if shown:
            body = "\n\n".join(shown)
            pieces.append(f'<div class="output" markdown="1">\n\n{body}\n\n</div>')
    return "\n\n".join(pieces) + "\n"


def output_text(output: dict, folder: Path, figure: str) -> str:
    """Return one output as Markdown; a picture is written to `folder/figure`."""
    data = {kind: "".join(content) for kind, content in output.get("data", {}).items()}
    picture = data.get("image/png") or data.get("image/jpeg")  # a browser looks at its bytes
    if picture:
        target = folder / figure
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(base64.b64decode(picture))
        return f"![{figure.split('/')[-1].removesuffix('.png')}]({figure})"
    for kind in ("image/svg+xml", "text/html", "text/markdown"):
        if kind in data:
            return data[kind]
    return fenced("".join(output.get("text", "")) or data.get("text/plain", ""), "text")


def fenced(text: str, language: str) -> str:
    """Return a text as a fenced block, its fence longer than any inside it."""
    longest = max([2, *(len(ticks) for ticks in re.findall("`+", text))])
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def prose(text: str, source: Path, language: str) -> str:
    """Return Markdown with its links led to pages of the site; code stays as it is."""
    blocks = FENCE.split(text)  # text, fenced code, text, ...
    for place in range(0, len(blocks), 2):
        pieces = INLINE.split(LIST_AFTER_TEXT.sub(r"\1\n", blocks[place]))
        pieces[::2] = [_linked(piece, source, language) for piece in pieces[::2]]
        blocks[place] = "".join(pieces)
    return "".join(blocks)


def _linked(text: str, source: Path, language: str) -> str:
    colab = WORDS[language]["colab"]
    text = BADGE.sub(lambda badge: colab if badge[1] == "Colab" else badge[1], text)
    text = LINK.sub(lambda link: link[1] + address(link[2], source, language), text)
    return re.sub(r"<details(?![^>]*markdown)", '<details markdown="1"', MATH.sub(_mathml, text))


def address(link: str, source: Path, language: str) -> str:
    """Return where a link of `source` leads in the site, or in the published repository."""
    path, _, anchor = link.partition("#")
    anchor = f"#{anchor.lower()}" if anchor else ""
    if urlsplit(link).scheme or not path:
        return anchor if not path else link
    target = (source.parent / unquote(path)).resolve()
    for other in (language, *(WORDS.keys() - {language})):
        for page, file in sources(other).items():
            if file == target:
                return f"{page}{anchor}" if other == language else (
                    f"../{other}/{page.removesuffix('.md')}.html{anchor}")  # fmt: skip
    if not target.is_relative_to(REPO) or not target.exists():
        raise SystemExit(f"{source.relative_to(REPO)}: {link}: there is no such file here")
    inside = target.relative_to(REPO).as_posix()
    if target.suffix.lower() in PICTURES:
        copied = PAGES / language / "files" / inside
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(target, copied)
        return f"files/{inside}"
    return f"https://github.com/{repository()}/blob/{tag()}/{inside}"


def render(language: str) -> None:
    """Build one language's site from its sources."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    (other,) = WORDS.keys() - {language}
    title = re.search(r"^# (.+)", sources(language)["index.md"].read_text(encoding="utf-8"), re.M)
    nav = stage(language)
    settings = {  # JSON is YAML; what is not here comes from tools/site/mkdocs.yml
        "INHERIT": str(HERE / "mkdocs.yml"),
        "site_name": title[1],
        "docs_dir": str(PAGES / language),
        "site_dir": str(SITE / language),
        "theme": {"language": language, "custom_dir": str(HERE / "theme")},
        "nav": nav,
        "plugins": {"search": {"lang": ["ko", "en"]}},
        # A list of alternates would make the theme ask for sitemaps; theme/partials does without.
        "extra": {"alternate": True, "other": {"lang": other, "name": WORDS[other]["name"]}},
    }
    config = PAGES / f"{language}.yml"
    config.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    build(load_config(str(config)))
    for stray in ("404.html", "sitemap.xml", "sitemap.xml.gz"):  # their addresses suit a server
        (SITE / language / stray).unlink(missing_ok=True)


def dead_links(site: Path) -> list[str]:
    """Return every link or picture of a built site that leads to nothing in it, anchors included.

    A page that loads anything from elsewhere is named as well: it must be readable offline.
    """
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html"))}
    problems = []
    for path, page in pages.items():
        for link, loaded in page.links:
            parts = urlsplit(link)
            where = f"{path.relative_to(site)}: {link}"
            if parts.scheme or parts.netloc:
                problems += [f"{where} is loaded from elsewhere"] if loaded else []
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                problems.append(f"{where} leads nowhere")
            elif parts.fragment and target in pages:
                if unquote(parts.fragment) not in pages[target].ids:
                    problems.append(f"{where}: no such place on that page")
    return problems


class _Page(HTMLParser):
    """The links of a page, each with whether a browser loads it by itself, and its anchors."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[tuple[str, bool]] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        source = values.get("src", "")
        if source and not source.startswith("data:"):
            self.links.append((source, True))
        if tag in ("a", "link") and "href" in values:
            loaded = tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload")
            self.links.append((values["href"], loaded))


def _mathml(match: re.Match) -> str:
    from latex2mathml.converter import convert

    return convert(html.unescape(match[1]))


def main() -> int:
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # tools/site/requirements.txt pins MkDocs 1.6
    start = time.perf_counter()
    for folder in (PAGES, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    for language in WORDS:
        render(language)
    to_korean = '<meta charset="utf-8"><meta http-equiv="refresh" content="0; url=ko/index.html">'
    choice = " · ".join(f'<a href="{lang}/index.html">{WORDS[lang]["name"]}</a>' for lang in WORDS)
    (SITE / "index.html").write_text(f"<!doctype html>{to_korean}{choice}\n", encoding="utf-8")
    if problems := dead_links(SITE):
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    count = len(list(SITE.rglob("*.html")))
    print(f"{count} pages in {time.perf_counter() - start:.0f} s: open build/site/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
