"""Where am I: Colab or not, which recipe this GPU gets, whose keys, where the run's files lie.

`setup()` is the first cell of every notebook. Taught at the beginning of 01.
"""

import hashlib
import os
import re
import sys
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import REPO, CourseError, shown
from course_utils.checkpoint import CheckpointStore, Sealing
from course_utils.inference import Device, find_device
from course_utils.offline.start import offline_url
from course_utils.plumbing import colab, hub
from course_utils.plumbing.colab import DRIVE, mount_drive, on_colab, version_of
from course_utils.plumbing.entries import entries
from course_utils.plumbing.model_folder import find_base
from course_utils.plumbing.parts import digest, is_journal
from course_utils.plumbing.secrets import has_secret, scrub_notebook_errors, secret
from course_utils.plumbing.trial import refusal
from course_utils.recipe import GATED, L4, T4, Recipe, load_recipe
from course_utils.reports.card import ON_CARD, card
from course_utils.sources.endpoints import choose, key_of, located
from course_utils.tasks import Task, read_tasks, split_heldout

if TYPE_CHECKING:
    from course_utils.llm import LLM

BASE_MODEL = "assets/tiny-gemma-ko"
# What an installation may replace while an older version is loaded.
PACKAGES = (*ON_CARD, "numpy", "pandas", "pyarrow", "accelerate", "datasets", "huggingface_hub",
            "tokenizers", "safetensors", "openai", "pydantic")
RESTART = "restart the session (Runtime > Restart session), run the cells again; nothing is lost"


class RestartNeeded(CourseError):
    """A package was replaced on disk while an older one is loaded."""


