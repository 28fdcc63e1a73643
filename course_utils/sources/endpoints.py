"""Who is there: the endpoints that can be asked from here, by the keys and servers that are found.

TEACHER and JUDGE in the environment name an entry of recipes/endpoints.yaml ("gemini", or with a
model "groq:llama-3.3-70b-versatile"), and "auto" is the first whose key is there. Taught in 01,
section 2.
"""

import math
import os
import re
import time
from collections.abc import Iterable
from dataclasses import replace

from course_utils import CourseError
from course_utils.plumbing.connection import Connection, NoAnswer
from course_utils.plumbing.entries import EndpointError, entry_of, fill, preferred
from course_utils.plumbing.secrets import has_secret, secret
from course_utils.recipe import Endpoint

AUTO = ("openai", "gemini", "groq", "colab")  # what "auto" looks for, in this order

_silent: dict[str, tuple[float, NoAnswer]] = {}  # which address gave no answer, and when


def named(text: str, role: str) -> Endpoint:
    """The endpoint that "gemini" or "groq:llama-3.3-70b-versatile" names."""
    name, _, model = (part.strip() for part in text.partition(":"))
    if name == "offline" and model:
        raise EndpointError("offline has a model for each part: say offline alone.")
    return Endpoint(**fill({"endpoint": name.lower(), "model": model or None}, role))


def choose(teacher: Endpoint, judge: Endpoint) -> tuple[Endpoint, Endpoint, str]:
    """Teacher and judge as they are here, TEACHER's and JUDGE's first, and why it is this teacher.

    An endpoint that is not there stays as it was said; whoever asks it gets `located`'s error.
    """
    said = ""
    if wanted := os.environ.get("TEACHER", "").strip():
        teacher, said = named(wanted, "teacher"), "TEACHER asks for it"
        if judge.simulated and not teacher.simulated:
            judge = Endpoint(endpoint="auto")  # the simulated one knows no other world
    if wanted := os.environ.get("JUDGE", "").strip():
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
    """The endpoints that "auto" may take here, best first, and why: or else why there is none."""
    there, why = [], []
    for name in AUTO:
        asked = name != "colab" or "MODEL_PROXY_HOST" in os.environ
        if asked and has_secret(entry_of(name)["secret"]):
            try:
                there.append(located(named(name, "teacher"), "teacher"))
            except EndpointError as error:
                why.append(str(error).rstrip("."))
    if not there:
        missing = ", ".join(entry_of(name)["secret"] for name in AUTO if name != "colab")
        return [], ". ".join([f"none of {missing} is set", *why])
    lends = there[0].endpoint == "colab"
    return there, "Colab lends its models" if lends else f"{there[0].secret} is set"


def located(endpoint: Endpoint, role: str) -> Endpoint:
    """An endpoint with the address and the model that it has from here; raises EndpointError."""
    if endpoint.endpoint == "auto":
        raise EndpointError(f"There is nobody to ask: {available()[1]}. Set one of them, or name "
                            f"an endpoint: {role.upper()}=local for a server of your own, "
                            f"{role.upper()}=offline for the simulated one.")
    if endpoint.endpoint is None:
        return endpoint
    endpoint = replace(endpoint, base_url=endpoint.base_url and _expanded(endpoint.base_url))
    entry = entry_of(endpoint.endpoint)
    if endpoint.model or "list" not in entry:
        return endpoint
    address = endpoint.base_url
    if address == _expanded(entry["base_url"]):  # one of its own has its own list
        address = _expanded(entry["list"]).removesuffix("/models")
    model = preferred(entry, role, _offered(endpoint, address))
    return replace(endpoint, model=model, **entry["models"].get(model, {}))


def _if_there(endpoint: Endpoint, role: str) -> Endpoint:
    try:
        return located(endpoint, role)
    except EndpointError:
        return endpoint


def key_of(endpoint: Endpoint, *, ask: bool = True) -> str:
    """The key to send, "none" where the server needs none. Raises MissingSecret."""
    needs = endpoint.endpoint is not None and entry_of(endpoint.endpoint).get("needs_key", True)
    name = endpoint.secret or "LLM_API_KEY"  # a provider's key is for that provider alone
    return secret(name, ask=ask) if needs or has_secret(name) else "none"


def terms(endpoint: Endpoint) -> str:
    """What an endpoint costs and how fast it may be asked, in a few words."""
    entry = entry_of(endpoint.endpoint) if endpoint.endpoint else {}
    known = entry.get("models", {})
    if endpoint.price:
        money = "${:.2f} in and ${:.2f} out a million tokens".format(*endpoint.price)
    elif "price" in known.get(endpoint.model, {}) or (
            known and endpoint.model not in known and "list" not in entry):
        money = "price not known here: look it up before you spend money"
    else:
        money = "free within the provider's limits" if entry.get("needs_key", True) else "free"
    return f"{money}, {endpoint.rpm} requests a minute" if endpoint.rpm else money


def data_terms(endpoints: Iterable[Endpoint]) -> str:
    """What the providers of these endpoints may do with what is sent, and since when."""
    names = dict.fromkeys(e.endpoint for e in endpoints if e.endpoint not in (None, "auto"))
    return "; ".join(f"{name}: {entry_of(name)['data']} ({entry_of(name)['checked']})"
                     for name in names)


def _judge_for(teacher: Endpoint, there: list[Endpoint]) -> Endpoint:
    """A judge of another family than the teacher's if one is there, else its own endpoint's."""
    if teacher.endpoint is None:
        return teacher
    for other in there if not teacher.simulated else []:
        judge = named(other.endpoint, "judge")
        judge = replace(judge, base_url=other.base_url, model=judge.model or other.model)
        if judge.family != teacher.family:
            return judge
    return named(teacher.endpoint, "judge")


def _offered(endpoint: Endpoint, address: str) -> list[str]:
    """The ids that a server lists as its models. One that kept silent is not waited for again
    while the same cell runs: `setup` asks several times."""
    server = Connection("any", address, key_of(endpoint, ask=False), timeout=4, max_retries=0)
    try:
        since, silence = _silent.get(address, (-math.inf, None))
        if time.monotonic() - since < 20:
            raise silence
        listed = server.call(lambda client, _: client.get("/models", cast_to=object))
    except CourseError as error:
        if isinstance(error, NoAnswer) and error is not silence:
            _silent[address] = time.monotonic(), error
        raise EndpointError(f"The endpoint {endpoint.endpoint} does not list its models: "
                            f"{str(error).rstrip('.')}. Or take another one.") from None
    if isinstance(listed, dict):
        listed = listed.get("data") or listed.get("models")
    ids = [model.get("id") or model.get("name") if isinstance(model, dict) else model
           for model in (listed if isinstance(listed, list) else [])]
    ids = [name for name in ids if name and isinstance(name, str) and name.isprintable()]
    if not ids:
        raise EndpointError(f"The endpoint {endpoint.endpoint} offers no model at {address}.")
    return ids


def _expanded(text: str) -> str:
    """A text with its ${NAME} and ${NAME:-otherwise} replaced from the environment."""
    def value(match: re.Match) -> str:
        found = os.environ.get(match[1]) or match[2]
        if found is None:
            raise EndpointError(f"{match[1]} is not set (Colab sets it): take another endpoint.")
        return found.rstrip("/")

    text = re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)
    return text if "://" in text or text == "offline" else f"https://{text}"
