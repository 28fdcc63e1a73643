"""Where am I: Colab or not, which GPU, which secrets, which attention.

`setup()` is the first cell of every notebook. Taught at the beginning of 01.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import REPO, CourseError, shown
from course_utils.checkpoint import CheckpointStore, Sealing
from course_utils.inference import Device, find_base, find_device, pick_attention
from course_utils.plumbing.colab import DRIVE, mount_drive, on_colab
from course_utils.plumbing.parts import digest, is_journal
from course_utils.plumbing.secrets import (
    BadSecret,
    has_secret,
    scrub,
    scrub_notebook_errors,
    secret,
)
from course_utils.plumbing.trial import refusal
from course_utils.recipe import (
    Endpoint,
    EndpointError,
    Recipe,
    entries,
    load_recipe,
    recipe_names,
    retirement,
)
from course_utils.sources.endpoints import choose, data_terms, key_of, located, terms
from course_utils.tasks import Task, read_tasks, split_heldout

if TYPE_CHECKING:
    from collections.abc import Callable

    from course_utils.llm import LLM

# What "auto" takes where there is a GPU and somebody to ask. Gemma is gated, no good in float16.
GATED, L4, T4 = "gemma-2b-l4", "midm-2b-l4", "midm-2b-t4"
L4_GIB, T4_GIB = 20, 14  # an L4 shows 22; a T4 shows 15 and has no bfloat16
BASE_MODEL = "assets/tiny-gemma-ko"

# What an installation may replace while an older version is loaded.
PACKAGES = (
    "numpy", "pandas", "pyarrow", "torch", "transformers", "trl", "peft", "accelerate",
    "datasets", "huggingface_hub", "tokenizers", "safetensors", "openai", "pydantic",
)  # fmt: skip


class RestartNeeded(CourseError):
    """A package was replaced on disk while an older one is loaded."""


@dataclass(frozen=True)
class Course:
    """One run of the course: its recipe, where its artefacts live, and its two addresses."""

    recipe: Recipe
    store: CheckpointStore
    device: str
    data: Path | None = None
    hardware: Device = field(default=Device("cpu", "CPU"), repr=False)

    @property
    def base_model(self) -> str:
        """The folder or Hub id to load; raises CourseError if it is a folder that is gone."""
        return _base_model(self.recipe)

    @property
    def simulated(self) -> bool:
        """Whether the teacher or the judge is the simulated API."""
        return self.recipe.teacher.simulated or self.recipe.judge.simulated

    def teacher(self, journal: str | Path | None = None, **settings: Any) -> "LLM":
        """Return the client of the model that writes the data; `settings` go to `LLM`.

        A journal in a step's working folder is brought back from where it is sealed, if it is not
        there, and sealed again soon after each reply.
        """
        return self._client("teacher", journal, settings)

    def judge(self, journal: str | Path | None = None, **settings: Any) -> "LLM":
        """Return the client of the model that compares answers, as `teacher` does."""
        return self._client("judge", journal, settings)

    def _client(
        self, role: str, journal: str | Path | None, settings: dict[str, Any]
    ) -> "LLM":
        step = self._step_of(journal)
        if step:
            self.store.restore_journals(step)
        llm = _client(getattr(self.recipe, role), role, journal, settings)
        if step:
            llm.journal.watch = Sealing(self.store, step)
        return llm

    def _step_of(self, journal: str | Path | None) -> str | None:
        """Return the step in whose working folder a journal lies, or None."""
        run = (self.store.local_root / self.store.run).resolve()
        path = journal and Path(journal).resolve()
        if path and path.is_relative_to(run) and is_journal(path.name):
            step, folder, *_ = path.relative_to(run).parts
            return step if folder == "work" else None
        return None

    def training_tasks(self) -> list[Task]:
        """Return the instruction data of this run without the part that `heldout` keeps back."""
        tasks = read_tasks(self.artefact("preprocess") / "tasks.jsonl")
        return split_heldout(tasks)[0] if self.data else tasks

    def heldout(self) -> list[Task]:
        """Return tasks to evaluate on, never trained on; meta["family"] groups them.

        Offline they come from the small world's held-out side; of your own data they are a tenth,
        chosen by hash, one family named "data"; else they are the course's evaluation tasks, whose
        families are their categories. meta["answer_lang"] is there if it is not Korean.
        """
        if self._in_world:
            return _world().heldout_tasks(self.recipe.data.heldout)
        if self.data:
            _, chosen = split_heldout(read_tasks(self.artefact("preprocess") / "tasks.jsonl"))
            return [replace(task, meta={**task.meta, "family": "data"}) for task in chosen]
        tasks = read_tasks(REPO / "data" / "eval_tasks.jsonl")
        return [replace(t, meta={**t.meta, "family": t.meta["category"]}) for t in tasks]

    def unseen(self) -> list[Task]:
        """Return held-out tasks in wordings that no training task uses; none outside the world."""
        if not self._in_world:
            return []
        return _world().heldout_tasks(self.recipe.data.heldout // 3, wordings="unseen")

    def truth(self, task: Task) -> str | None:
        """Return the one right answer, or None where nobody knows it: outside the small world."""
        try:
            return _world().solve(task.instruction, task.input) if self._in_world else None
        except CourseError:
            return None

    @property
    def _in_world(self) -> bool:
        return self.data is None and self.recipe.teacher.simulated

    def sample(self, step: str) -> Path:
        """Return the shipped artefacts of a step, so that a notebook opens without the one before.

        Raises CourseError where they would not fit: they are those of the offline recipe, and no
        real model is to learn a simulated teacher's data unasked.
        """
        folder = REPO / "assets" / "sample" / step
        fits = self._in_world if step == "preprocess" else self.recipe.base_model == BASE_MODEL
        if self.data is not None or not fits or not folder.is_dir():
            raise CourseError(
                f"The run '{self.store.run}' has no finished step '{step}' in "
                f"{shown(self.store.root)}, and there is no sample of it that fits: run the "
                f"notebook that makes it first, or, if you did, look whether this one's card names "
                f"the same recipe, data and folder."
            )
        return folder

    def artefact(self, step: str) -> Path:
        """Return the newest sealed artefacts of a step, or the shipped sample; prints which."""
        folder = self.store.latest(step)
        kind = "this run's own"
        if folder is None:
            folder, kind = self.sample(step), "the shipped sample, no run of your own yet"
        print(f"{step}: {shown(folder)} ({kind})")
        return folder


def _world():
    from course_utils.offline import world

    return world


def setup(recipe: str | Path = "auto", *, root: str | Path | None = None) -> Course:
    """Find out where this runs, choose the recipe, open the run's store and print the card.

    "auto" takes the recipe of the environment variable RECIPE if there is one, else the one for the
    GPU where there is somebody to ask, else the offline one. TEACHER and JUDGE name other
    endpoints; PRESET=quick makes it small enough for a lesson; DATA names a file of your own tasks;
    RUNS another folder for the runs; HUB_MIRROR a repository on the Hub for copies of adapters.
    What earlier sessions sealed is checked, with a line for each part that is broken; so is on
    Colab, with a line where it fails, whether what is installed can train. Raises RestartNeeded,
    RecipeError, EndpointError, BadSecret, TaskFileError.
    """
    scrub_notebook_errors()
    _refuse_replaced_packages()
    drive_problem = mount_drive() if on_colab() else None
    course, why = _find_course(recipe, root)
    _set_environment(course.recipe, course.hardware)
    print(_card(course, why, drive_problem))
    for line in course.store.check():
        print(f"{'Checked':<12}{line}")
    if on_colab() and (refused := refusal()):  # elsewhere `make setup` chose what is installed
        print(f"{'Training':<12}{refused}")
    return course


def _find_course(recipe: str | Path, root: str | Path | None) -> tuple[Course, str]:
    """Return the run that belongs to a recipe and the environment, and why it is this one."""
    hardware, root = find_device(), root or os.environ.get("RUNS") or None
    chosen, why = _choose(recipe, hardware)
    if chosen == GATED and why.startswith("auto"):  # a token added later begins no other run
        runs = CheckpointStore.open(L4, root).root
        if any(runs.glob(f"{L4}*")) and not any(runs.glob(f"{GATED}*")):
            chosen, why = L4, "auto: this run was begun before"
    found = load_recipe(chosen)
    teacher, judge, said = choose(found.teacher, found.judge)
    if why.startswith("auto") and teacher.endpoint == "auto":  # nobody to ask
        found, why, said = load_recipe("offline"), f"auto: {said}", ""
        teacher, judge = found.teacher, found.judge
    if found.teacher.simulated and not teacher.simulated:  # its data is of another world
        found = found.replace("name", f"{found.name}-{teacher.endpoint}")
    found = replace(found, teacher=teacher, judge=judge)
    if said and teacher.endpoint != "auto":
        why += f"; {said}"
    preset = os.environ.get("PRESET") or "full"
    settings, data = found.preset(preset), _data_file()
    if preset != "full":
        why += (
            f"; PRESET={preset}: {settings.data.n:,} tasks, epochs {settings.train.epochs:g}, "
            f"{settings.evaluate.questions} questions"
        )
    about = {
        "recipe": digest(settings.to_dict()),
        "data": data and hashlib.sha256(data.read_bytes()).hexdigest(),
    }
    store = CheckpointStore.open(
        run_name(settings, data),
        root,
        about=about,
        mirror=_mirror(os.environ.get("HUB_MIRROR")),
    )
    return Course(settings, store, hardware.kind, data, hardware), why


def _mirror(repo_id: str | None) -> "Callable[[dict[str, Path]], str] | None":
    def upload(files: dict[str, Path]) -> str:
        from course_utils.plumbing import hub

        return hub.upload(repo_id, files)

    return upload if repo_id else None


def run_name(recipe: Recipe, data: Path | None = None) -> str:
    """Return the name of a run's folder; own data has its own, and changed data another one."""
    if data is None:
        return recipe.name
    stem = re.sub(r"[^\w.+-]+", "-", data.stem).strip("-.+") or "data"
    return f"{recipe.name}-{stem}-{hashlib.sha256(data.read_bytes()).hexdigest()[:8]}"


