"""Training: the same bytes every time, also when it was killed; sealed, and never done twice."""

import datetime
import json
import re
import shutil
from types import SimpleNamespace

import pytest

from course_utils import REPO, CourseError
from course_utils import train as train_module
from course_utils.checkpoint import CheckpointStore
from course_utils.collator import EncodeError, encode, encode_tasks
from course_utils.inference import load_model, load_tokenizer, reply
from course_utils.plumbing.model_folder import ModelFolderError
from course_utils.prompts import chat_template, get_template
from course_utils.recipe import TrainSpec, load_recipe, recipe_names
from course_utils.scale import trainer
from course_utils.scale.parallel import TrainError
from course_utils.tasks import Task, write_tasks
from course_utils.train import main, train

TASKS = [Task("다음 문장을 존댓말로 바꾸세요.", f"밥 {i}번 먹었어?", f"식사를 {i}번 하셨어요?")
         for i in range(24)]
STEPS = 12  # 24 rows in batches of 4, two epochs


class Killed(BaseException):
    """Stands for a killed process: no handler in any library catches it."""


@pytest.fixture(scope="module")
def recipe(tiny_base):
    recipe = load_recipe("offline").replace("base_model", str(tiny_base))
    # Dropout, so that resuming has a random state to restore.
    return changed(recipe, batch_size=4, save_steps=4, threads=1, lora_dropout=0.1)


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


def stop(*_, **options):
    raise Killed


def no_training(monkeypatch):
    monkeypatch.setattr(train_module, "make_trainer", lambda *_: pytest.fail("trained again"))


def changed(recipe, **settings):
    for key, value in settings.items():
        recipe = recipe.replace(f"train.{key}", value)
    return recipe


def test_the_result_is_sealed_and_complete(reference, recipe, tokenizer):
    folder = reference.adapter.parent
    files = ["adapter_config.json", "adapter_model.safetensors"]
    assert [p.name for p in sorted(reference.adapter.iterdir())] == files
    result = json.loads((folder / "result.json").read_text())
    assert result["recipe"] == json.loads(json.dumps(recipe.to_dict()))
    assert len(result["identity"]["data"]) == 64
    assert {"torch", "transformers", "trl", "peft"} <= set(result["versions"])
    assert reference.steps == STEPS and reference.log[-1]["step"] == STEPS
    assert reference.last_loss < reference.first_loss
    rows, _ = encode_tasks(tokenizer, TASKS, get_template("chat", tokenizer), 256)
    assert reference.tokens == 2 * sum(map(len, rows["labels"])) and result["rows"] == 24


def test_the_same_seed_gives_the_same_bytes_whatever_was_drawn_before(recipe, store, reference):
    import torch

    torch.rand(17)
    again = train(recipe, store, TASKS)
    assert adapter_bytes(again) == adapter_bytes(reference)
    other = train(changed(recipe, seed=1, epochs=0.2), store, TASKS, step="other-seed")
    assert adapter_bytes(other) != adapter_bytes(reference)


def test_only_trained_positions_pass_the_head(recipe, store, reference, monkeypatch):
    from trl.trainer import utils

    seen, whole = [], utils._ChunkedLogProbFunction.apply

    def noted(hidden, *rest):
        seen.append(len(hidden))
        return whole(hidden, *rest)

    monkeypatch.setattr(utils._ChunkedLogProbFunction, "apply", noted)
    again = train(recipe, store, TASKS)
    assert losses(again) == losses(reference)
    tokenizer = load_tokenizer(recipe.base_model)
    rows, report = encode_tasks(tokenizer, TASKS, chat_template(tokenizer), 256)
    assert sum(seen) == report.response_tokens * recipe.train.epochs


def test_a_long_training_says_after_three_steps_how_long_it_takes(recipe, store, capsys,
                                                                  monkeypatch):
    clock = iter(range(0, 10**6, 60))  # every look at the clock is a minute later
    monkeypatch.setattr(trainer.time, "monotonic", lambda: float(next(clock)))
    train(recipe, store, TASKS)
    said = capsys.readouterr().out
    assert re.search(r"As fast as these 3 steps, it takes \d+ more minutes\.", said)


def test_killed_just_before_the_result_was_sealed(recipe, store, reference, monkeypatch):
    seal = CheckpointStore.seal
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "seal", lambda self, step, note=None: (
            stop() if step == "train" else seal(self, step, note)))
        with pytest.raises(Killed):
            train(recipe, store, TASKS)
    assert store.latest("train") is None
    result = train(recipe, store, TASKS)
    assert adapter_bytes(result) == adapter_bytes(reference)
    assert losses(result) == losses(reference)
    assert store.latest("train-progress") is None  # nothing is left of the way there


