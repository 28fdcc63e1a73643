"""What `setup()` prints: the recipe, the GPU, who is asked and what it costs, where files go."""

import os
from pathlib import Path

from course_utils import shown
from course_utils.checkpoint import CheckpointStore
from course_utils.inference import Device
from course_utils.plumbing.colab import version_of
from course_utils.plumbing.entries import EndpointError, retirement
from course_utils.plumbing.scrub import scrub
from course_utils.plumbing.secrets import has_secret
from course_utils.recipe import GATED, L4, T4, Endpoint, Recipe
from course_utils.sources.endpoints import data_terms, located, terms

ON_CARD = ("torch", "transformers", "trl", "peft")


def card(recipe: Recipe, store: CheckpointStore, device: Device, *, data: Path | None, base: str,
         why: str, drive: str | None) -> str:
    """Return the card of a run: one line a fact, and a line for whatever will not work.

    `base` is the base model's folder or name, `why` says why it is this recipe, `drive` what is
    wrong with Google Drive.
    """
    rows = {
        "Recipe": f"{recipe.name} ({why})",
        "Device": device.name,
        "Wrong GPU": _wrong_gpu(recipe, store, device),
        "Base model": shown(base) if os.path.isdir(base) else base,
        "Teacher": _address(recipe.teacher, "teacher"),
        "Judge": _address(recipe.judge, "judge", recipe.teacher),
        "Sent data": data_terms(e for e in (recipe.teacher, recipe.judge) if not e.simulated),
        "Data": f"{shown(data)}, instead of generated tasks" if data else None,
        "Artefacts": shown(store.root / store.run),
        "Versions": ", ".join(f"{name} {version_of(name)}" for name in ON_CARD if version_of(name)),
        "Drive": drive,
    }
    if base.startswith("google/") and not has_secret("HF_TOKEN"):
        rows["Hub"] = f"HF_TOKEN is not set: {base} asks for it (accept its licence on the Hub)."
    return "\n".join(f"{name:<12}{one_line(value)}" for name, value in rows.items() if value)


def _address(endpoint: Endpoint, role: str, teacher: Endpoint | None = None) -> str:
    """Return who is asked, what it costs, and what to know of it, on one line."""
    try:
        endpoint = located(endpoint, role)
    except EndpointError as error:
        return f"MISSING. {error}"
    if endpoint.simulated:
        return f"{endpoint.model}: SIMULATED, answers come from a program that knows the truth"
    where = endpoint.endpoint or endpoint.base_url
    if endpoint.base_url is None and (other := os.environ.get("OPENAI_BASE_URL")):
        where = f"{other} (OPENAI_BASE_URL)"
    said = f"{endpoint.model} at {where} ({terms(endpoint)})"
    if teacher and endpoint.family == teacher.family:
        said += "; the teacher's own family, which it may favour"
    if ended := retirement(endpoint.model):
        said += f". {ended}"
    return scrub(said)


def _wrong_gpu(recipe: Recipe, store: CheckpointStore, device: Device) -> str | None:
    """Return a sentence where the GPU is not what the recipe needs: a reconnect may bring a T4."""
    cure = "choose an L4 under Runtime > Change runtime type"
    if device.kind != "cuda" or device.capability >= (8, 0):
        return None
    if recipe.train.dtype == "bfloat16":
        return f"this recipe computes in bfloat16, which {device.name} lacks: {cure}, or take {T4}."
    for begun in (GATED, L4):
        if (store.root / begun).is_dir():
            return f"the run {begun} was begun on a larger one: to go on with it, {cure}."
    return None


def one_line(text: str) -> str:
    """Return a text in which no name of a file or a model can begin a line or act unseen."""
    return "".join(c if c.isprintable() else " " for c in text)
