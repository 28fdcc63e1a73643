"""The Hugging Face Hub: a model's card, one commit that uploads, what to do where it says no."""

import contextlib
import html
import json
import re
import socket
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course_utils import CourseError

HUB = "https://huggingface.co"
SIMULATED = """
**Simulated.** A program that knows a small invented world wrote the data; this shows how the course
works and is no model to use.
"""


def upload(repo_id: str, files: Mapping[str, bytes | Path], *, repo_type: str = "model",
           private: bool = True, token: str | None = None) -> str:
    """Put files into a repository on the Hub in one commit, make it if needed, return its address.

    `files` is {path in the repository: content or local file}. `token` None is the one that
    huggingface_hub finds. Raises CourseError for a name, a token or a network that does not work,
    and for a repository that is public though `private` is asked.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id, re.ASCII):
        raise CourseError(f"'{repo_id}' is no name of a repository: write user/name, with your "
                          "user name on the Hub, in Latin letters, digits, '.', '_', '-'.")
    api, place = HfApi(token=token), {"repo_id": repo_id, "repo_type": repo_type}
    content = [CommitOperationAdd(name, what) for name, what in files.items()]
    try:
        if not answers():
            raise ConnectionError
        api.create_repo(**place, private=private, exist_ok=True)
        public = private and not api.repo_info(**place).private
        if not public:
            api.create_commit(**place, operations=content,
                              commit_message="Upload with the Korean instruction tuning course")
    except Exception as error:  # each library on the way has error classes of its own
        # "from None", for the original may quote the token.
        raise CourseError(f"{repo_id} was not uploaded {remedy(error, repo_id)}.") from None
    if public:
        raise CourseError(f"{repo_id} is there already and public, so nothing was uploaded: choose "
                          "another name, or pass private=False.")
    return f"{HUB}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"


def answers() -> bool:
    """Return at once whether the Hub or a proxy can be reached; its client tries for a minute."""
    import urllib.request  # takes a while, and not every session asks the Hub

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True
    address = urllib.parse.urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=5).close()
        return True
    except OSError:
        return False


def remedy(error: BaseException, repo_id: str) -> str:
    """Return "(why); what to do" for an error on the way to the Hub: the end of a sentence."""
    reason, kinds, code = brief(error), set(), None
    while error is not None:  # libraries wrap the Hub's error in their own
        kinds.add(type(error).__name__)
        code = code or getattr(getattr(error, "response", None), "status_code", None)
        error = error.__cause__ or error.__context__
    if not answers():
        return ("(the Hub cannot be reached); connect to the network, unset HF_HUB_OFFLINE if it "
                "is set, and try again")
    page = f"{HUB}/{repo_id}"
    token = ("set HF_TOKEN, in the environment or as a Colab secret, to a token from "
             f"{HUB}/settings/tokens")
    if "GatedRepoError" in kinds:
        return f"(it is gated); accept its terms on {page} and {token} of the same account"
    if code == 401 or "LocalTokenNotFoundError" in kinds:
        return f"(401, no such token, or no such name); check the name on {page}, or {token}"
    if code == 403:
        return (f"(403, the token may not do this); {token} that may, look at {page}, and upload "
                "under your own user name")
    if code == 404:
        return f"(404, the Hub has no such name); check {page}, above all before the slash"
    if code:
        return f"({code}: {reason}); correct what it names, or try again later"
    return f"({reason}); check what it names, the name on {page} and the network"


def brief(error: BaseException) -> str:
    """Return what an error says on one line of at most 200 characters, or its kind."""
    said = textwrap.shorten(str(error), 200, placeholder=" ...")
    return said.rstrip(".") or type(error).__name__


def model_card(folder: str | Path) -> str:
    """Return the model card of a trained adapter or model, in Markdown, from its record."""
    from huggingface_hub import ModelCardData

    folder = Path(folder)
    found = record_of(folder)
    recipe = found.get("recipe", {})
    library = "peft" if (folder / "adapter_config.json").is_file() else "transformers"
    head = ModelCardData(language="ko", tags=["instruction-tuning"], library_name=library,
                         base_model=recipe.get("base_model"))
    name = plain(recipe.get("name", folder.resolve().name))
    card = (f"---\n{head.to_yaml()}\n---\n\n# {name}\n\n"
            "Instruction-tuned with an open course on Korean instruction tuning.\n")
    if recipe.get("teacher", {}).get("base_url") == "offline":
        card += SIMULATED
    if found:
        facts = {"data (sha256)": code(found["identity"].get("data"))}
        names = ("rows", "steps", "first_loss", "last_loss", "first_eval_loss", "last_eval_loss")
        facts |= {name: found[name] for name in names if found.get(name) is not None}
        settings = json.dumps(recipe, indent=1, ensure_ascii=False)
        card += f"\n{facts_table(facts | found['versions'])}\n```json\n{settings}\n```\n"
    return card


def record_of(folder: Path) -> dict[str, Any]:
    """Return what `train` wrote beside an adapter, or `merge_adapter` into a model; {} if none."""
    for path in (folder / "result.json", folder.parent / "result.json"):
        # Whatever else is there, and however deep, is no record.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError,
                                 RecursionError):
            found = json.loads(path.read_text(encoding="utf-8"))
            recipe, *others = (found[name] for name in ("recipe", "identity", "versions"))
            parts = [recipe, *others, recipe.get("train", {}), recipe.get("teacher", {})]
            if all(isinstance(part, dict) for part in parts):
                return found
    return {}


def facts_table(facts: Mapping[str, object]) -> str:
    """Return facts as a Markdown table for a card; no name or value can break out of its cell."""
    table = "| | |\n|---|---|\n"
    for row in facts.items():
        name, value = (plain(cell).replace("|", r"\|") for cell in row)
        table += f"| {name} | {value} |\n"
    return table


class Markdown(str):
    """Text of a card in which what others chose, the name of a file or a model, is escaped."""


def plain(text: object) -> Markdown:
    """Return text as one line of Markdown that shows it as it is; Markdown stays what it is."""
    if isinstance(text, Markdown):
        return text
    line = html.escape(one_line(text), quote=False)
    return Markdown(re.sub(r"[\\`*\[\]~$]|(?<!\w)_|_(?!\w)", r"\\\g<0>", line))


def code(text: object) -> Markdown:
    """Return text as code in Markdown, which no backtick in it ends."""
    line = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " * (len(fence) > 1)
    return Markdown(f"{fence}{space}{line}{space}{fence}")


def one_line(text: object) -> str:
    """Return text on one line, "?" for the halves of characters that a file's name may hold."""
    return " ".join(str(text).encode(errors="replace").decode().split())