def test_a_lost_machine_goes_on_from_drive(recipe, tmp_path, reference, capsys, monkeypatch):
    epochs, real = [], trainer.RowOrder.__iter__
    noting = lambda self: epochs.append(self.epoch) or real(self)  # noqa: E731
    monkeypatch.setattr(trainer.RowOrder, "__iter__", noting)
    store = CheckpointStore("run", tmp_path / "drive", tmp_path / "local")
    with pytest.raises(Killed):
        train(recipe, store, TASKS, callbacks=[kill_at(10)])
    assert epochs == [0, 0, 1]  # the first one is the card's
    shutil.rmtree(tmp_path / "local")
    result = train(recipe, store, TASKS)
    assert "Going on from checkpoint-8" in capsys.readouterr().out
    assert epochs == [0, 0, 1, 0, 1], "every epoch has its own order, also when gone on from"
    assert adapter_bytes(result) == adapter_bytes(reference)
    assert losses(result) == losses(reference) and result.seconds > 0


@pytest.fixture(scope="module")
def half(recipe, tmp_path_factory):
    """The runs of a training that was killed after its first checkpoint, to be copied."""
    root = tmp_path_factory.mktemp("half")
    with pytest.raises(Killed):
        train(recipe, CheckpointStore.open("run", root), TASKS, callbacks=[kill_at(6)])
    return root


@pytest.fixture
def begun(half, tmp_path):
    """A store with a training that is half done, and its only checkpoint."""
    store = CheckpointStore.open("run", shutil.copytree(half, tmp_path / "begun"))
    return store, store.local("train-progress") / "checkpoints" / "checkpoint-4"


@pytest.mark.parametrize("damage", [
    "no list", "cut state", "no optimizer", "a file more", "a file of another name"])
def test_a_partial_checkpoint_is_skipped_by_name(begun, damage, capsys):
    checkpoint = begun[1]
    partial = shutil.copytree(checkpoint, checkpoint.with_name("checkpoint-12"))
    if damage == "cut state":
        (partial / "trainer_state.json").write_text('{"epoch": 1.')
    elif damage == "a file more":
        (partial / "more").write_text("")
    elif damage == "a file of another name":
        (partial / "optimizer.pt").rename(partial / "optimizer.bin")
    else:
        (partial / {"no list": trainer.LIST, "no optimizer": "optimizer.pt"}[damage]).unlink()
    assert trainer.newest_whole(checkpoint.parent)[0] == checkpoint
    assert "Skipping checkpoint-12" in capsys.readouterr().out
    whole = shutil.copytree(checkpoint, checkpoint.with_name("checkpoint-100"))
    assert trainer.newest_whole(checkpoint.parent)[0] == whole  # by number: 100 comes after 12
    shutil.rmtree(whole)
    shutil.rmtree(checkpoint)
    assert trainer.newest_whole(checkpoint.parent) is None


def test_a_partial_checkpoint_is_in_nobodys_way(recipe, begun, reference, capsys):
    store, checkpoint = begun
    partial = shutil.copytree(checkpoint, checkpoint.with_name("checkpoint-8"))
    (partial / "optimizer.pt").write_bytes(b"half")
    result = train(recipe, store, TASKS)
    said = capsys.readouterr().out
    assert "Skipping checkpoint-8" in said and "Going on from checkpoint-4" in said
    assert adapter_bytes(result) == adapter_bytes(reference)


@pytest.fixture(scope="module")
def sealed(recipe, tmp_path_factory):
    """The runs of a short training that is finished, and its recipe."""
    root, short = tmp_path_factory.mktemp("sealed"), changed(recipe, epochs=0.2)
    train(short, CheckpointStore.open("run", root), TASKS)
    return root, short


@pytest.fixture
def finished(sealed, tmp_path, monkeypatch):
    """A store with a finished training, and its recipe; whoever trains anew is stopped."""
    monkeypatch.setattr(train_module, "make_trainer", stop)
    return CheckpointStore.open("run", shutil.copytree(sealed[0], tmp_path / "runs")), sealed[1]


