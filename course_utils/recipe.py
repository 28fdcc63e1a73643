"""The recipe: the one file that changes between a laptop CPU, one GPU and many."""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from course_utils import CourseError
from course_utils.endpoints import FILE as ENDPOINTS
from course_utils.endpoints import Endpoint, EndpointError, fill

RECIPES = Path(__file__).resolve().parent / "recipes"
PRESETS: dict[str, dict[str, float]] = {
    # Minutes in a lesson: every cell runs and tuning shows, but no number is worth quoting.
    "quick": {"data.n": 800, "data.heldout": 6, "train.epochs": 2, "evaluate.questions": 24},
    "full": {},
}
"""The most that a preset allows of each setting; a recipe that has less keeps it."""


class RecipeError(CourseError):
    """A recipe that does not exist, or one that says something the course does not understand."""


def _at_least(least: float, default: float, *, below: float = math.inf) -> Any:
    """A setting whose value is checked when a recipe is read: at least this, and below that."""
    return field(default=default, metadata={"least": least, "below": below})


@dataclass(frozen=True)
class DataSpec:
    """The instruction data: tasks to keep, similarity threshold, seed, held-out tasks a family."""

    n: int = _at_least(1, 2300)
    threshold: float = _at_least(0, 0.7, below=1.0001)
    seed: int = 0
    heldout: int = _at_least(1, 30)


@dataclass(frozen=True)
class TrainSpec:
    """How to tune: template, LoRA, optimiser, precision and GPUs, in the Trainer's own terms.

    `max_length` is in tokens. `lora_r` 0 trains every weight. `warmup` below 1 is a share of all
    steps, otherwise a number of steps. `sampling` "length" puts rows of like length side by side.
    `heldout` is the share of rows kept back for a loss on rows that are not trained. `save_steps`
    is the distance between two checkpoints in optimiser steps. `gpus` is how many processes the
    recipe is meant for. `threads` is for training on a CPU; 0 leaves PyTorch's choice. `quantize`
    "4bit" holds the frozen matrices under an adapter in four bits a weight (QLoRA).
    """

    template: str = "chat"
    max_length: int = _at_least(1, 512)
    lora_r: int = _at_least(0, 4)
    lora_alpha: int = _at_least(1, 32)
    lora_dropout: float = _at_least(0, 0.0, below=1)
    target_modules: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    epochs: float = _at_least(0.001, 1.0)
    batch_size: int = _at_least(1, 4)
    gradient_accumulation: int = _at_least(1, 1)
    gpus: int = _at_least(1, 1)
    parallel: Literal["none", "ddp", "fsdp"] = "none"
    sampling: Literal["random", "length"] = "random"
    learning_rate: float = _at_least(0, 1e-4)
    scheduler: str = "cosine"
    warmup: float = _at_least(0, 0.05)
    weight_decay: float = _at_least(0, 0.0)
    optim: str = "adamw_torch"
    max_grad_norm: float = _at_least(0, 0.3)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantize: Literal["none", "4bit"] = "none"
    attention: str = "auto"
    activation_checkpointing: bool = False
    heldout: float = _at_least(0, 0.0, below=1)
    report_to: Literal["none", "tensorboard", "wandb"] = "none"
    seed: int = 0
    save_steps: int = _at_least(1, 50)
    threads: int = _at_least(0, 0)

    def __post_init__(self) -> None:
        if self.quantize == "4bit" and (self.full or self.parallel == "fsdp"):
            raise RecipeError(
                "'train.quantize' 4bit holds frozen weights, whole on each GPU: it needs an "
                "adapter ('train.lora_r' above 0) and another 'train.parallel' than fsdp."
            )

    @property
    def effective_batch(self) -> int:
        """Rows behind one optimiser step: batch x accumulation x GPUs."""
        return self.batch_size * self.gradient_accumulation * self.gpus

    @property
    def full(self) -> bool:
        """Whether every weight is trained, not an adapter."""
        return self.lora_r == 0

    @property
    def held_dtype(self) -> str:
        """The type the weights are held in, which may be wider than the one they compute in.

        Weights that are trained stay in float32: near 1, bfloat16 has steps of 1/128, and an update
        of a full fine-tune is smaller and would be rounded away. Frozen ones need no more than
        `dtype`; the adapter on them is float32, as PEFT makes it.
        """
        return "float32" if self.full else self.dtype


