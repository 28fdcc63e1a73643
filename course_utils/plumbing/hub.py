"""The Hugging Face Hub: one commit that uploads, and what to do where the Hub says no."""

import re
import socket
import textwrap
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from course_utils import CourseError

HUB = "https://huggingface.co"


def upload(repo_id: str, files: Mapping[str, bytes | Path], *, repo_type: str = "model",
           private: bool = True, token: str | None = None) -> str:
    """Put files into a repository on the Hub in one commit, make it if needed, return its address.

    `files` is {path in the repository: content or local file}. Without `token` it is the one that
    huggingface_hub finds (HF_TOKEN, or `hf auth login`). Raises CourseError for a name, a token or
    a network that does not work, and for a repository that is public though `private` is asked.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id, re.ASCII):
        raise CourseError(f"'{repo_id}' is no name of a repository: write user/name, with your "
                          "user name on the Hub, in Latin letters, digits, '.', '_', '-'.")
    if not answers():
        raise CourseError(f"{repo_id} was not uploaded: the Hub cannot be reached; connect to the "
                          "network, unset HF_HUB_OFFLINE if it is set, and run it again.")
    api, place = HfApi(token=token), {"repo_id": repo_id, "repo_type": repo_type}
    content = [CommitOperationAdd(name, what) for name, what in files.items()]
    message = "Upload with the Korean instruction tuning course"
    try:
        api.create_repo(**place, private=private, exist_ok=True)
        public = private and not api.repo_info(**place).private
        if not public:
            api.create_commit(**place, operations=content, commit_message=message)
    except Exception as error:  # each library on the way has error classes of its own
        # "from None", for the original may quote the token.
        raise CourseError(f"{repo_id} was not uploaded {remedy(error, repo_id)}.") from None
    if public:
        raise CourseError(f"{repo_id} is there already and public, so nothing was uploaded: choose "
                          "another name, or pass private=False.")
    return f"{HUB}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"


def answers() -> bool:
    """Return at once whether the Hub can be reached at all, or a proxy that would know.

    Without a network the Hub's own client asks six times, for most of a minute.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True
    address = urllib.parse.urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=5).close()
    except OSError:
        return False
    return True


def remedy(error: BaseException, repo_id: str) -> str:
    """Return "(why); what to do" for an error on the way to the Hub: the end of a sentence.

    Libraries wrap the Hub's error in their own, so its causes are looked at too.
    """
    from huggingface_hub.errors import GatedRepoError, LocalTokenNotFoundError

    reason, chain = brief(error), []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    codes = [e.response.status_code for e in chain if getattr(e, "response", None) is not None]
    page = f"{HUB}/{repo_id}"
    token = ("set HF_TOKEN, in the environment or as a Colab secret, to a token from "
             f"{HUB}/settings/tokens")
    if any(isinstance(e, GatedRepoError) for e in chain):
        return f"(it is gated); accept its terms on {page} and {token} of the same account"
    if 401 in codes or any(isinstance(e, LocalTokenNotFoundError) for e in chain):
        return f"(401, no such token, or no such name); check the name on {page}, or {token}"
    if 403 in codes:
        return (f"(403, the token may not do this); {token} that may, look at {page}, and upload "
                "under your own user name")
    if 404 in codes:
        return f"(404, the Hub has no such name); check {page}, above all before the slash"
    if codes:
        return f"({codes[0]}: {reason}); correct what it names, or try again later"
    return f"({reason}); check what it names, the name on {page} and the network"


def brief(error: BaseException) -> str:
    """Return what an error says on one line of at most 200 characters, or its kind."""
    said = textwrap.shorten(str(error), 200, placeholder=" ...")
    return said.rstrip(".") or type(error).__name__


def facts_table(facts: Mapping[str, object]) -> str:
    """Return facts as a Markdown table for a card; no name or value can break out of its cell."""
    cells = [[" ".join(str(cell).split()).replace("|", r"\|") for cell in row]
             for row in facts.items()]
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in cells)
