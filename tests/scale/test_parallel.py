"""Two processes on a CPU: the same losses as one, really sharded, killed and gone on from.

Run by torchrun this file is one of the processes: torchrun tests/scale/test_parallel.py JOB.json.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from course_utils import REPO
from course_utils.checkpoint import CheckpointStore
from course_utils.inference import load_model
from course_utils.recipe import TrainSpec, load_recipe
from course_utils.scale import parallel
from course_utils.scale.parallel import TrainError, batch_shape, from_main
from course_utils.tasks import Task
from course_utils.train import train

TASKS = [Task("존댓말로 바꾸세요.", f"밥 {i}번 먹었어?" * (1 + i % 3), f"식사를 {i}번 하셨어요?")
         for i in range(12)]


long = pytest.mark.skipif(os.environ.get("FAULTS") != "all", reason="only with FAULTS=all")


def make_recipe(base, **settings):
    recipe = load_recipe("offline").replace("base_model", str(base))
    common = {"batch_size": 4, "save_steps": 2, "threads": 1, "lora_r": 4, "warmup": 0.0}
    for key, value in {**common, **settings}.items():
        recipe = recipe.replace(f"train.{key}", value)
    return recipe


def launch(*arguments, launcher=("torch.distributed.run", "--nproc_per_node=2")):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(REPO)
    command = [sys.executable, "-m", *launcher, *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPO, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, f"{out}\n{err}"
    return out, err


def run_job(folder, base, steps, stop_at=None):
    """Write a job of {step: settings} for this file to do, and return torchrun's process."""
    job = {"root": str(folder), "base": str(base), "steps": steps, "stop_at": stop_at}
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return launch(__file__, path)


def do_job(path):
    """What each process does: train every step of the job, noting how the weights are held."""
    from torch.distributed.tensor import DTensor
    from transformers import TrainerCallback

    job = json.loads(Path(path).read_text())

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == job["stop_at"]:
                Path(job["root"], "stopped").touch()
                time.sleep(600)  # and is killed
            weights = list(model.parameters())
            held["sharded"] = all(isinstance(p, DTensor) for p in weights)
            local = sum(p.to_local().numel() if held["sharded"] else p.numel() for p in weights)
            held["share"] = local / sum(p.numel() for p in weights)

    for step, settings in job["steps"].items():
        held = {}
        store = CheckpointStore.open("two", job["root"])
        recipe = make_recipe(settings.pop("base", job["base"]), **settings)
        result = train(recipe, store, TASKS, step=step, callbacks=[Watch()])
        rank = os.environ["RANK"]
        seen = {"step": step, "rank": rank, "result": str(result.adapter), **held}
        Path(job["root"], f"{step}-{rank}.json").write_text(json.dumps(seen))


