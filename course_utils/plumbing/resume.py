"""Which training is this, was it done before, and where did it stop: what `train` asks first.

A training is its settings, its base model's weights and its rows. Whatever agrees in all three is
the same training: it is never done twice, and an unfinished one is gone on from. Taught in 02,
section 7.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from course_utils.checkpoint import CheckpointStore
from course_utils.collator import Row
from course_utils.inference import base_hash
from course_utils.recipe import Recipe, TrainSpec
from course_utils.scale import parallel
from course_utils.scale.parallel import TrainError, is_sharded
from course_utils.tasks import write_atomic


def identity_of(recipe: Recipe, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what makes a training what it is, as JSON gives it back."""
    return {
        "base_model": recipe.base_model,
        "base": base_hash(recipe.base_model),
        "train": _settings(recipe.train),
        "data": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
    }


def read_identity(path: Path) -> dict:
    """Return what a training was: its recipe, base model and data; {} where nothing tells."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    identity = content.get("identity", content)
    if "train" in identity:
        # A setting that did not exist yet stood where its default stands now.
        identity["train"] = _settings(TrainSpec()) | identity["train"]
        identity["train"].pop("report_to", None)
    return identity


def difference(before: dict, now: dict) -> str:
    """Say in words what sets this training apart from the sealed one."""
    if before.keys() != now.keys():
        return "what is sealed does not say what it was trained from"
    words = [
        f"train.{key} was {before['train'].get(key)!r} and is {value!r}"
        for key, value in now["train"].items()
        if before["train"].get(key) != value
    ]
    if (before["base_model"], before["base"]) != (now["base_model"], now["base"]):
        words.append("the base model is another")
    if before["data"] != now["data"]:
        words.append("the data is other data")
    return "; ".join(words)


def find_checkpoint(
    store: CheckpointStore, step: str, identity: dict, spec: TrainSpec
) -> Path | None:
    """Return the newest full checkpoint of an unfinished run of the same training, or None.

    The working folder comes first: it holds at least what was sealed from it. Where it was lost
    with its machine, the sealed part is copied back. What belongs to another training is removed.
    Raises TrainError where another number of processes began it: nothing is removed then.
    """
    work = store.local(step)
    home, begun = work, read_identity(work / "identity.json")
    count = begun.pop("processes", 1)
    mine = begun == identity and count == parallel.processes()
    lost = not begun or (mine and not _newest_full(work / "checkpoints", spec))
    if lost and (part := store.latest(step)):
        home, begun = part, read_identity(part / "identity.json")
        count = begun.pop("processes", 1)
    if begun != identity:
        store.clear(step)
    elif count != parallel.processes():
        raise TrainError(
            f"This training was begun by {count} processes and is unfinished, and "
            f"{parallel.processes()} cannot go on with its checkpoints: start {count} again, or "
            f"remove {store.root / store.run / step} to begin anew."
        )
    elif home != work:
        shutil.rmtree(work)
        # identity.json is written last: without it a half-copied folder counts for nothing.
        shutil.copytree(home / "checkpoints", work / "checkpoints")
    work = store.local(step)
    mine = {**identity, "processes": parallel.processes()}
    write_atomic(work / "identity.json", json.dumps(mine, indent=1, sort_keys=True) + "\n")
    return _newest_full(work / "checkpoints", spec)


def _newest_full(folder: Path, spec: TrainSpec) -> Path | None:
    """Return the highest-numbered checkpoint that was saved to its end, naming those skipped."""
    for path in reversed(checkpoints(folder)):
        names = checkpoint_files(spec)
        missing = [name for name in names if not (path / name).is_file()]
        missing = missing or [f"whole {name}" for name in names if not _is_readable(path / name)]
        if not missing:
            return path
        print(f"Skipping {path.name}: it was not saved to its end (no {', '.join(missing)}).")
        shutil.rmtree(path)
    return None


def _is_readable(path: Path) -> bool:
    """Return whether a file of a checkpoint opens as what it is, without running any of it.

    The Trainer keeps its optimiser and random states as PyTorch files, which hold a pickle: like
    the Trainer itself, this reads tensors and numbers out of it and refuses everything else.
    """
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as weights:
                weights.keys()
        elif path.suffix in (".pt", ".pth"):
            import torch
            from transformers.trainer_pt_utils import safe_globals

            with safe_globals():
                torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # each format has errors of its own
        return False
    return True


def checkpoints(folder: Path) -> list[Path]:
    """Return the Trainer's checkpoint folders by number; their times depend on the clock."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("checkpoint-")))


def checkpoint_files(spec: TrainSpec) -> list[str]:
    """Return the files without which a checkpoint cannot be gone on from."""
    processes = parallel.processes()
    ranks = [""] if processes == 1 else [f"_{i}" for i in range(processes)]
    names = [f"rng_state{rank}.pth" for rank in ranks] + ["scheduler.pt", "trainer_state.json"]
    names.append("optimizer.bin" if is_sharded(spec) else "optimizer.pt")
    if not spec.full:
        return ["adapter_model.safetensors", "adapter_config.json", *names]
    return ["pytorch_model_fsdp.bin" if is_sharded(spec) else "model.safetensors", *names]


def _settings(spec: TrainSpec) -> dict[str, Any]:
    """Return the settings that make a training what it is, as JSON gives them back."""
    settings = dataclasses.asdict(spec)
    del settings["report_to"]  # who watches changes nothing
    return json.loads(json.dumps(settings))
