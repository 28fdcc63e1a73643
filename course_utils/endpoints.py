"""Endpoints: who is asked to write the data and to judge, by name, from recipes/endpoints.yaml.

A recipe names an entry, TEACHER and JUDGE in the environment name another ("gemini", or with a
model "groq:llama-3.3-70b-versatile"), and "auto" is the first whose key is there. Taught in 01,
section 2.
"""

import datetime
import difflib
import functools
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from course_utils import CourseError
from course_utils.secrets import has_secret, scrub, secret

FILE = Path(__file__).resolve().parent / "recipes" / "endpoints.yaml"
AUTO = ("openai", "gemini", "groq", "colab")
"""What "auto" looks for, in this order."""


class EndpointError(CourseError):
    """An endpoint that does not exist or cannot be asked from here; the message says what to do."""


@dataclass(frozen=True)
class Endpoint:
    """A model at an OpenAI-compatible address, with what its provider asks for.

    `endpoint` is the entry's name; None for an address of your own. `base_url` None is OpenAI's,
    "offline" the simulated API on loopback. `price` is US dollars for a million input and a million
    output tokens; None means that nothing is charged. `rpm` is requests a minute, `params` go along
    with every request.
    """

    model: str = ""
    base_url: str | None = None
    price: tuple[float, float] | None = None
    endpoint: str | None = None
    secret: str | None = None
    rpm: int | None = None
    workers: int = 8
    params: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def simulated(self) -> bool:
        """Whether a program that knows the truth stands in for a model."""
        return self.base_url == "offline"

    @property
    def family(self) -> str:
        """Whose model it is, roughly: a judge likes answers of its own kind.

        >>> Endpoint("openai/gpt-oss-120b").family, Endpoint("google/gemma-3-27b").family
        ('gpt', 'google')
        """
        name = re.match(r"[a-z]*", self.model.lower().rpartition("/")[2])[0]
        return "google" if name.startswith("gem") else name


@functools.cache
def entries() -> dict[str, dict[str, Any]]:
    """Return the entries of endpoints.yaml by name."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def fill(said: dict[str, Any], role: str) -> dict[str, Any]:
    """Return an endpoint's settings: what is said of it, else what its entry says.

    `role` is "teacher" or "judge". Neither an entry nor an address means OpenAI. Raises
    EndpointError for an unknown entry, naming the closest.
    """
    name = said.get("endpoint") or (None if said.get("base_url") else "openai")
    if name in (None, "auto"):
        return said
    entry = _entry(name)
    model = said.get("model") or ""
    if not model and "list" not in entry:
        model = _preferred(entry, role, entry["models"])
    filled = {key: entry[key] for key in ("base_url", "secret", "rpm", "workers") if key in entry}
    filled |= {"endpoint": name, "model": model} | entry["models"].get(model, {})
    if old := entry.get("retired", {}).get(model):
        filled["price"] = old.get("price")
    filled |= {key: value for key, value in said.items() if value is not None}
    return filled | ({"price": tuple(filled["price"])} if filled.get("price") else {})


def named(text: str, role: str) -> Endpoint:
    """Return the endpoint that "gemini" or "groq:llama-3.3-70b-versatile" names."""
    name, _, model = text.strip().partition(":")
    return Endpoint(**fill({"endpoint": name, "model": model or None}, role))


def choose(teacher: Endpoint, judge: Endpoint) -> tuple[Endpoint, Endpoint, str]:
    """Return teacher and judge as they are here, and in words why it is this teacher.

    TEACHER and JUDGE in the environment come first. An endpoint that is not there stays as it was
    said, "auto" for one; whoever asks it gets the sentence that `located` raises.
    """
    said = ""
    if wanted := os.environ.get("TEACHER"):
        teacher, said = named(wanted, "teacher"), "TEACHER asks for it"
        if judge.simulated and not teacher.simulated:
            judge = Endpoint(endpoint="auto")  # the simulated one knows no other world
    if wanted := os.environ.get("JUDGE"):
        judge = named(wanted, "judge")
    if "auto" in (teacher.endpoint, judge.endpoint):
        there, found = available()
        said = said or found
        if teacher.endpoint == "auto" and there:
            teacher = there[0]
        if judge.endpoint == "auto" and teacher.endpoint != "auto":
            judge = _judge_for(teacher, there)
    return _if_there(teacher, "teacher"), _if_there(judge, "judge"), said


def available() -> tuple[list[Endpoint], str]:
    """Return the endpoints that "auto" may take here, best first, and why others are none."""
    there, problems, missing = [], [], []
    for name in AUTO:
        key = _entry(name)["secret"]
        if name == "colab" and "MODEL_PROXY_HOST" not in os.environ:
            continue
        if not has_secret(key):
            missing.append(key)
            continue
        try:
            there.append(located(named(name, "teacher"), "teacher"))
        except EndpointError as error:
            problems.append(str(error))
    if there and there[0].endpoint == "colab":
        return there, "Colab lends its models"
    if there:
        return there, f"{there[0].secret} is set"
    return [], " ".join([f"none of {', '.join(missing)} is set", *problems])


def located(endpoint: Endpoint, role: str) -> Endpoint:
    """Return an endpoint with the address and the model that it has from here.

    Raises EndpointError where "auto" finds nothing, a variable is not set, or the server that lists
    its models refuses, offers none or cannot be reached.
    """
    if endpoint.endpoint == "auto":
        raise EndpointError(
            f"There is nobody to ask: {available()[1]}. Set one of them, or name an endpoint: "
            f"{role.upper()}=local for a server of your own, {role.upper()}=offline for the "
            "simulated one."
        )
    if endpoint.endpoint is None:
        return endpoint
    endpoint = replace(endpoint, base_url=endpoint.base_url and _expanded(endpoint.base_url))
    entry = _entry(endpoint.endpoint)
    if endpoint.model or "list" not in entry:
        return endpoint
    # An address of its own has its own list.
    usual = endpoint.base_url == _expanded(entry["base_url"])
    address = _expanded(entry["list"]) if usual else f"{endpoint.base_url.rstrip('/')}/models"
    offered = _offered(endpoint.endpoint, address, key_of(endpoint, ask=False))
    model = _preferred(entry, role, offered)
    return replace(endpoint, model=model, **entry["models"].get(model, {}))


def _if_there(endpoint: Endpoint, role: str) -> Endpoint:
    try:
        return located(endpoint, role)
    except EndpointError:
        return endpoint


def key_of(endpoint: Endpoint, *, ask: bool = True) -> str:
    """Return the key to send, "none" where the server needs none. Raises MissingSecret."""
    needs = endpoint.endpoint is not None and _entry(endpoint.endpoint).get("needs_key", True)
    name = endpoint.secret or "LLM_API_KEY"  # a provider's key is for that provider alone
    return secret(name, ask=ask) if needs or has_secret(name) else "none"


def terms(endpoint: Endpoint) -> str:
    """Return what an endpoint costs and how fast it may be asked, in a few words."""
    entry = _entry(endpoint.endpoint) if endpoint.endpoint else {"models": {}}
    money = "free within the provider's limits" if entry.get("secret") else "free"
    if endpoint.price:
        money = "${:.2f} in and ${:.2f} out a million tokens".format(*endpoint.price)
    elif any("price" in model for model in entry["models"].values()):
        money = "price not known here: look it up before you spend money"
    return f"{money}, {endpoint.rpm} requests a minute" if endpoint.rpm else money


def data_terms(endpoints: Iterable[Endpoint]) -> str:
    """Return what the providers of these endpoints may do with what is sent, and since when."""
    names = dict.fromkeys(e.endpoint for e in endpoints if e.endpoint not in (None, "auto"))
    said = [f"{name}: {_entry(name)['data']} ({_entry(name)['checked']})" for name in names]
    return "; ".join(said)


def retirement(model: str) -> str | None:
    """Return the sentence that a retired model's name gets, with its successor; None otherwise."""
    for name, entry in entries().items():
        if known := entry.get("retired", {}).get(model):
            ends = "ended" if known["ends"] <= datetime.date.today() else "ends"
            return (
                f"{model} {ends} on {known['ends']}; {name}'s successor is {known['successor']}. "
                "What a journal holds of it stays readable."
            )
    return None


