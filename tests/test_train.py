"""Training: the same bytes every time, also when it was killed; sealed, and never done twice."""

import json
import shutil

import pytest

from course_utils import train as train_module
from course_utils.checkpoint import CheckpointStore
from course_utils.collator import EncodeError, encode
from course_utils.inference import ModelFolderError
from course_utils.recipe import load_recipe
from course_utils.tasks import Task, write_tasks
from course_utils.train import TrainError, main, train

TASKS = [
    Task("다음 문장을 존댓말로 바꾸세요.", f"밥 {i}번 먹었어?", f"식사를 {i}번 하셨어요?")
    for i in range(24)
]
STEPS = 12  # 24 rows in batches of 4, two epochs


class Killed(BaseException):
    """Stands for a killed process: no handler in any library catches it."""


@pytest.fixture(scope="module")
def recipe(tiny_base):
    recipe = load_recipe("offline").replace("base_model", str(tiny_base))
    # Dropout, so that resuming has a random state to restore.
    for key, value in [("batch_size", 4), ("save_steps", 4), ("threads", 1), ("lora_dropout", 0.1)]:
        recipe = recipe.replace(f"train.{key}", value)
    return recipe


@pytest.fixture
def store(tmp_path):
    return CheckpointStore.open("run", tmp_path)


@pytest.fixture(scope="module")
def reference(recipe, tmp_path_factory):
    """An uninterrupted training, for the killed ones to be compared with."""
    return train(recipe, CheckpointStore.open("whole", tmp_path_factory.mktemp("runs")), TASKS)


def adapter_bytes(result):
    return {p.name: p.read_bytes() for p in sorted(result.adapter.iterdir())}


def losses(result):
    return [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in result.log]


def kill_at(step):
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise Killed

    return Kill()


def no_training(monkeypatch):
    monkeypatch.setattr(train_module, "_trainer", lambda *_: pytest.fail("trained again"))


def test_the_result_is_sealed_and_complete(reference, recipe):
    folder = reference.adapter.parent
    files = ["adapter_config.json", "adapter_model.safetensors"]
    assert [p.name for p in sorted(reference.adapter.iterdir())] == files
    result = json.loads((folder / "result.json").read_text())
    assert result["recipe"] == json.loads(json.dumps(recipe.to_dict()))
    assert len(result["identity"]["data"]) == 64
    assert {"torch", "transformers", "trl", "peft"} <= set(result["versions"])
    assert reference.steps == STEPS and reference.log[-1]["step"] == STEPS
    assert reference.last_loss < reference.first_loss
    report = reference.encode_report
    assert reference.tokens == 2 * (report.prompt_tokens + report.response_tokens)
    assert (report.rows, report.dropped) == (24, 0)


def test_the_same_seed_gives_the_same_bytes_whatever_was_drawn_before(recipe, store, reference):
    import torch

    torch.rand(17)
    again = train(recipe, store, TASKS)
    assert adapter_bytes(again) == adapter_bytes(reference)
    other = train(recipe.replace("train.seed", 1), store, TASKS, step="other-seed")
    assert adapter_bytes(other) != adapter_bytes(reference)


# Before the first checkpoint, between two, right after one was saved, and after the last step.
@pytest.mark.parametrize("step", [2, 6, 9, STEPS])
def test_a_killed_run_ends_in_the_same_bytes(recipe, store, reference, step):
    with pytest.raises(Killed):
        train(recipe, store, TASKS, callbacks=[kill_at(step)])
    assert store.latest("train") is None
    result = train(recipe, store, TASKS)
    assert adapter_bytes(result) == adapter_bytes(reference)
    assert losses(result) == losses(reference)
    assert result.seconds > 0
    assert store.latest("train-progress") is None  # nothing is left of the way there


