"""A model's folder: where it is, whether it is whole, which base an adapter was trained on."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from course_utils import REPO, CourseError
from course_utils.plumbing.hub import record_of


class ModelFolderError(CourseError):
    """A model or adapter that cannot be loaded: the message names the missing file or the cause."""


def find_base(base: str | Path) -> str:
    """Return the absolute path of a model's folder, or a Hub id as it is.

    A relative folder is looked up in the checkout, then in the current folder; one that begins with
    a dot only there. A Hub id whose model `make open-models` put into models/ is that folder. What
    looks like a folder and is none raises ModelFolderError.
    """
    name, path = str(base), Path(os.path.expanduser(base))
    places = [Path.cwd() / path] if name.startswith(".") else [REPO / path, Path.cwd() / path]
    for place in places:
        if os.path.isdir(place):  # False also for what cannot be a name, which Path would raise
            return str(place.resolve())
    if (isinstance(base, Path) or name.startswith((".", "/", "~")) or "\\" in name
            or len(path.parts) != 2 or any(os.path.isdir(place.parent) for place in places)):
        looked = " and ".join(map(str, places))
        raise ModelFolderError(f"There is no model folder '{base}' (looked for {looked}): correct "
                               "the name, or, for assets/tiny-gemma-ko, run `make base-model`.")
    made = REPO / "models" / path.name
    return str(made) if made.is_dir() else name


def base_hash(base: str | Path) -> str | None:
    """Return the checksum of a local base model's weights and tokenizer; None for a Hub id."""
    folder = Path(find_base(base))
    if not folder.is_dir():
        return None
    check_folder(folder)
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), folder / "tokenizer.json"]):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def check_folder(folder: Path) -> None:
    """Raise ModelFolderError unless a folder holds a configuration, all weights and a tokenizer."""
    weights, index = ["model.safetensors"], folder / "model.safetensors.index.json"
    if index.is_file():
        weights = sorted(set(map(str, _read(index, "weight_map", dict).values())))
    need(folder, "config.json", *weights, "tokenizer.json")


def check_adapter(adapter: Path, base: str | Path) -> dict[str, Any]:
    """Raise ModelFolderError unless a folder is an adapter for `base`; return its record."""
    need(adapter, "adapter_config.json", "adapter_model.safetensors")
    config, found = adapter / "adapter_config.json", None
    if (kind := _read(config, "peft_type", str)) != "LORA":
        raise ModelFolderError(f"The adapter {adapter} is of the kind '{kind}', and this course "
                               "loads LoRA alone: take a LoRA adapter, or train one.")
    trained_on = _read(config, "base_model_name_or_path", str)
    with contextlib.suppress(ModelFolderError):  # it may be a folder of another machine
        found = find_base(trained_on)
    if found != find_base(base):
        raise ModelFolderError(f"The adapter {adapter} was trained on '{trained_on}', not on "
                               f"'{base}'; load it with its own base model or train one for this.")
    record = record_of(adapter)
    identity = record.get("identity", {})  # it knows the very weights
    if "base" in identity and identity["base"] != base_hash(base):
        raise ModelFolderError(f"The adapter {adapter} was trained on other weights than those in "
                               f"'{base}' now; train it again on this base model.")
    return record


def need(folder: Path, *names: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelFolderError(f"The folder {folder} has no {', '.join(missing)}; download or make "
                               "it again.")


def _read(file: Path, key: str, kind: type) -> Any:
    try:
        if isinstance(value := json.loads(file.read_text(encoding="utf-8"))[key], kind):
            return value
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ModelFolderError(f"{file} is damaged or does not say its {key}; download or make it "
                           "again.")