def _entry(name: str) -> dict[str, Any]:
    known = entries()
    if name not in known:
        closest = max(known, key=lambda k: difflib.SequenceMatcher(None, name, k).ratio())
        raise EndpointError(f"There is no endpoint named '{name}'; the closest is '{closest}', and "
                            f"all are: auto, {', '.join(known)}.")  # fmt: skip
    return known[name]


def _preferred(entry: dict[str, Any], role: str, offered: Iterable[str]) -> str:
    """Return the model for a role among those offered: the entry's order, else the server's."""
    offered = list(offered)
    wanted = [entry["judge"]] if role == "judge" and "judge" in entry else []
    return next((m for m in [*wanted, *entry["models"]] if m in offered), offered[0])


def _judge_for(teacher: Endpoint, there: list[Endpoint]) -> Endpoint:
    """Return a judge of another family than the teacher's if one is there, else its own endpoint's.

    Of the teacher's own endpoint every model may do; of others the one they judge with.
    """
    own = _entry(teacher.endpoint) if teacher.endpoint else None
    if own and not teacher.simulated:
        for other in there:
            judge = named(other.endpoint, "judge")
            judge = replace(judge, base_url=other.base_url, model=judge.model or other.model)
            if judge.family != teacher.family:
                return judge
    if own:
        return named(teacher.endpoint, "judge")
    return teacher


def _offered(name: str, address: str, key: str) -> list[str]:
    """Return the ids that a server lists as its models."""
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {key}"})
    proxies = {} if re.match(r"https?://(localhost|127\.|\[::1)", address) else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    try:
        with opener.open(request, timeout=10) as response:
            listed = json.load(response)
    except urllib.error.HTTPError as error:
        raise EndpointError(
            f"The endpoint {name} refuses to list its models at {address} ({error.code}): take "
            "another one, with a key of your own."
        ) from None
    except (OSError, ValueError) as error:
        reason = scrub(str(getattr(error, "reason", error)))
        raise EndpointError(
            f"The endpoint {name} does not answer at {address} ({reason}): is the server running, "
            "and the address right?"
        ) from None
    if isinstance(listed, dict):
        listed = listed.get("data") or listed.get("models") or []
    ids = [m if isinstance(m, str) else m.get("id") or m.get("name") for m in listed]
    if not (ids := [i for i in ids if i]):
        raise EndpointError(f"The endpoint {name} offers no model at {address}.")
    return ids


def _expanded(text: str) -> str:
    """Return a text with its ${NAME} and ${NAME:-otherwise} replaced from the environment."""

    def value(match: re.Match) -> str:
        name, otherwise = match[1], match[2]
        found = os.environ.get(name) or otherwise
        if found is None:
            raise EndpointError(
                f"{name} is not set: it is there in a Colab session alone. Take another endpoint."
            )
        return found.rstrip("/")

    text = re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)
    return text if "://" in text or text == "offline" else f"https://{text}"
