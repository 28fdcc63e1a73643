"""What a page must not show: dead links, missing figures, traces of the machine that ran it."""

import getpass
import re
import socket
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
from kernel import ANSI, BAR, MOST_LINES, PIP_LOG, REPO
from nbformat import NotebookNode

# Colab's /content is where a reader's own files are; every other root belongs to some machine.
# A URL's path is no such folder.
MACHINE = re.compile(
    r"(?<![\w.:/~>-])/(?:work|tmp|root|home|Users|opt|usr|var|private|mnt)(?:/[\w.-]+|(?![\w/.-]))"
    r"|(?<!\w)[A-Za-z]:\\+(?:[A-Z]\w+|users|temp|tmp|work)"  # C:\Users
    r"|(?<![\w.-])[\w.-]+@[\w.-]+:[~/]"  # user@host:~
)
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*(<[^>]*>|[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)|\b(?:href|src)=\"([^\"]*)\"")
HEADING = re.compile(r"^ *#{1,6} +(.+?) *#*$", re.MULTILINE)
FIGURES = {".png", ".svg", ".jpg", ".jpeg", ".gif", ".webp"}


def pages() -> list[Path]:
    """Return every Markdown page that people read, the notebooks aside."""
    patterns = ("*.md", "notebooks/*.md", "data/*.md", "assets/*/*.md")
    return sorted(path for pattern in patterns for path in REPO.glob(pattern))


def machine_names() -> list[str]:
    """Return this machine's name and this user's, where they are more than a common word."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry
        user = ""
    names = {user, socket.gethostname()}
    return [name for name in names if len(name) > 4 and name not in ("localhost", "runner")]


def output_problems(notebook: NotebookNode, where: str, names: list[str] = ()) -> list[str]:
    """Return what an executed notebook's outputs should not hold, one line a finding.

    `names` are further words that must not appear: `machine_names()` where it was just executed.
    """
    problems = []
    if "widgets" in notebook.metadata:
        problems.append(f"{where}: metadata.widgets is left over; GitHub cannot show the notebook")
    own = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names) or r"(?!)")
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if [kind for kind in data if "widget" in kind]:
                problems.append(f"{where}: cell {number} holds a widget's state")
            shown = [output.get("text"), data.get("text/plain"), data.get("text/html")]
            for text in filter(None, [*shown, "\n".join(output.get("traceback", []))]):
                what = {
                    "a machine's path": MACHINE.search(text),
                    "this machine's or user's name": own.search(text),
                    "a progress bar": BAR.search(text),
                    "a log of pip": PIP_LOG.search(text),
                    "a colour code": ANSI.search(text),
                }
                problems += [
                    f"{where}: cell {number} shows {name}: {found[0].strip()!r}"
                    for name, found in what.items()
                    if found
                ]
            lines = len((output.get("text") or data.get("text/plain", "")).rstrip().split("\n"))
            if lines > MOST_LINES:
                problems.append(f"{where}: cell {number} shows {lines} lines, {MOST_LINES} is most")
    return problems


def link_problems(path: Path) -> list[str]:
    """Return the dead links and missing figures of a Markdown page or a notebook.

    Links into this checkout are followed, with their anchors; of others only the form is read.
    """
    where = "/".join(path.parts[-2:]) if path.suffix == ".ipynb" else path.name
    problems = []
    for link in links(_markdown(path)):
        address, _, anchor = link.partition("#")
        if urlsplit(link).scheme:
            problem = _address_problem(link)
        else:
            target = (path.parent / unquote(address)) if address else path
            if not target.exists():
                figure = target.suffix.lower() in FIGURES
                problem = "this figure is missing" if figure else "there is no such file"
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
    return [(found[1] or found[2] or "").strip("<>") for found in LINK.finditer(text)]


def anchors(markdown: str) -> set[str]:
    """Return the anchors of all headings, as GitHub and as Jupyter spell them.

    >>> sorted(anchors("## A `map` of it"))
    ['A-map-of-it', 'a-map-of-it']
    """
    names: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", markdown)):
        heading = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).strip()
        github = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = sum(name == github or name.startswith(f"{github}-") for name in names)
        names |= {f"{github}-{count}" if github in names else github, heading.replace(" ", "-")}
    return names | set(re.findall(r'\b(?:id|name)="([^"]+)"', markdown))


def repository() -> str:
    """Return the published repository, "owner/name", as pyproject.toml has it."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return urlsplit(project["urls"]["Repository"]).path.strip("/")


def _address_problem(link: str) -> str:
    """Return what is wrong with the form of an address; nothing is fetched."""
    parts = urlsplit(link)
    if parts.scheme == "mailto":
        return "" if "@" in parts.path else "not an e-mail address"
    if parts.scheme == "attachment":
        return "an attachment does not reach the other edition: put the figure into assets"
    host = re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc)
    if parts.scheme not in ("http", "https") or not host:
        return "not a web address"
    raw = parts.netloc == "raw.githubusercontent.com"
    view = "" if raw else "/(?:blob|tree|raw)"
    ours = rf"/(?:github/)?{re.escape(repository())}{view}/[^/]+/(.+)"
    inside = re.fullmatch(ours, parts.path)
    if inside and parts.netloc.endswith(("github.com", "google.com", "githubusercontent.com")):
        return "" if (REPO / unquote(inside[1])).exists() else "there is no such file here"
    return ""


def _markdown(path: Path) -> str:
    """Return the prose of a page; of a notebook, all its Markdown cells."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
