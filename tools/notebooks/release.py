"""Set the published repository and tag everywhere at once: badges, install lines, links, version.

    make release REPO=owner/name TAG=vX.Y.Z

What stands there now is read from pyproject.toml (the repository) and course_utils (the version).
No notebook is executed: a new name changes no output. The changelog's tags are history and stay.
"""

import re
import sys
from pathlib import Path

from tools import REPO, repository
from tools import tag as published_tag
from tools.notebooks.build import accept as accept_twins
from tools.notebooks.build import built_problems, code_digest, refresh_text, source_problems
from tools.notebooks.checks import pages
from tools.notebooks.kernel import read_source, sources

OWNER_AND_NAME = re.compile(r"[a-z\d](?:[a-z\d-]{0,37}[a-z\d])?/[\w.-]{1,100}", re.ASCII | re.I)
TAG = re.compile(r"v\d+(?:\.\d+){0,2}(?:(?:a|b|rc)\d+)?", re.ASCII)
VERSION = re.compile(r'^(__version__ = )"([^"]+)"', re.MULTILINE)
UNTIL_RELEASE = re.compile(r"^.*<!-- until make release -->\n", re.MULTILINE)  # lines that go
INIT = REPO / "course_utils" / "__init__.py"


def rename(text: str, old: tuple[str, str], new: tuple[str, str]) -> str:
    """Return a text with the old repository and its tag replaced; other tags stay as they are.

    >>> rename("git clone --branch v1 https://github.com/a/b", ("a/b", "v1"), ("kim/c", "v2"))
    'git clone --branch v2 https://github.com/kim/c'
    """
    repo, tag = map(re.escape, old)
    repo = rf"(?<![\w.-]){repo}(?=\.git\b|(?![\w-]|\.\w))"
    address = rf"{repo}(?:\.git)?(?:@|/(?:(?:blob|tree|raw|releases/tag)/)?)"
    clone = rf"--branch[ =](?=\S++(?!\s+\S*://(?!\S*{repo})))"  # not another project's tag
    tag = rf"{tag}(?![\w-]|\.\w)"
    # ASCII: a Korean particle may follow either name directly. GitHub knows no case.
    text = re.sub(rf"({address}|{clone}){tag}", rf"\g<1>{new[1]}", text, flags=re.A | re.I)
    return re.sub(repo, new[0], text, flags=re.A | re.I)


def chapter(changelog: str, repo: str, tag: str) -> str:
    """Return a changelog in which what was unreleased stands under its version, once."""
    version = tag[1:]
    if f"\n## [{version}]" in changelog:
        return changelog
    text = changelog.replace("\n## [Unreleased]\n", f"\n## [Unreleased]\n\n## [{version}]\n", 1)
    address = f"[{version}]: https://github.com/{repo}/releases/tag/{tag}"
    return re.sub(r"(?m)^(\[Unreleased\]: .*)$", rf"\1\n{address}", text, count=1)


def refusal(repo: str, tag: str) -> str:
    """Return in one sentence why a release cannot be made under these names, "" if it can."""
    if not OWNER_AND_NAME.fullmatch(repo) or repo.endswith((".git", "/.", "/..")):
        return f"REPO={repo!r} is not a GitHub repository: write REPO=owner/name."
    if not TAG.fullmatch(tag):
        return f"TAG={tag!r} is not a version: write TAG=vX.Y.Z."
    stale = [p for path in sources() for p in (*source_problems(path), *built_problems(path))]
    if stale:
        return f"Mend the notebooks first ({len(stale)} problems; build.py --check): {stale[0]}."
    return ""


def files() -> list[Path]:
    """Return every file that may name the repository, the built notebooks aside."""
    patterns = ("course_utils/**/*.py", "notebooks/src/*.py", "tools/site/*.yml",
                ".github/**/*.yml")  # fmt: skip
    found = [path for pattern in patterns for path in sorted(REPO.glob(pattern))]
    return [REPO / "pyproject.toml", *pages(), *found]


def release(repo: str, tag: str) -> list[Path]:
    """Write the new names; return the files that changed."""
    old = (repository(), published_tag())
    executed = {path: code_digest(read_source(path)) for path in sources()}
    changed = []
    for path in files():
        before = path.read_text(encoding="utf-8")
        if path.name.startswith("CHANGELOG"):
            published = old[0].split("/")[0] != "ORG"
            after = rename(before, old, (repo, old[1] if published else tag))
            if not published:  # nobody ever saw that version: its chapter becomes this one's
                after = after.replace(f"[{old[1][1:]}]", f"[{tag[1:]}]")
            after = chapter(after, repo, tag)
        else:
            after = rename(before, old, (repo, tag))
        after = UNTIL_RELEASE.sub("", after) if path.suffix == ".md" else after
        if path == INIT:
            after = VERSION.sub(rf'\g<1>"{tag[1:]}"', after)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    for path in set(changed) & set(executed):
        accept_twins(path)  # each English cell matched its Korean one before, so it does now
        refresh_text(path, executed=executed[path])
    return changed


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or not all(arguments):
        print("Say both names: make release REPO=owner/name TAG=vX.Y.Z", file=sys.stderr)
        return 1
    if reason := refusal(*arguments):
        print(reason, file=sys.stderr)
        return 1
    changed = release(*arguments)
    for path in changed:
        print(path.relative_to(REPO))
    repo, tag = arguments
    print(f"{len(changed)} files now say {repo} {tag}. Next: make test, then commit, then")
    print(f"  git tag {tag} && git push https://github.com/{repo} HEAD {tag}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