def test_nothing_is_trained_twice(finished, capsys):
    store, recipe = finished
    first = train(recipe, store, TASKS)
    assert "Already trained: run/train/part-0001" in capsys.readouterr().out
    # What has nothing to do with training does not undo it, nor does who watches.
    assert train(recipe.replace("judge.model", "another"), store, TASKS) == first
    assert train(recipe.replace("train.report_to", "wandb"), store, TASKS) == first
    # Nor do the same tasks by another way: those that the step before has sealed.
    write_tasks(store.local("preprocess") / "tasks.jsonl", TASKS)
    store.seal("preprocess")
    assert train(recipe, store) == first


def test_what_was_trained_today_is_not_trained_again_tomorrow(
        recipe, store, tiny_base, tmp_path, monkeypatch):
    """A chat template may write the date; ours is the same every day, and so are the rows."""
    base = shutil.copytree(tiny_base, tmp_path / "base")
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}" + template)
    recipe = changed(recipe, epochs=0.2).replace("base_model", str(base))
    first = train(recipe, store, TASKS)
    clock = SimpleNamespace(now=lambda: datetime.datetime(2030, 5, 1))
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", clock)
    no_training(monkeypatch)
    assert train(recipe, store, TASKS) == first


@pytest.mark.parametrize(("settings", "count", "said"), [
    ({"lora_r": 8}, 24, "train.lora_r was 4 and is 8"),
    ({"lora_r": 8}, 23, "train.lora_r was 4 and is 8; the data is another"),
    ({"weight_decay": 0.1}, 24, "train.weight_decay was 0.0 and is 0.1"),
])  # fmt: skip
def test_another_recipe_or_other_data_trains_anew_and_says_so(
        finished, settings, count, said, capsys):
    store, recipe = finished
    with pytest.raises(Killed):
        train(changed(recipe, **settings), store, TASKS[:count])
    assert f"Training anew: {said}." in capsys.readouterr().out


def test_another_base_or_what_somebody_else_sealed_trains_anew(finished, capsys, monkeypatch):
    store, recipe = finished
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train_module, "base_hash", lambda base: "another")
        train(recipe, store, TASKS)
    assert "Training anew: the base is another." in capsys.readouterr().out
    shutil.rmtree(store.local("train"))
    (store.local("train") / "notes.txt").write_text("mine")
    store.seal("train")
    with pytest.raises(Killed):
        train(recipe, store, TASKS)
    assert "does not say what it was trained from" in capsys.readouterr().out


def test_what_was_sealed_before_a_setting_existed_is_not_trained_again(finished, capsys):
    store, recipe = finished
    work = store.local("train")
    result = json.loads((work / "result.json").read_text())
    for name in ("heldout", "sampling", "gpus", "parallel", "weight_decay", "quantize"):
        del result["identity"]["train"][name]
    result["identity"]["train"]["report_to"] = "none"  # as once
    (work / "result.json").write_text(json.dumps(result))
    store.seal("train")
    assert train(recipe, store, TASKS).adapter.parent.name == "part-0002"
    assert "Already trained" in capsys.readouterr().out
    with pytest.raises(Killed):
        train(recipe.replace("train.weight_decay", 0.1), store, TASKS)
    assert "anew: train.weight_decay was 0.0 and is 0.1." in capsys.readouterr().out


def test_an_unfinished_run_of_another_training_is_not_continued(recipe, begun, capsys, monkeypatch):
    store, checkpoint = begun
    monkeypatch.setattr(trainer.CourseTrainer, "__init__", stop)
    with pytest.raises(Killed):
        train(changed(recipe, lora_r=8), store, TASKS)
    assert "Going on" not in capsys.readouterr().out and not checkpoint.exists()


def test_what_two_processes_began_one_does_not_throw_away(recipe, begun):
    store, checkpoint = begun
    listed = checkpoint / trainer.LIST
    listed.write_text(listed.read_text().replace('"processes": 1', '"processes": 2'))
    before = sorted(path for path in store.root.rglob("*"))
    with pytest.raises(TrainError, match="begun by 2 processes and 1 cannot go on: start 2 again"):
        train(recipe, store, TASKS)
    assert sorted(path for path in store.root.rglob("*")) == before


def test_ready_rows_are_used_as_they_are(recipe, store, tokenizer, monkeypatch):
    rows = [encode(tokenizer, "안녕", "네", 64) for _ in range(4)]
    result = train(recipe, store, rows=rows, step="mine")
    assert result.steps == 2
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