def doctor() -> str:
    """Return a page about this machine and this run; it holds no secret and changes nothing.

    For each step: what is there, whether it is whole, what a rerun would do and what it would cost.
    """
    from course_utils.reports.doctor import steps

    device = find_device()
    lines = [
        f"Python       {sys.version.split()[0]}, {sys.platform}",
        f"Where        {'Colab' if on_colab() else 'not Colab'}",
        f"Device       {device.name}",
        f"Attention    {pick_attention()}",
        f"Drive        {'mounted' if DRIVE.is_dir() else 'not mounted'}",
    ]
    for name in PACKAGES:
        installed = _installed(name)
        note = f", but {loaded} is loaded" if (loaded := _replaced(name)) else ""
        lines.append(f"{name:<17}{installed or 'not installed'}{note}")
    for name in ("HF_TOKEN", *(e["secret"] for e in entries().values() if "secret" in e)):
        try:
            said = "set" if has_secret(name) else "not set"
        except BadSecret as error:
            said = str(error)
        lines.append(f"{name:<21}{said}")
    lines.append(f"Recipes      {', '.join(recipe_names())}")
    base = REPO / BASE_MODEL / "config.json"
    lines.append(f"Offline base {'there' if base.is_file() else 'missing: make base-model'}")
    try:
        course, _ = _find_course("auto", None)
        lines += ["", f"Run          {shown(course.store.root / course.store.run)}", *steps(course)]
    except CourseError as error:
        lines += ["", str(error)]
    return "\n".join(lines)