@pytest.fixture(scope="module")
def llama(tmp_path_factory, tokenizer):
    """The folder of a Llama with two layers: untied embeddings, as Alpaca's."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


FSDP = {"parallel": "fsdp", "gpus": 2, "batch_size": 2, "activation_checkpointing": True}
STEPS = {
    "ddp": {"parallel": "ddp", "gpus": 2, "batch_size": 2},
    "lora": FSDP,
    "full": {**FSDP, "lora_r": 0},
    "tied": {**FSDP, "epochs": 0.5},  # Gemma's embeddings and its head are one tensor
    "held-out": {**FSDP, "heldout": 0.33, "sampling": "length", "epochs": 1},
}
if int(version("accelerate").split(".")[1]) < 15:
    del STEPS["tied"]  # accelerate 1.14 cannot shard a tied tensor with torch 2.13


@pytest.fixture(scope="module")
def two(tmp_path_factory, llama, tiny_base):
    """Everything that two processes train in these tests, in one launch."""
    folder = tmp_path_factory.mktemp("two")
    steps = {name: dict(settings) for name, settings in STEPS.items()}
    if "tied" in steps:
        steps["tied"]["base"] = str(tiny_base)
    out, _ = finish(run_job(folder, llama, steps))
    assert out.count("step     6/6") == 3, "one process prints, not both"
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return CheckpointStore.open("one", tmp_path_factory.mktemp("one"))


def losses(log):
    return [entry["loss"] for entry in log if "loss" in entry]


def weights_of(folder):
    from safetensors.torch import load_file

    (path,) = folder.glob("*.safetensors")
    return load_file(path)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_two_processes_learn_what_one_learns(step, two, one, llama, tiny_base):
    alone = {"parallel": "none", "gpus": 1, "batch_size": 4, "activation_checkpointing": False}
    base = tiny_base if step == "tied" else llama
    expected = train(make_recipe(base, **{**STEPS[step], **alone}), one, TASKS, step=step)
    seen = [json.loads((two / f"{step}-{rank}.json").read_text()) for rank in (0, 1)]
    folder = Path(seen[0]["result"])
    assert seen[1]["result"] == str(folder), "both processes return the one result"
    log = json.loads((folder.parent / "log.json").read_text())
    assert losses(log) == pytest.approx(losses(expected.log), abs=2e-4)
    ours, theirs = weights_of(folder), weights_of(expected.adapter)
    assert ours.keys() == theirs.keys() and len(ours) > 0
    assert all(ours[name].sub(theirs[name]).abs().max() < 1e-3 for name in theirs)
    if step == "full":
        model, _ = load_model(folder, dtype="float32", device="cpu")  # an ordinary folder
        assert folder.name == "model" and model.num_parameters() > 0
    if step == "held-out":
        evals = [[e["eval_loss"] for e in x if "eval_loss" in e] for x in (log, expected.log)]
        assert evals[0] == pytest.approx(evals[1], abs=2e-4) and len(evals[0]) > 2
    sharded = STEPS[step]["parallel"] == "fsdp"
    assert [s["sharded"] for s in seen] == [sharded, sharded]
    # Each holds half of the weights and no more: FSDP2, not a DDP that calls itself so.
    assert all(s["share"] == pytest.approx(0.5 if sharded else 1.0, abs=0.02) for s in seen)


@long
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_two_killed_processes_go_on_where_they_were(kind, two, tmp_path, llama):
    import psutil

    steps = {kind: dict(STEPS[kind])}
    # The second epoch has begun: its order is another one, which the resumed run must find again.
    process = run_job(tmp_path, llama, steps, stop_at=5)
    deadline = time.monotonic() + 200
    while not (tmp_path / "stopped").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    parent = psutil.Process(process.pid)
    for member in [*parent.children(recursive=True), parent]:
        os.kill(member.pid, signal.SIGKILL)
    process.communicate()
    progress = tmp_path / "two" / f"{kind}-progress"
    shutil.rmtree(progress / "work")  # as if it had been another machine's
    out, _ = finish(run_job(tmp_path, llama, steps))
    assert out.count("Going on from checkpoint-4") == 1
    whole = Path(json.loads((two / f"{kind}-0.json").read_text())["result"])
    resumed = Path(json.loads((tmp_path / f"{kind}-0.json").read_text())["result"])
    logs = [json.loads((folder.parent / "log.json").read_text()) for folder in (whole, resumed)]
    assert losses(logs[1]) == losses(logs[0])
    ours, theirs = weights_of(resumed), weights_of(whole)
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert not progress.exists()


@long
@pytest.mark.slow
def test_an_error_is_one_line_and_ends_every_process(tmp_path):
    began = time.monotonic()
    process = launch("-m", "course_utils.train", "offline", "--root", tmp_path)
    _, err = finish(process, code=1)
    assert err.count("The run 'offline' has no instruction data yet") == 1
    assert "exitcode  : 1" in err  # torchrun's report, and no trace of ours
    assert f'File "{REPO}/course_utils' not in err
    assert time.monotonic() - began < 120


def test_what_every_process_runs_into_the_main_one_says(monkeypatch, capsys):
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    parallel.complain(TrainError("at once"))
    parallel.complain(parallel.MainProcessError("never"))
    assert capsys.readouterr().err == "at once\n" and waited == []
    monkeypatch.setenv("RANK", "1")
    parallel.complain(TrainError("only if still there"))
    assert capsys.readouterr().err == "only if still there\n" and waited == [20]


@long
@pytest.mark.slow
def test_the_command_line_under_accelerate(tmp_path):
    options = ("--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--multi_gpu")
    launcher = ("accelerate.commands.launch", *options, "--num_processes=2")
    arguments = ["-m", "course_utils.train", "alpaca-7b-fsdp", "--tiny", "--root", tmp_path]
    out, _ = finish(launch(*arguments, launcher=launcher))
    assert out.count("model: ") == 1
    (result,) = tmp_path.glob("alpaca-7b-fsdp/tiny/part-0001/result.json")
    assert json.loads(result.read_text())["processes"] == 2


def test_alone_the_main_process_is_the_process():
    assert parallel.processes() == 1 and parallel.is_main()
    assert from_main(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        from_main(lambda: 1 / 0)


@pytest.mark.parametrize(("spec", "processes", "shape"), [
    ((4, 8, 4), 4, (4, 8)), ((4, 8, 4), 8, (4, 4)), ((4, 8, 4), 1, (4, 32)),
    ((16, 1, 1), 2, (8, 1)), ((16, 1, 1), 16, (1, 1)), ((6, 2, 1), 3, (4, 1)),
    ((5, 3, 1), 1, (5, 3)),
])  # fmt: skip
def test_the_effective_batch_is_the_recipes(spec, processes, shape):
    spec = dict(zip(("batch_size", "gradient_accumulation", "gpus"), spec, strict=True))
    assert batch_shape(TrainSpec(**spec), processes) == shape
    with pytest.raises(TrainError, match="16 rows cannot be divided among 3 processes"):
        batch_shape(TrainSpec(batch_size=16), 3)


if __name__ == "__main__":
    do_job(sys.argv[1])