@dataclass(frozen=True)
class Course:
    """One run of the course: its recipe, where its files live, the GPU, and your own tasks."""

    recipe: Recipe
    store: CheckpointStore
    device: Device = Device("cpu", "CPU")
    data: Path | None = None

    @property
    def base_model(self) -> str:
        """The folder or Hub id to load; raises CourseError if it is a folder that is gone."""
        found = Path(find_base(self.recipe.base_model))
        # Relative: the path is written into adapter_config.json and into outputs.
        return os.path.relpath(found) if found.is_relative_to(REPO) else str(found)

    @property
    def simulated(self) -> bool:
        """Whether the teacher or the judge is the simulated API."""
        return self.recipe.teacher.simulated or self.recipe.judge.simulated

    def llm(self, role: str, journal: str | Path | None = None, **settings: Any) -> "LLM":
        """Return the client of the "teacher", who writes the data, or of the "judge".

        `settings` go to `LLM`. A journal in a step's working folder gets the sealed lines that it
        lacks, and is sealed again soon after each reply.
        """
        from course_utils.llm import LLM

        endpoint = located(getattr(self.recipe, role), role)
        address, key = ((offline_url(), "offline") if endpoint.simulated
                        else (endpoint.base_url, key_of(endpoint)))
        usual = {"base_url": address, "api_key": key, "price": endpoint.price, "rpm": endpoint.rpm,
                 "workers": endpoint.workers, "params": endpoint.params}
        path = Path(journal or "").resolve()
        run = (self.store.local_root / self.store.run).resolve()
        inside = path.relative_to(run).parts if path.is_relative_to(run) else ()
        watched = inside[1:2] == ("work",) and is_journal(path.name)
        if watched:
            self.store.restore_journals(inside[0])
        llm = LLM(endpoint.model, journal=journal, **usual | settings)
        if watched:
            llm.journal.watch = Sealing(self.store, inside[0])
        return llm

    def training_tasks(self) -> list[Task]:
        """Return the instruction data of this run without the part that `heldout` keeps back."""
        tasks = read_tasks(self.artefact("preprocess") / "tasks.jsonl")
        return split_heldout(tasks)[0] if self.data else tasks

    def heldout(self) -> list[Task]:
        """Return tasks to evaluate on, never trained on; meta["family"] groups them.

        Offline they come from the small world's held-out side; of your own data they are a tenth,
        chosen by hash, one family named "data"; else the course's evaluation tasks, by category.
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
        with suppress(CourseError):
            return _world().solve(task.instruction, task.input) if self._in_world else None

    @property
    def _in_world(self) -> bool:
        return self.data is None and self.recipe.teacher.simulated

    def artefact(self, step: str) -> Path:
        """Return the newest sealed artefacts of a step, or the shipped sample; prints which.

        Raises CourseError where no sample fits: no real model learns a simulated teacher's data.
        """
        folder, kind = self.store.latest(step), "this run's own"
        if folder is None:
            folder = REPO / "assets" / "sample" / step
            kind = "the shipped sample, no run of your own yet"
            fits = self._in_world if step == "preprocess" else self.recipe.base_model == BASE_MODEL
            if self.data is not None or not fits or not folder.is_dir():
                raise CourseError(f"The run '{self.store.run}' has no finished step '{step}' in "
                                  f"{shown(self.store.root)}, and no sample of it fits: run the "
                                  "notebook that makes it, where the card names the same recipe, "
                                  "data and folder.")
        print(f"{step}: {shown(folder)} ({kind})")
        return folder


def _world():
    from course_utils.offline import world  # for the offline course alone

    return world


def setup(recipe: str | Path = "auto", *, root: str | Path | None = None) -> Course:
    """Find out where this runs, choose the recipe, open the run's store and print the card.

    "auto" takes the recipe of the environment variable RECIPE if there is one, else the one for the
    GPU where there is somebody to ask, else the offline one. TEACHER and JUDGE name other
    endpoints; PRESET=quick makes it small enough for a lesson; DATA names a file of your own tasks;
    RUNS another folder for the runs; HUB_MIRROR a repository on the Hub for copies of adapters.
    Raises RestartNeeded, RecipeError, EndpointError, BadSecret, TaskFileError.
    """
    scrub_notebook_errors()
    if replaced := _replaced():
        raise RestartNeeded(f"{', '.join(replaced)} is loaded but another is installed: {RESTART}.")
    drive_problem = mount_drive() if on_colab() else None
    # A folder of this machine where Drive belongs would be taken for it: no run goes there.
    blocked = drive_problem and os.path.isdir(DRIVE)
    _export("RUNS", str(colab.CONTENT / "runs") if blocked else None)
    course, why = _find_course(recipe, root)
    _set_environment(course)
    try:
        base = course.base_model
    except CourseError as error:
        base = f"MISSING. {error}"
    print(card(course.recipe, course.store, course.device, data=course.data, base=base, why=why,
               drive=drive_problem))
    for line in course.store.check():
        print(f"{'Checked':<12}{line}")
    if on_colab() and (refused := refusal()):  # elsewhere `make setup` chose what is installed
        print(f"{'Training':<12}{refused}")
    return course


def doctor() -> str:
    """Return a page on this machine and this run: what a rerun would do and cost; no secret."""
    from course_utils.reports.doctor import steps

    rows = {"Python": f"{sys.version.split()[0]}, {sys.platform}", "Device": find_device().name,
            "Drive": "mounted" if colab.drive_mounted() else "not mounted",
            "Replaced": ", ".join(_replaced()) or "nothing that is loaded"}
    rows |= {name: version_of(name) or "not installed" for name in PACKAGES}
    for name in ("HF_TOKEN", *(e["secret"] for e in entries().values() if "secret" in e)):
        try:
            rows[name] = "set" if has_secret(name) else "not set"
        except CourseError as error:
            rows[name] = str(error)
    try:
        course, why = _find_course("auto")
        rows["Recipe"] = f"{course.recipe.name} ({why})"
        rows["Run"] = f"{shown(course.store.root / course.store.run)}\n"
        told = steps(course.store, course.recipe, course.data)
    except CourseError as error:
        told = [str(error)]
    return "\n".join([*(f"{name:<21}{said}" for name, said in rows.items()), *told])


def run_name(recipe: Recipe, data: Path | None = None) -> str:
    """Return the name of a run's folder; own data has its own, and changed data another one."""
    if data is None:
        return recipe.name
    stem = re.sub(r"[^\w.+-]+", "-", unicodedata.normalize("NFC", data.stem))
    stem = stem.encode()[:120].decode(errors="ignore").strip("-.+") or "data"  # 255 for a folder
    return f"{recipe.name}-{stem}-{hashlib.sha256(data.read_bytes()).hexdigest()[:8]}"