@dataclass(frozen=True)
class EvaluateSpec:
    """How to evaluate: questions to judge, the longest reply in tokens, prompts a batch."""

    questions: int = _at_least(1, 60)
    max_new_tokens: int = _at_least(1, 64)
    batch_size: int = _at_least(1, 64)
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """Everything a run of the course depends on. Taught in 02, section 2.

    `architecture` is the part of the base model's config.json (its own names) that tells how large
    the model is: what the memory estimate and the tiny stand-ins need without downloading anything.
    A folder brings its own.
    """

    name: str
    base_model: str
    teacher: Endpoint
    judge: Endpoint
    description: str = ""
    architecture: dict[str, Any] | None = field(default=None, hash=False)
    data: DataSpec = field(default_factory=DataSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    evaluate: EvaluateSpec = field(default_factory=EvaluateSpec)

    def replace(self, key: str, value: Any) -> Self:
        """Return a copy with one setting changed: `recipe.replace("train.lora_r", 16)`.

        Raises RecipeError for an unknown key, naming the nearest, or a value of the wrong kind.
        """
        settings = self.to_dict()
        *parents, last = key.split(".")
        place = settings
        for i, parent in enumerate(parents):
            if not isinstance(place.get(parent), dict):
                raise _unknown(self.name, ".".join(parents[: i + 1]), place, ".".join(parents[:i]))
            place = place[parent]
        if last not in place:
            raise _unknown(self.name, key, place, ".".join(parents))
        # Another model has another price, another address other models.
        if key in ("teacher.model", "judge.model"):
            place = settings[parents[0]] = {"endpoint": place["endpoint"]}
        elif key in ("teacher.base_url", "judge.base_url"):
            place = settings[parents[0]] = {"model": place["model"]}
        place[last] = value
        return _build(type(self), settings, self.name)

    def preset(self, name: str) -> Self:
        """Return the recipe at the size of a preset: "quick" for a lesson, "full" as it is.

        Made smaller it has a name of its own, "offline-quick", and so a run folder of its own.
        Raises RecipeError for an unknown preset, naming the nearest.
        """
        if name not in PRESETS:
            raise RecipeError(
                f"There is no preset named '{name}'; the closest is "
                f"'{_closest(name, list(PRESETS))}', and all are: {', '.join(PRESETS)}."
            )
        if not PRESETS[name]:
            return self
        recipe, settings = self.replace("name", f"{self.name}-{name}"), self.to_dict()
        for key, most in PRESETS[name].items():
            part, setting = key.split(".")
            recipe = recipe.replace(key, min(most, settings[part][setting]))
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain dictionaries, ready for JSON."""
        return dataclasses.asdict(self)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the course."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if path != ENDPOINTS)


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by name ("offline") or from a YAML file ("my/recipe.yaml").

    Raises RecipeError for an unknown name or key, naming the nearest, for a missing key and for
    a value of the wrong kind.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        names = recipe_names()
        if str(name_or_path) not in names:
            raise RecipeError(
                f"There is no recipe named '{name_or_path}'; the closest is "
                f"'{_closest(str(name_or_path), names)}', and all are: {', '.join(names)}."
            )
        path = RECIPES / f"{name_or_path}.yaml"
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError(
            f"There is no recipe file {path}; give a file that exists or one of: "
            f"{', '.join(recipe_names())}."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{path} cannot be read as YAML ({reason}); correct the file.") from None
    if not isinstance(settings, dict):
        raise RecipeError(
            f"{path} holds no settings; start from a copy of {RECIPES / 'offline.yaml'}."
        )
    recipe = _build(Recipe, {"name": path.stem, **settings}, str(path))
    # Not in _build: `replace` changes one setting at a time.
    if not recipe.train.full and not recipe.train.target_modules:
        raise RecipeError(
            f"{path}: target_modules is empty, so LoRA has nothing to train; name layers, or set "
            "lora_r to 0 to train every weight."
        )
    if (recipe.train.gpus > 1) != (recipe.train.parallel != "none"):
        raise RecipeError(
            f"{path}: 'train.gpus' is {recipe.train.gpus} but 'train.parallel' is "
            f"'{recipe.train.parallel}': several GPUs need ddp or fsdp, and one GPU needs none."
        )
    return recipe


def _build(kind: type, settings: dict, source: str, prefix: str = "") -> Any:
    """Make a dataclass of `kind` from `settings`, checking every key and value."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in settings.items():
        where = f"{prefix}{key}"
        if key not in fields:
            raise _unknown(source, where, fields, prefix.rstrip("."))
        if dataclasses.is_dataclass(hints[key]):
            if hints[key] is Endpoint:
                value = _endpoint(value, key, source)
            if not isinstance(value, dict):
                raise RecipeError(f"{source}: '{where}' must hold settings, not {value!r}.")
            values[key] = _build(hints[key], value, source, f"{where}.")
        else:
            values[key] = _convert(hints[key], value, source, where)
            limits = fields[key].metadata
            if limits and not limits["least"] <= values[key] < limits["below"]:
                below = f" and below {limits['below']}" if limits["below"] < math.inf else ""
                raise RecipeError(
                    f"{source}: '{where}' must be at least {limits['least']}{below}, not {value!r}."
                )
    for f in fields.values():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in values:
            raise RecipeError(f"{source}: '{prefix}{f.name}' is missing; add it.")
    try:
        return kind(**values)
    except RecipeError as error:  # settings that exclude each other
        raise RecipeError(f"{source}: {error}") from None


def _endpoint(value: Any, role: str, source: str) -> Any:
    """Return an endpoint's settings for `teacher: openai`, or for settings that leave some out."""
    value = {"endpoint": value} if isinstance(value, str) else value
    if value == {}:
        raise RecipeError(f"{source}: '{role}' says nothing: name an endpoint, or auto.")
    try:
        return fill(value, role) if isinstance(value, dict) else value
    except EndpointError as error:
        raise RecipeError(f"{source}: '{role}': {error}") from None


def _convert(hint: Any, value: Any, source: str, where: str) -> Any:
    """Return `value` as the type `hint` asks for, or raise RecipeError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and value in args:
        return value
    if origin is dict and isinstance(value, dict):
        return value
    if origin in (typing.Union, types.UnionType):  # only "X | None" occurs
        return None if value is None else _convert(args[0], value, source, where)
    if origin is tuple and isinstance(value, list | tuple):
        inner = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(inner) == len(value):
            return tuple(_convert(h, v, source, where) for h, v in zip(inner, value, strict=True))
    if hint is float and not isinstance(value, bool):
        try:  # YAML 1.1 reads 1e-4 (no dot) as text, and nobody means that
            return float(value)
        except (TypeError, ValueError):
            pass
    if hint in (int, str, bool) and type(value) is hint:
        return value
    if origin is Literal:
        expected = " or ".join(args)
    elif origin is dict:
        expected = "settings such as {model_type: gemma, hidden_size: 2048}"
    elif origin is tuple:
        expected = "a list such as " + ("[0.15, 0.60]" if args[-1] is float else "[q_proj, v_proj]")
    else:
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        expected = kinds[hint]
    raise RecipeError(f"{source}: '{where}' must be {expected}, not {value!r}.")


def _unknown(source: str, where: str, known: typing.Iterable[str], prefix: str) -> RecipeError:
    nearest = _closest(where.rsplit(".", 1)[-1], list(known))
    nearest = f"{prefix}.{nearest}" if prefix else nearest
    return RecipeError(f"{source}: unknown key '{where}'; the nearest one is '{nearest}'.")


def _closest(word: str, words: list[str]) -> str:
    return max(words, key=lambda w: difflib.SequenceMatcher(None, word, w).ratio())
