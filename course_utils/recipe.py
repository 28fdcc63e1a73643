"""The recipe: what changes between a laptop CPU, one GPU and many, and who is asked.

A recipe is a YAML file in recipes/. Whom it asks to write the data and to judge, it names as an
entry of recipes/endpoints.yaml; "auto" is the first entry whose key is there.
"""

import dataclasses
import re
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import ConfigDict, Field, StrictFloat, StrictInt, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from course_utils import CourseError
from course_utils.plumbing import entries

RECIPES = entries.ENDPOINTS.parent
# What "auto" takes where there is a GPU and somebody to ask. Gemma is gated, no good in float16.
GATED, L4, T4 = "gemma-2b-l4", "midm-2b-l4", "midm-2b-t4"
# Minutes in a lesson: every cell runs and tuning shows, but no number is worth quoting.
QUICK = {"data.n": 800, "data.heldout": 6, "train.epochs": 2, "evaluate.questions": 24}
PRESETS: dict[str, dict[str, float]] = {"quick": QUICK, "full": {}}
"""The most that a preset allows of each setting; a recipe that has less keeps it."""

Price = Annotated[StrictFloat, Field(ge=0)]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
UNKNOWN = ("unexpected_keyword_argument", "invalid_key")
# What is kept of a teacher or a judge of whom one thing is replaced: another model has another
# price, another address other models, another entry all else.
KEPT = {"endpoint": (), "model": ("endpoint",), "base_url": ("model",)}


class RecipeError(CourseError):
    """A recipe that does not exist, or one that says something the course does not understand."""


@dataclass(frozen=True, config=STRICT)
class DataSpec:
    """The instruction data: tasks to keep, similarity threshold, seed, held-out tasks a family."""

    n: StrictInt = Field(2300, ge=1)
    threshold: StrictFloat = Field(0.7, ge=0, lt=1.0001)
    seed: StrictInt = 0
    heldout: StrictInt = Field(30, ge=1)


@dataclass(frozen=True, config=STRICT)
class TrainSpec:
    """How to tune: template, LoRA, optimiser, precision and GPUs, in the Trainer's own terms.

    `max_length` is in tokens, `save_steps` in optimiser steps, and so is a `warmup` of 1 or more;
    below 1 it is a share of all steps. `lora_r` 0 trains every weight. `sampling` "length" puts
    rows of like length side by side. `heldout` is the share of rows kept back for an evaluation
    loss. `threads` is for a CPU; 0 leaves PyTorch's choice. `quantize` "4bit" is QLoRA's.
    """

    template: str = "chat"
    max_length: StrictInt = Field(512, ge=1)
    lora_r: StrictInt = Field(4, ge=0)
    lora_alpha: StrictInt = Field(32, ge=1)
    lora_dropout: StrictFloat = Field(0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                       "up_proj", "down_proj")
    epochs: StrictFloat = Field(1.0, ge=0.001)
    batch_size: StrictInt = Field(4, ge=1)
    gradient_accumulation: StrictInt = Field(1, ge=1)
    gpus: StrictInt = Field(1, ge=1)
    parallel: Literal["none", "ddp", "fsdp"] = "none"
    sampling: Literal["random", "length"] = "random"
    learning_rate: StrictFloat = Field(1e-4, ge=0)
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup: StrictFloat = Field(0.05, ge=0)
    weight_decay: StrictFloat = Field(0.0, ge=0)
    optim: Literal["adamw_torch", "adamw_torch_fused"] = "adamw_torch"
    max_grad_norm: StrictFloat = Field(0.3, ge=0)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantize: Literal["none", "4bit"] = "none"
    attention: str = "auto"
    activation_checkpointing: bool = Field(False, strict=True)
    heldout: StrictFloat = Field(0.0, ge=0, lt=1)
    report_to: Literal["none", "wandb"] = "none"
    seed: StrictInt = Field(0, ge=0, lt=2**32)  # as numpy takes it
    save_steps: StrictInt = Field(50, ge=1)
    threads: StrictInt = Field(0, ge=0)

    def __post_init__(self) -> None:
        if self.quantize == "4bit" and (self.full or self.parallel == "fsdp"):
            raise ValueError("'train.quantize' 4bit holds frozen weights: it needs an adapter "
                             "('train.lora_r' above 0) and another 'train.parallel' than fsdp.")

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
        """The type the weights are held in: float32 where they are trained, else `dtype`.

        Near 1, bfloat16 has steps of 1/128: an update is smaller and would be rounded away.
        """
        return "float32" if self.full else self.dtype


@dataclass(frozen=True, config=STRICT)
class EvaluateSpec:
    """How to evaluate: questions to judge, the longest reply in tokens, prompts a batch."""

    questions: StrictInt = Field(60, ge=1)
    max_new_tokens: StrictInt = Field(64, ge=1)
    batch_size: StrictInt = Field(64, ge=1)
    seed: StrictInt = 0