def test_killed_just_before_the_result_was_sealed(recipe, store, reference, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "_write_result", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(recipe, store, TASKS)
    result = train(recipe, store, TASKS)
    assert adapter_bytes(result) == adapter_bytes(reference)
    assert losses(result) == losses(reference)


def test_a_lost_machine_goes_on_from_drive(recipe, tmp_path, reference, capsys):
    store = CheckpointStore("run", tmp_path / "drive", tmp_path / "local")
    with pytest.raises(Killed):
        train(recipe, store, TASKS, callbacks=[kill_at(10)])
    shutil.rmtree(tmp_path / "local")
    result = train(recipe, store, TASKS)
    assert "Going on from checkpoint-8" in capsys.readouterr().out
    assert adapter_bytes(result) == adapter_bytes(reference)


@pytest.mark.parametrize("damage", ["no state", "cut state", "no optimizer"])
def test_a_partial_checkpoint_is_skipped_by_name(recipe, store, reference, damage, capsys):
    with pytest.raises(Killed):
        train(recipe, store, TASKS, callbacks=[kill_at(6)])
    folder = store.local("train-progress") / "checkpoints"
    partial = shutil.copytree(folder / "checkpoint-4", folder / "checkpoint-8")
    if damage == "cut state":
        (partial / "trainer_state.json").write_text('{"epoch": 1.')
    else:
        name = {"no state": "trainer_state.json", "no optimizer": "optimizer.pt"}[damage]
        (partial / name).unlink()
    result = train(recipe, store, TASKS)
    said = capsys.readouterr().out
    assert "Skipping checkpoint-8" in said and "Going on from checkpoint-4" in said
    assert adapter_bytes(result) == adapter_bytes(reference)


def test_nothing_is_trained_twice(recipe, store, monkeypatch, capsys):
    first = train(recipe, store, TASKS)
    no_training(monkeypatch)
    again = train(recipe, store, TASKS)
    assert again == first
    # What has nothing to do with training does not undo it.
    assert train(recipe.replace("judge.model", "another"), store, TASKS) == first
    assert "Already trained: run/train/part-0001" in capsys.readouterr().out


def test_another_recipe_or_other_data_trains_anew_and_says_so(recipe, store, capsys):
    short = recipe.replace("train.epochs", 1)
    first = train(short, store, TASKS)
    first = adapter_bytes(first)
    other = train(short.replace("train.lora_r", 8), store, TASKS)
    assert "Training anew: train.lora_r was 4 and is 8." in capsys.readouterr().out
    assert adapter_bytes(other) != first
    train(short.replace("train.lora_r", 8), store, TASKS[:-1])
    assert "Training anew: the data is other data." in capsys.readouterr().out


def test_what_somebody_else_sealed_is_no_result(recipe, store, reference, capsys):
    (store.local("train") / "notes.txt").write_text("mine")
    store.seal("train")
    assert adapter_bytes(train(recipe, store, TASKS)) == adapter_bytes(reference)
    assert "does not say what it was trained from" in capsys.readouterr().out


def test_an_unfinished_run_of_another_training_is_not_continued(recipe, store, reference, capsys):
    with pytest.raises(Killed):
        train(recipe.replace("train.lora_r", 8), store, TASKS, callbacks=[kill_at(6)])
    result = train(recipe, store, TASKS)
    assert "Going on" not in capsys.readouterr().out
    assert adapter_bytes(result) == adapter_bytes(reference)


def test_another_base_of_the_same_name_trains_anew(recipe, store, tiny_base, tmp_path, capsys):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    recipe = recipe.replace("base_model", str(base)).replace("train.epochs", 0.5)
    train(recipe, store, TASKS)
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    train(recipe, store, TASKS)
    assert "Training anew: the base model is another." in capsys.readouterr().out


def test_ready_rows_are_used_as_they_are(recipe, store, tokenizer, monkeypatch):
    rows = [encode(tokenizer, "안녕", "네", 64) for _ in range(4)]
    result = train(recipe, store, rows=rows, step="mine")
    assert result.encode_report is None and result.steps == 2
    assert result.tokens == 2 * sum(len(row["input_ids"]) for row in rows)
    no_training(monkeypatch)
    assert train(recipe, store, rows=rows, step="mine") == result


def test_rows_and_tasks_that_cannot_be_trained_on(recipe, store, tokenizer, tiny_base):
    row = encode(tokenizer, "안녕", "네", 64)
    masked = {**row, "labels": [-100] * len(row["labels"])}
    with pytest.raises(TrainError, match="Row 1 has no trained token"):
        train(recipe, store, rows=[row, masked])
    with pytest.raises(TrainError, match="no rows"):
        train(recipe, store, rows=[])
    with pytest.raises(EncodeError, match="None of 1 tasks"):
        train(recipe, store, [Task("안녕", "", "")])
    with pytest.raises(TrainError, match="'run' has no instruction data yet.*--tasks"):
        train(recipe, store)
    with pytest.raises(ModelFolderError, match="no model folder 'assets/none'"):
        train(recipe.replace("base_model", "assets/none"), store, TASKS)


def test_the_data_of_the_step_before_is_found(recipe, store, reference):
    write_tasks(store.local("preprocess") / "tasks.jsonl", TASKS)
    store.seal("preprocess")
    assert adapter_bytes(train(recipe, store)) == adapter_bytes(reference)


def test_the_adapter_names_its_base_from_the_checkout(recipe, store, tiny_base, monkeypatch):
    monkeypatch.setattr(train_module, "REPO", tiny_base.parent.resolve())
    result = train(recipe.replace("train.epochs", 0.5), store, TASKS)
    config = json.loads((result.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-gemma"
    assert config["target_modules"] == sorted(config["target_modules"])


def test_gradient_accumulation_is_one_loss(recipe, store, reference):
    """4 x 1, 2 x 2 and 1 x 4 divide by the same number of label tokens: the first losses agree."""
    for batch, accumulation in [(2, 2), (1, 4)]:
        split = recipe.replace("train.lora_dropout", 0.0).replace("train.batch_size", batch)
        split = split.replace("train.gradient_accumulation", accumulation)
        result = train(split, store, TASKS, step=f"split-{batch}")
        assert result.steps == STEPS
        # B of LoRA is zero at first, so dropout changes nothing in the first step.
        assert result.first_loss == pytest.approx(reference.first_loss, rel=1e-5)


def test_it_is_quiet(recipe, store, capfd):
    train(recipe.replace("train.epochs", 0.5), store, TASKS, progress=False)
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


def test_command_line(recipe, reference, tmp_path, tiny_base, capsys):
    import yaml

    settings = recipe.to_dict()
    settings["train"]["target_modules"] = list(recipe.train.target_modules)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(settings))
    write_tasks(tmp_path / "data.jsonl", TASKS)
    options = ["--run", "cli", "--root", str(tmp_path / "runs")]
    assert main([str(path), "--tasks", str(tmp_path / "data.jsonl"), *options]) == 0
    assert f"in {STEPS} steps" in capsys.readouterr().out
    saved = tmp_path / "runs/cli/train/part-0001/adapter/adapter_model.safetensors"
    assert saved.read_bytes() == adapter_bytes(reference)[saved.name]
    for arguments, message in [
        (["typo"], "no recipe named 'typo'"),
        ([str(path), "--tasks", "none.jsonl"], "none.jsonl"),
        ([str(path), "--run", "a/b"], "cannot be named"),
        ([str(path), *options[2:]], "no instruction data"),
    ]:
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
