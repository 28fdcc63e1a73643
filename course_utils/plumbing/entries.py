"""What is known of endpoints before one is asked: recipes/endpoints.yaml, and who has retired."""

import datetime
import difflib
import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from course_utils import CourseError

ENDPOINTS = Path(__file__).resolve().parents[1] / "recipes" / "endpoints.yaml"


class EndpointError(CourseError):
    """An endpoint that does not exist or cannot be asked from here; the message says what to do."""


@functools.cache
def entries() -> dict[str, dict[str, Any]]:
    """Return the entries of endpoints.yaml by name."""
    return read_yaml(ENDPOINTS)


def entry_of(name: str) -> dict[str, Any]:
    """Return an entry of endpoints.yaml. Raises EndpointError, naming the closest."""
    if name not in entries():
        raise EndpointError(no_such("endpoint", name, ["auto", *entries()]))
    return entries()[name]


def fill(said: dict[str, Any], role: str) -> dict[str, Any]:
    """Return an endpoint's settings: what is said of it, else what its entry says; else OpenAI's.

    `role` is "teacher" or "judge". Raises EndpointError for an unknown entry.
    """
    name = said.get("endpoint") or (None if said.get("base_url") else "openai")
    if name == "auto" and any(map(said.get, ("model", "base_url", "price", "rpm", "params"))):
        raise EndpointError("auto takes what is there, with its own settings: name an endpoint.")
    if name in (None, "auto"):
        return said
    entry = entry_of(name)
    model = said.get("model") or ""
    if not model and "list" not in entry:
        model = preferred(entry, role, entry["models"])
    filled = {key: entry[key] for key in ("base_url", "secret", "rpm", "workers") if key in entry}
    filled |= {"endpoint": name, "model": model} | entry["models"].get(model, {})
    if old := entry.get("retired", {}).get(model):
        filled["price"] = old.get("price")
    theirs = entry["base_url"] or "https://api.openai.com"
    address = said.get("base_url") or entry["base_url"] or os.environ.get("OPENAI_BASE_URL")
    if address and not address.startswith(theirs.rstrip("/")):
        filled["price"] = None  # whoever is asked there has prices of his own
    said = {key: value for key, value in said.items() if value is not None}
    if isinstance(said.get("params"), dict):  # one more, not one instead of all
        said["params"] = filled.get("params", {}) | said["params"]
    return filled | said


def preferred(entry: dict[str, Any], role: str, offered: Iterable[str]) -> str:
    """Return the model for a role among those offered: the entry's order, else the server's."""
    offered = list(offered)
    first = [entry["judge"]] if role == "judge" and "judge" in entry else []
    return next((m for m in [*first, *entry["models"]] if m in offered), offered[0])


def retirement(model: str) -> str | None:
    """Return the sentence that a retired model's name gets, with its successor; None otherwise."""
    model = re.sub(r"-\d{4}-\d\d-\d\d$", "", model.rpartition("/")[2])  # openai/gpt-4o-2024-08-06
    for name, entry in entries().items():
        if known := entry.get("retired", {}).get(model):
            ends = "ended" if known["ends"] <= datetime.date.today() else "ends"
            return (f"{model} {ends} on {known['ends']}; {name}'s successor is "
                    f"{known['successor']}. What a journal holds of it stays readable.")
    return None


def read_yaml(path: Path) -> Any:
    """Read a YAML file that gives no key twice; raises OSError, UnicodeDecodeError, YAMLError."""
    return yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)


class _Loader(yaml.SafeLoader):
    """YAML that takes no key twice, and takes 1e-4 for the number that it is."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if str(key.value) in seen:
                said = f"the key '{key.value}' is given twice"
                raise yaml.MarkedYAMLError(problem=said, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return node


# YAML 1.1 wants a dot and a sign in it, and reads text otherwise; nobody means that.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(
    r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), "-+.0123456789")


def no_such(what: str, name: Any, names: Iterable[str]) -> str:
    """Say that nothing has this name, which one is the closest, and which there are."""
    said = f"There is no {what} named '{name}'; the closest is '{closest(name, names)}'"
    return f"{said}, and all are: {', '.join(names)}."


def closest(word: Any, words: Iterable[str]) -> str:
    return difflib.get_close_matches(str(word), list(words), n=1, cutoff=0)[0]
