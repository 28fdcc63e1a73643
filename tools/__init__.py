"""What makes and checks this repository; a student never opens it.

    notebooks   the build, the cards and checks, `make course`, `make release`
    base_model  the documents, pages and pretraining of assets/tiny-gemma-ko
    colab       01 to 03 on a Colab GPU, with Google's own command
    site        every page as a web site
    figures     the four pictures of the course
"""

import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

REPO = Path(__file__).resolve().parents[1]
PICTURES = {".png", ".svg", ".jpg", ".jpeg", ".gif", ".webp"}


def repository() -> str:
    """Return the published repository, "owner/name", as pyproject.toml has it."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return urlsplit(project["urls"]["Repository"]).path.strip("/")


def tag() -> str:
    """Return the tag that is published, "v" and the version of course_utils."""
    init = (REPO / "course_utils" / "__init__.py").read_text(encoding="utf-8")
    return "v" + re.search(r'^__version__ = "([^"]+)"', init, re.MULTILINE)[1]
