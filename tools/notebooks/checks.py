"""What a page must not show: dead links, missing figures, traces of the machine that ran it."""

import json
import os
import re
import socket
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
from nbformat import NotebookNode

from tools import PICTURES, REPO, repository, tag
from tools.notebooks.kernel import MOST_LINES

# Colab's /content is where a reader's own files are; every other root belongs to some machine.
# A URL's path is no such folder.
MACHINE = re.compile(
    r"(?<![\w./~>-])/(?:work|tmp|root|home|Users|opt|usr|var|private|mnt|workspaces?|Volumes|"
    r"scratch|kaggle|srv|media|nfs|__w|app|etc)(?:/[\w.-]+|(?![\w/.-]))"
    r"|(?<!\w)[A-Za-z]:[\\/]+(?:[A-Z]\w+|users|temp|tmp|work)"  # C:\Users, C:/Users
    r"|\bfile:/+(?!content\b)[\w.~-]+|(?<![\w\\:])\\\\[\w.$-]+\\\w+"  # file:///home, \\server\share
    r"|(?<![\w.-])[\w.-]+@[\w.-]+:[~/]"  # user@host:~
)
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(
    r"\]\(\s*(<[^>]*>|[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)"
    r"|\b(?:href|src)\s*=\s*[\"']?([^\"'\s>]*)"
    r"|^ {0,3}\[[^\]^\n]+\]:\s*(\S+)"  # a reference's address
    r"|<(https?://[^>\s]+)>",
    re.MULTILINE | re.IGNORECASE,
)
REFERENCE = re.compile(r"\]\[([^\]\n]+)\]")
HEADING = re.compile(r"^ {0,3}#{1,6} +(.+?) *#*$", re.MULTILINE)
ROW = re.compile(r"<(?:tr|li|br|p)\b", re.IGNORECASE)
KEY = re.compile(r"\b(?:sk-|hf_)(?=[\w-]{20,})")  # the rest of it is not repeated in a log


def pages() -> list[Path]:
    """Return every Markdown page that people read, the notebooks aside."""
    patterns = ("*.md", "notebooks/*.md", "data/*.md", "assets/*/*.md", "docs/**/*.md",
                ".github/**/*.md", "course_utils/**/*.md", "tests/**/*.md")  # fmt: skip
    return sorted(path for pattern in patterns for path in REPO.glob(pattern))


def machine_names() -> list[str]:
    """Return this machine's name and this user's, where they are more than a common word."""
    names = {Path.home().name, socket.gethostname()}
    return [name for name in names if len(name) > 4 and name not in ("localhost", "runner")]


def output_problems(notebook: NotebookNode, where: str, names: list[str] = ()) -> list[str]:
    """Return what an executed notebook's outputs should not hold, one line a finding.

    `names` are further words that must not appear: `machine_names()` where it was just executed.
    """
    problems = []
    own = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names) or r"(?!)")
    for number, cell in enumerate(notebook.cells, 1):
        lines = 0
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown = [output.get("text"), output.get("evalue")]
            shown += [
                text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
                for kind, text in data.items()
                if kind == "image/svg+xml" or not kind.startswith(("image/", "application/vnd"))
            ]
            for text in filter(None, [*shown, "\n".join(output.get("traceback", []))]):
                what = {
                    "a machine's path": MACHINE.search(text),
                    "this machine's or user's name": own.search(text),
                    "a secret key": KEY.search(text),
                }
                problems += [f"{where}: cell {number} shows {name}: {found[0].strip()!r}"
                             for name, found in what.items() if found]  # fmt: skip
            text = data.get("text/markdown") or output.get("text") or data.get("text/plain", "")
            lines += max(text.rstrip().count("\n") + 1, len(ROW.findall(data.get("text/html", ""))))
        if lines > MOST_LINES:
            problems.append(f"{where}: cell {number} shows {lines} lines, {MOST_LINES} is most")
    return problems