def _client(
    endpoint: Endpoint, role: str, journal: str | Path | None, settings: dict[str, Any]
) -> "LLM":
    from course_utils.llm import LLM

    endpoint = located(endpoint, role)
    if endpoint.simulated:
        from course_utils.offline.start import offline_url

        url, key = offline_url(), "offline"
    else:
        url, key = endpoint.base_url, key_of(endpoint)
    usual = {"base_url": url, "api_key": key, "price": endpoint.price, "rpm": endpoint.rpm,
             "workers": endpoint.workers, "params": endpoint.params}  # fmt: skip
    return LLM(endpoint.model, journal=journal, **usual | settings)


def _choose(recipe: str | Path, device: Device) -> tuple[str | Path, str]:
    """Return the recipe to load and why, for the card."""
    if str(recipe) != "auto":
        return recipe, "asked for"
    if (wanted := os.environ.get("RECIPE", "auto")) != "auto":
        return wanted, "asked for by RECIPE"
    if device.kind != "cuda":
        return "offline", "auto: there is no GPU"
    if device.gib < T4_GIB:
        return "offline", f"auto: the GPU is too small ({device.name})"
    if device.gib < L4_GIB or device.capability < (8, 0):
        return T4, "auto: a T4 or the like"
    if has_secret("HF_TOKEN"):
        return GATED, "auto: an L4 or better, and HF_TOKEN"
    return L4, "auto: an L4 or better, without HF_TOKEN"


def _data_file() -> Path | None:
    """Return the file that DATA names, read once so that a broken one is refused here."""
    if not (name := os.environ.get("DATA")):
        return None
    path = Path(name).expanduser()
    read_tasks(path)
    return path