@dataclass(frozen=True, config=STRICT)
class Endpoint:
    """A model at an OpenAI-compatible address, with what its provider asks for.

    `endpoint` is the entry's name, None for an address of your own; `base_url` None is OpenAI's,
    "offline" the simulated API. `price` is US dollars for a million input and output tokens, None
    if free. `rpm` is requests a minute, `params` go along with every request.
    """

    model: str = ""
    base_url: str | None = None
    price: tuple[Price, Price] | None = None
    endpoint: str | None = None
    secret: str | None = None
    rpm: StrictInt | None = Field(None, ge=1)
    workers: StrictInt = Field(8, ge=1)
    params: dict = dataclasses.field(default_factory=dict, hash=False)

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


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """Everything a run of the course depends on. Taught in 02, section 2.

    `architecture` is what the base model's config.json says of its size, for the memory estimate
    and the tiny stand-ins, which download nothing; a folder brings its own.
    """

    name: str
    base_model: str
    teacher: Endpoint
    judge: Endpoint
    description: str = ""
    architecture: dict | None = dataclasses.field(default=None, hash=False)
    data: DataSpec = Field(default_factory=DataSpec)
    train: TrainSpec = Field(default_factory=TrainSpec)
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec)

    @field_validator("teacher", "judge", mode="before")
    @classmethod
    def _filled(cls, said: Any, info: Any) -> Any:
        """Return all settings for `teacher: openai`, or for settings that leave some out."""
        said = {"endpoint": said} if isinstance(said, str) else said
        if said == {}:
            raise ValueError(f"'{info.field_name}' says nothing: name an endpoint, or auto.")
        try:
            return entries.fill(said, info.field_name) if isinstance(said, dict) else said
        except entries.EndpointError as error:
            raise ValueError(f"'{info.field_name}': {error}") from None

    def replace(self, key: str, value: Any) -> Self:
        """Return a copy with one setting changed: `recipe.replace("train.lora_r", 16)`. Raises
        RecipeError for an unknown key or a value of the wrong kind."""
        settings = place = self.to_dict()
        *parts, last = key.split(".")
        for part in parts:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise RecipeError(f"{self.name}: unknown key '{key}'.")
        if parts in (["teacher"], ["judge"]) and last in KEPT:
            place = settings[parts[0]] = {name: place[name] for name in KEPT[last]}
        place[last] = value
        return _checked(settings, self.name)

    def preset(self, name: str) -> Self:
        """Return the recipe at the size of a preset: "quick" for a lesson, under a name and a run
        folder of its own, "offline-quick"; "full" as it is. Raises RecipeError."""
        if name not in PRESETS:
            raise RecipeError(entries.no_such("preset", name, PRESETS))
        recipe = self.replace("name", f"{self.name}-{name}") if PRESETS[name] else self
        for key, most in PRESETS[name].items():
            recipe = recipe.replace(key, min(most, attrgetter(key)(self)))
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain dictionaries, ready for JSON."""
        return dataclasses.asdict(self)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the course."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if path != entries.ENDPOINTS)


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by name ("offline") or from a YAML file ("my/recipe.yaml").

    Raises RecipeError for an unknown name, an unknown or missing key, a value of the wrong kind.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_path) not in recipe_names():
            raise RecipeError(entries.no_such("recipe", name_or_path, recipe_names()))
        path = RECIPES / f"{name_or_path}.yaml"
    try:
        settings = entries.read_yaml(path)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{path} cannot be read as YAML ({reason}); correct it, or take one of: "
                          f"{', '.join(recipe_names())}.") from None
    if not isinstance(settings, dict):
        raise RecipeError(f"{path} holds no settings; copy {RECIPES / 'offline.yaml'}.")
    recipe = _checked({"name": path.stem, **settings}, str(path))
    # Not in the specs: `replace` changes one setting at a time.
    if not recipe.train.full and not recipe.train.target_modules:
        raise RecipeError(f"{path}: target_modules is empty, so LoRA has nothing to train; name "
                          "layers, or set lora_r to 0 to train every weight.")
    if (recipe.train.gpus > 1) != (recipe.train.parallel != "none"):
        raise RecipeError(f"{path}: 'train.gpus' is {recipe.train.gpus} but 'train.parallel' is "
                          f"'{recipe.train.parallel}': several GPUs need ddp or fsdp, one none.")
    return recipe


def _checked(settings: dict[str, Any], source: str) -> Recipe:
    """Return the recipe, or say what is wrong: an unknown key first, it may be the missing one."""
    try:
        return Recipe(**{str(key): value for key, value in settings.items()})
    except ValidationError as error:
        found = min(error.errors(), key=lambda e: e["type"] not in UNKNOWN)
    *above, last = map(str, found["loc"])
    where = ".".join([*above, last])
    if found["type"] in UNKNOWN:
        kind = Recipe
        for part in above:
            kind = kind.__pydantic_fields__[part].annotation
        nearest = ".".join([*above, entries.closest(last, kind.__pydantic_fields__)])
        said = f"unknown key '{where}'; the nearest one is '{nearest}'."
    elif found["type"] == "value_error":  # raised here, a sentence already
        said = str(found["ctx"]["error"])
    elif found["type"] == "missing":
        said = f"'{where}' is missing; add it."
    else:
        must = found["msg"].replace("Input should", "must").replace("valid tuple", "list")
        said = f"'{where}' {must}, not {found['input']!r}."
    raise RecipeError(f"{source}: {said}") from None