# Each way of training that keeps more than an adapter's state, or its own order of rows.
@pytest.mark.parametrize("settings", [
    {"lora_r": 0, "lora_dropout": 0.0, "learning_rate": 1e-4, "weight_decay": 0.1},
    {"heldout": 0.3, "sampling": "length"},
], ids=["whole", "heldout"])  # fmt: skip
def test_a_killed_run_of_another_kind_ends_in_the_same_bytes(
        recipe, store, tmp_path, tiny_base, settings):
    recipe = changed(recipe, save_steps=2, epochs=1.0, **settings)
    whole = train(recipe, CheckpointStore.open("whole", tmp_path), TASKS)
    with pytest.raises(Killed):
        train(recipe, store, TASKS, callbacks=[kill_at(3)])
    resumed = train(recipe, store, TASKS)
    assert adapter_bytes(resumed) == adapter_bytes(whole)
    timed = ("seconds", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    logs = [[{k: e[k] for k in e if k not in timed} for e in r.log] for r in (whole, resumed)]
    assert logs[0] == logs[1]
    if recipe.train.full:
        every_weight_is_trained_and_loads_as_a_base(whole, tiny_base)


def every_weight_is_trained_and_loads_as_a_base(result, tiny_base):
    names = {p.name for p in result.adapter.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "training_args.bin" not in names
    assert train_module.TrainResult.load(result.adapter.parent) == result
    before, _ = load_model(tiny_base, dtype="float32", device="cpu")
    after, tokenizer = load_model(result.adapter, dtype="float32", device="cpu")
    weights = dict(after.named_parameters())
    assert all(not weights[name].equal(old) for name, old in before.named_parameters())
    assert len(reply(after, tokenizer, ["안녕"], max_new_tokens=4)) == 1


def exact_loss(model, rows):
    """The mean over all labels, one row at a time and without a Trainer."""
    import torch

    total = count = 0
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        total, count = total + float(loss.sum()), count + int((labels != -100).sum())
    return total / count


def test_the_held_out_loss_is_exact_and_never_trained_on(
        recipe, store, tiny_base, tokenizer, monkeypatch):
    rows = [encode(tokenizer, "안녕" * n, "반갑습니다" * (1 + n % 5), 200) for n in range(1, 25)]
    held = changed(recipe, heldout=0.25, sampling="length")
    seen, made = [], train_module.make_trainer
    monkeypatch.setattr(train_module, "make_trainer", lambda *arguments: (
        seen.extend(row["input_ids"] for row in arguments[2]) or made(*arguments)))
    result = train(held, store, rows=rows)
    kept = [row for row in rows if row["input_ids"] not in seen]
    assert len(kept) == 6 and len(seen) == 18
    before, _ = load_model(tiny_base, dtype="float32", device="cpu")
    after, _ = load_model(tiny_base, result.adapter, dtype="float32", device="cpu")
    assert result.first_eval_loss == pytest.approx(exact_loss(before, kept), rel=1e-5)
    assert result.last_eval_loss == pytest.approx(exact_loss(after, kept), rel=1e-5)
    assert result.last_eval_loss < result.first_eval_loss
    steps = [entry["step"] for entry in result.log if "eval_loss" in entry]
    assert (steps[0], steps[-1]) == (0, result.steps)
    assert result.tokens == 2 * sum(map(len, seen))
    with pytest.raises(CourseError, match="cannot be divided into training and held-out"):
        train(held, store, rows=rows[:1] * 24)


def test_rows_of_like_length_lie_side_by_side():
    lengths = [7 * n % 100 for n in range(1003)]
    order = trainer.RowOrder(lengths, TrainSpec(batch_size=8, sampling="length"))
    first, again = list(order), list(order)
    assert first == again and sorted(first) == list(range(1003))
    batches = [[lengths[i] for i in first[at : at + 8]] for at in range(0, 1003, 8)]
    assert len(batches[-1]) == 3, "the incomplete batch comes last, so it stays the only one"
    assert max(batches[0]) == max(lengths), "too little memory should show at once"
    assert sum(len(b) * max(b) for b in batches) * 0.98 < sum(map(sum, batches)), "little padding"
    means = [sum(b) / len(b) for b in batches]
    assert means[1:] != sorted(means[1:]), "not from short to long"
    order.epoch = 1
    assert list(order) != first
    # Without lengths it is what PyTorch's own sampler would give.
    import torch

    generator = torch.Generator().manual_seed(3)
    expected = torch.randperm(1003, generator=generator).tolist()
    assert list(trainer.RowOrder(lengths, TrainSpec(seed=3))) == expected


def test_what_is_too_large_is_said_before_a_model_is_loaded(recipe, store, monkeypatch):
    def refuse(card):
        raise CourseError("too large")

    no_training(monkeypatch)
    store.local("train-progress").joinpath("mine").write_text("an unfinished run")
    monkeypatch.setattr(train_module, "check", refuse)
    with pytest.raises(CourseError, match="too large"):
        train(recipe, store, TASKS)
    assert (store.local("train-progress") / "mine").exists(), "nothing was removed"


def test_several_gpus_and_one_process_is_one_sentence(recipe, store, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainError, match="sees 2 GPUs: .*torchrun --nproc_per_node=2 -m course_u"):
        train(recipe, store, TASKS)


def test_an_empty_adapter_is_never_sealed(recipe, store, monkeypatch):
    from safetensors.torch import save_file

    save = trainer.SFTTrainer.save_model

    def empty(self, folder, **options):
        save(self, folder, **options)
        if not options:  # the last time, not a checkpoint
            save_file({}, folder / "adapter_model.safetensors")

    monkeypatch.setattr(trainer.SFTTrainer, "save_model", empty)
    with pytest.raises(CourseError, match="saved empty"):
        train(changed(recipe, epochs=0.2), store, TASKS)
    assert store.latest("train") is None
    assert list((store.local("train-progress") / "checkpoints").glob("checkpoint-*"))


def test_it_is_quiet_and_the_adapter_names_its_base_from_the_checkout(
        recipe, store, tiny_base, monkeypatch, capfd):
    monkeypatch.setattr(train_module, "REPO", tiny_base.parent.resolve())
    result = train(changed(recipe, epochs=0.2), store, TASKS, progress=False)
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""
    config = json.loads((result.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-gemma"
    assert config["target_modules"] == sorted(config["target_modules"])


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
    capsys.readouterr()
    assert main([str(path), "--dry-run", "--tasks", str(tmp_path / "data.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "24, the longest" in said and "total" in said
    assert main([str(path), "--dry-run", "--run", "empty", *options[2:]]) == 0
    assert "unknown. The run 'empty' has no instruction data yet" in capsys.readouterr().out
    assert not (tmp_path / "runs" / "empty").exists()
    for arguments, message in [
        (["typo"], "no recipe named 'typo'"),
        ([str(path), "--tasks", "none.jsonl"], "none.jsonl"),
        ([str(path), "--run", "a/b"], "cannot be named"),
        ([str(path), *options[2:]], "no instruction data"),
    ]:
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_no_code_of_the_course_reads_pickles_or_trusts_remote_code():
    import ast

    for path in [*(REPO / "course_utils").rglob("*.py"), *(REPO / "notebooks/src").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                trusts = keywords.get("trust_remote_code")
                assert trusts is None or ast.unparse(trusts) == "False", path
                called = ast.unparse(node.func)
                assert not called.startswith(("pickle.", "joblib.")), path
                if called == "torch.load":
                    assert ast.unparse(keywords["weights_only"]) == "True", path


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_asked(name, tmp_path, capsys):
    assert main([name, "--dry-run", "--root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "total" in said and name in said


@pytest.mark.parametrize("name", ["offline", "gemma-270m", "koalpaca-12.8b-a100", "alpaca-7b-fsdp",
                                  "midm-2b-t4", "qwen3-4b-l4"])
def test_a_recipe_of_each_kind_of_model_can_be_tried_here(name, tmp_path, capsys):
    few = []
    if name != "offline":
        write_tasks(tmp_path / "few.jsonl", TASKS[:8])
        few = ["--tasks", str(tmp_path / "few.jsonl")]
    assert main([name, "--tiny", *few, "--root", str(tmp_path)]) == 0
    assert "loss " in capsys.readouterr().out
    (sealed,) = tmp_path.glob(f"{name}/tiny/part-0001")
    recipe = json.loads((sealed / "result.json").read_text())["recipe"]
    assert recipe["name"] == f"{name}-tiny"
    assert not (tmp_path / name / "train").exists(), "a trial never takes the place of a result"
    tuned = train_module.TrainResult.load(sealed).adapter
    whole = name == "alpaca-7b-fsdp"
    loaded = load_model(*[tuned] if whole else [recipe["base_model"], tuned], device="cpu")
    assert len(reply(*loaded, ["### 질문: 안녕", "안녕"], max_new_tokens=4)) == 2