def _base_model(recipe: Recipe) -> str:
    found = find_base(recipe.base_model)
    # Relative: the path is written into adapter_config.json and into outputs.
    return os.path.relpath(found) if Path(found).is_relative_to(REPO) else found


_exported: dict[str, str] = {}  # what `setup` itself put into the environment


def _export(name: str, value: str | None) -> None:
    """Set a variable of the environment, or with None take it back; one set by others stays."""
    if os.environ.get(name) != _exported.get(name):
        return
    if value is not None:
        os.environ[name] = _exported[name] = value
    elif name in _exported:
        del os.environ[name], _exported[name]


def _set_environment(recipe: Recipe, device: Device) -> None:
    """Tell the libraries what they read from the environment; raises RestartNeeded."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    local = (REPO / recipe.base_model).is_dir()
    if not local:
        # huggingface_hub knows no .env, and asks Colab once: here each setup looks anew.
        token = _exported.get("HF_TOKEN")
        _export("HF_TOKEN", None)
        _export("HF_TOKEN", secret("HF_TOKEN", ask=False) if has_secret("HF_TOKEN") else token)
        if "HF_HUB_OFFLINE" in _exported and "huggingface_hub" in sys.modules:
            raise RestartNeeded(
                "This session began offline, and what reaches the Hub is loaded that way: restart "
                "the session (Runtime > Restart session) and run the cells again; nothing is lost."
            )
    _export("HF_HUB_OFFLINE", "1" if local else None)  # nothing to fetch, so nothing waits for it
    if device.kind == "cpu" and recipe.train.threads:
        # Two torch jobs that each take every core are many times slower than one thread each.
        os.environ.setdefault("OMP_NUM_THREADS", str(recipe.train.threads))
        # Threads that wait by spinning would take the core from whatever else is running.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(recipe.train.threads)


def _card(course: Course, why: str, drive_problem: str | None) -> str:
    recipe, store = course.recipe, course.store
    try:
        base = course.base_model
    except CourseError as error:
        base = f"MISSING. {error}"
    rows = {
        "Recipe": f"{recipe.name} ({why})",
        "Device": course.hardware.name,
        "Wrong GPU": _wrong_gpu(course),
        "Base model": shown(base) if os.path.isdir(base) else base,
        "Teacher": _address(recipe.teacher, "teacher"),
        "Judge": _address(recipe.judge, "judge", recipe.teacher),
        "Sent data": data_terms(e for e in (recipe.teacher, recipe.judge) if not e.simulated),
        "Data": f"{shown(course.data)}, instead of generated tasks" if course.data else None,
        "Artefacts": shown(store.root / store.run),
        "Versions": ", ".join(
            f"{name} {version}"
            for name in ("torch", "transformers", "trl", "peft")
            if (version := _installed(name))
        ),
        "Drive": drive_problem,
    }
    if base.startswith("google/") and not has_secret("HF_TOKEN"):
        rows["Hub"] = f"HF_TOKEN is not set: {base} asks for it (accept its licence on the Hub)."
    return "\n".join(f"{name:<12}{value}" for name, value in rows.items() if value)


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


def _wrong_gpu(course: Course) -> str | None:
    """Return a sentence where the GPU is not what the recipe needs: a reconnect may bring a T4."""
    device, cure = course.hardware, "choose an L4 under Runtime > Change runtime type"
    if device.kind != "cuda" or device.capability >= (8, 0):
        return None
    if course.recipe.train.dtype == "bfloat16":
        smaller = course.recipe.name.replace("-l4", "-t4")
        smaller = smaller if smaller in recipe_names() else T4
        return (
            f"this recipe computes in bfloat16, which {device.name} lacks: {cure}, or take "
            f"{smaller}."
        )
    for begun in (GATED, L4):
        if (course.store.root / begun).is_dir():
            return f"the run {begun} was begun on a larger one: to go on with it, {cure}."
    return None


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _replaced(name: str) -> str | None:
    """Return the version that is loaded if another one is installed, else None."""
    loaded, installed = getattr(sys.modules.get(name), "__version__", None), _installed(name)
    if loaded and installed and str(loaded).split("+")[0] != installed.split("+")[0]:
        return str(loaded)
    return None


def _refuse_replaced_packages() -> None:
    replaced = [f"{name} {loaded}" for name in PACKAGES if (loaded := _replaced(name))]
    if replaced:
        raise RestartNeeded(
            f"{', '.join(replaced)} is loaded but another version is installed by now: restart the "
            f"session (Runtime > Restart session) and run the cells again; nothing is lost."
        )