def link_problems(path: Path) -> list[str]:
    """Return the dead links and missing figures of a Markdown page or a notebook.

    Links into this checkout are followed, with their anchors; of others only the form is read.
    """
    page = path.suffix != ".ipynb" and path.is_relative_to(REPO)
    where = path.relative_to(REPO).as_posix() if page else "/".join(path.parts[-2:])
    problems = []
    for link in links(_markdown(path)):
        address, _, anchor = link.partition("#")
        if not link.strip("#"):
            problem = "it leads nowhere"
        elif urlsplit(link).scheme:
            problem = _address_problem(link)
        elif path.is_relative_to(REPO) and not _published(path.parent / unquote(address)):
            problem = "it is not in the repository"
        else:
            target = (path.parent / unquote(address)) if address else path
            if not target.exists():
                figure = target.suffix.lower() in PICTURES
                problem = "this figure is missing" if figure else "there is no such file"
            elif path.suffix == ".ipynb" and _other_language(path, target):
                problem = "it is in the other language"
            elif anchor and target.is_file() and unquote(anchor) not in anchors(_markdown(target)):
                problem = f"{target.name} has no heading of that name"
            else:
                problem = ""
        if problem:
            problems.append(f"{where}: broken link {link}: {problem}")
    return problems


def links(markdown: str) -> list[str]:
    """Return every address that a Markdown text points to, code aside.

    >>> links("[a](b.md) `[c](d)` <img src=\\"e.png\\">")
    ['b.md', 'e.png']
    """
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", markdown))
    found = [next(filter(None, match.groups()), "").strip("<>") for match in LINK.finditer(text)]
    known = {name.lower() for name in re.findall(r"^ {0,3}\[([^\]\n]+)\]:", text, re.MULTILINE)}
    return found + [f"[{r}]" for r in REFERENCE.findall(text) if r.lower() not in known]


def anchors(markdown: str) -> set[str]:
    """Return the anchors of all headings, as GitHub and as Jupyter spell them.

    >>> sorted(anchors("## A `map` of it"))
    ['A-map-of-it', 'a-map-of-it']
    """
    names: set[str] = set()
    seen: Counter[str] = Counter()
    for heading in HEADING.findall(FENCE.sub("", markdown)):
        heading = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).strip()
        github = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = seen[github]
        names |= {f"{github}-{count}" if count else github, heading.replace(" ", "-")}
        seen[github] += 1
    return names | set(re.findall(r'\b(?:id|name)="([^"]+)"', markdown))


def _published(target: Path) -> bool:
    """Return whether a path lies in the repository and not in a folder that git ignores."""
    inside = os.path.relpath(target, REPO)
    return not re.match(r"(?:\.\.|runs|build|dist|models|\.venv[\w-]*)(?:/|$)", inside)


def _other_language(notebook: Path, page: Path) -> bool:
    """Return whether a page is also there in the language of the notebook that leads to it."""
    if notebook.parent.name == "ko":
        return page.suffix == ".md" and page.with_suffix(".ko.md").exists()
    return page.name.endswith(".ko.md")


def _address_problem(link: str) -> str:
    """Return what is wrong with the form of an address; nothing is fetched."""
    parts = urlsplit(link)
    host = re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc)
    if parts.scheme not in ("http", "https") or not host:
        return "not a web address"
    raw = parts.netloc == "raw.githubusercontent.com"
    view = "" if raw else "/(?:blob|tree|raw)"
    if not parts.netloc.endswith(("github.com", "google.com", "githubusercontent.com")):
        return ""
    owner, name = repository().split("/")
    ours = rf"/(?:github/)?([^/]+/{re.escape(name)}){view}/([^/]+)/(.+)"
    if not (inside := re.fullmatch(ours, parts.path, re.IGNORECASE)):
        return ""
    if inside[1] != f"{owner}/{name}" or inside[2] != tag():
        return f"the course is published as {owner}/{name} {tag()}"
    return "" if (REPO / unquote(inside[3])).exists() else "there is no such file here"


def _markdown(path: Path) -> str:
    """Return the prose of a page; of a notebook, all its Markdown cells."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