def _find_course(recipe: str | Path, root: str | Path | None = None) -> tuple[Course, str]:
    """Return the run that belongs to a recipe and the environment, and why it is this one."""
    device, root = find_device(), root or os.path.expanduser(os.environ.get("RUNS", "")) or None
    chosen, why = _choose(recipe, device)
    if chosen == GATED and why.startswith("auto"):  # a token added later begins no other run
        runs = CheckpointStore.open(L4, root).root
        if any(runs.glob(f"{L4}*")) and not any(runs.glob(f"{GATED}*")):
            chosen, why = L4, "auto: this run was begun before"
    found = load_recipe(chosen)
    teacher, judge, said = choose(found.teacher, found.judge)
    if why.startswith("auto") and teacher.endpoint == "auto":  # nobody to ask
        found, why = load_recipe("offline"), f"auto: {said}"
        teacher, judge = found.teacher, found.judge
    elif said and teacher.endpoint != "auto":
        why += f"; {said}"
    if found.teacher.simulated and not teacher.simulated:  # its data is of another world
        found = found.replace("name", f"{found.name}-{teacher.endpoint}")
    found = replace(found, teacher=teacher, judge=judge)
    found = found.preset(preset := os.environ.get("PRESET") or "full")
    if preset != "full":
        why += (f"; PRESET={preset}: {found.data.n:,} tasks, epochs {found.train.epochs:g}, "
                f"{found.evaluate.questions} questions")
    data = Path(os.path.expanduser(os.environ["DATA"])) if os.environ.get("DATA") else None
    if data:
        read_tasks(data)  # a broken file is refused here
    about = {"recipe": digest(found.to_dict()),
             "data": hashlib.sha256(data.read_bytes()).hexdigest() if data else None}
    mirror = os.environ.get("HUB_MIRROR")
    store = CheckpointStore.open(run_name(found, data), root, about=about,
                                 mirror=partial(hub.upload, mirror) if mirror else None)
    return Course(found, store, device, data), why


def _choose(recipe: str | Path, device: Device) -> tuple[str | Path, str]:
    """Return the recipe to load and why, for the card."""
    if str(recipe) != "auto":
        return recipe, "asked for"
    if (wanted := os.environ.get("RECIPE", "auto")) != "auto":
        return wanted, "asked for by RECIPE"
    if device.kind != "cuda":
        return "offline", "auto: there is no GPU"
    if device.gib < 14:  # a T4 shows 15
        return "offline", f"auto: the GPU is too small ({device.name})"
    if device.gib < 20 or device.capability < (8, 0):  # an L4 shows 22; a T4 has no bfloat16
        return T4, "auto: a T4 or the like"
    if has_secret("HF_TOKEN"):
        return GATED, "auto: an L4 or better, and HF_TOKEN"
    return L4, "auto: an L4 or better, without HF_TOKEN"


_exported: dict[str, str] = {}  # what `setup` itself put into the environment


def _export(name: str, value: str | None) -> None:
    """Set a variable of the environment, or with None take it back; one set by others stays."""
    if os.environ.get(name) != _exported.get(name):
        return
    if value is not None:
        os.environ[name] = _exported[name] = value
    elif name in _exported:
        del os.environ[name], _exported[name]


def _set_environment(course: Course) -> None:
    """Tell the libraries what they read from the environment; raises RestartNeeded."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    local = (REPO / course.recipe.base_model).is_dir()
    if not local:
        # huggingface_hub knows no .env, and asks Colab once: here each setup looks anew.
        token = _exported.get("HF_TOKEN")
        _export("HF_TOKEN", None)
        _export("HF_TOKEN", secret("HF_TOKEN", ask=False) if has_secret("HF_TOKEN") else token)
        if "HF_HUB_OFFLINE" in _exported and "huggingface_hub" in sys.modules:
            raise RestartNeeded(f"This session began offline, the Hub's library too: {RESTART}.")
    _export("HF_HUB_OFFLINE", "1" if local else None)  # nothing to fetch, so nothing waits for it
    if course.device.kind == "cpu" and (threads := course.recipe.train.threads):
        # Two torch jobs that each take every core are many times slower than one thread each, and
        # threads that wait by spinning take the core from whatever else is running.
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)


def _replaced() -> list[str]:
    """Return the packages that are loaded in another version than the one installed by now."""
    loaded = {name: str(getattr(sys.modules.get(name), "__version__", "")) for name in PACKAGES}
    return [f"{name} {version}" for name, version in loaded.items()
            if version and version.split("+")[0] != (version_of(name) or version).split("+")[0]]
