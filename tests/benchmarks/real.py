"""Small and real: what two open models did on two CPU cores, recorded once.

    python tests/benchmarks/real.py                  check the record; needs no model
    python tests/benchmarks/real.py teach --hours 1  go on asking for tasks (with `make teacher`)
    python tests/benchmarks/real.py train            tune Gemma on seeds, on the tasks, on both
    python tests/benchmarks/real.py reply            the 105 evaluation tasks, before and after
    python tests/benchmarks/real.py judge            let Qwen judge (with `make teacher`)
    python tests/benchmarks/real.py measure          write results.json

Qwen2.5-Coder 1.5B is teacher and judge, Gemma 3 270M is tuned. assets/real holds their journals,
replies and logs; results.json holds every number that is quoted of them, and the check computes
them again. Each part goes on where it stopped.
"""

import argparse
import json
import random
import re
import shutil
import tempfile
import time
from functools import cache
from itertools import count
from pathlib import Path
from statistics import fmean

from course_utils import REPO
from course_utils.generate import generate_tasks
from course_utils.judge import Item, Judge
from course_utils.korean import hangul_share
from course_utils.llm import LLM
from course_utils.similarity import morphemes, rouge_l
from course_utils.stats import (
    bootstrap_interval,
    summarize_battle,
    verdict_win_rate,
    wilson_interval,
)
from course_utils.tasks import Task, read_tasks, write_atomic

REAL = REPO / "assets" / "real"
QWEN, NOBODY = "qwen2.5-coder-1.5b-instruct", "http://127.0.0.1:9/v1"
BATCH = 8  # tasks asked for at a time: a small teacher loses its way in longer replies
COPIES = tempfile.TemporaryDirectory()  # a journal belongs to one process at a time
TUNED = ("seeds", "teacher", "both")  # what Gemma was tuned on
BATTLES = {"seeds against base": ("seeds", "base"), "both against seeds": ("both", "seeds")}


def client(journal: str, url: str = NOBODY) -> LLM:
    """Qwen's client; at the default address nobody answers, so that a copy of the journal does."""
    path = REAL / journal
    if url == NOBODY:
        path = shutil.copy(path, COPIES.name)
    return LLM(QWEN, base_url=url, journal=path, workers=4, timeout=1800, max_retries=0)


def seeds() -> list[Task]:
    return read_tasks(REPO / "data" / "seed_tasks.jsonl")


@cache
def questions() -> dict[str, Task]:
    return {task.meta["id"]: task for task in read_tasks(REPO / "data" / "eval_tasks.jsonl")}


def asked(task: Task) -> str:
    """The question that a judge is shown."""
    return "\n\n".join(filter(None, [task.instruction, task.input]))


def write_json(name: str, content: dict) -> dict:
    text = json.dumps(content, ensure_ascii=False, indent=1)
    write_atomic(REAL / name, text + "\n")
    return content


def read_json(name: str) -> dict:
    return json.loads((REAL / name).read_text(encoding="utf-8"))


# ---------------------------------------------------------------- the teacher


def generate(n: int, out: Path, url: str = NOBODY) -> tuple[dict, int]:
    """The funnel of n tasks, written to `out`, and how many replies were asked for."""
    llm = client("teacher.jsonl", url)
    before = len(llm.journal)
    report = generate_tasks(llm, seeds(), n, out=out, batch=BATCH, progress=False)
    names = ("candidates", "kept", "rejected", "calls", "tokens", "note")
    return {name: getattr(report, name) for name in names}, len(llm.journal) - before


def teach(hours: float, url: str) -> None:
    """Generate ten tasks more at a time, until the teacher runs dry or the hours are over."""
    end, funnel = time.monotonic() + 3600 * hours, read_json("funnel.json")
    for n in count(funnel["kept"] + 10, 10):
        start = time.monotonic()
        found, new = generate(n, REAL / "tasks.jsonl", url)
        seconds = funnel["seconds"] + (time.monotonic() - start if new else 0)
        funnel = write_json("funnel.json", found | {"seconds": round(seconds)})
        print(funnel, flush=True)
        if funnel["note"] or time.monotonic() > end:
            return


# ---------------------------------------------------------------- Gemma, before and after


def train_all(names: list[str]) -> None:
    """Tune Gemma as the recipe says on each set of tasks; the logs go to training.json."""
    import torch
    from safetensors.torch import load_file, save_file

    from course_utils.checkpoint import CheckpointStore
    from course_utils.recipe import load_recipe
    from course_utils.train import train

    recipe, store = load_recipe("gemma-270m"), CheckpointStore.open("real", REPO / "runs")
    recipe = recipe.replace("train.threads", torch.get_num_threads())  # OMP_NUM_THREADS
    made = read_tasks(REAL / "tasks.jsonl")
    data = {"seeds": seeds(), "teacher": made, "both": seeds() + made}
    for name in names:
        result = train(recipe, store, data[name], step=name)
        known = read_json("training.json") if (REAL / "training.json").exists() else {}
        known[name] = {
            "rows": len(data[name]), "steps": result.steps, "tokens": result.tokens,
            "seconds": round(result.seconds), "threads": recipe.train.threads,
            "log": [{k: e[k] for k in ("step", "loss", "learning_rate")} for e in result.log]}
        write_json("training.json", known)
        if name == "both":  # the one that is shipped, in half the bytes
            (REAL / "adapter").mkdir(exist_ok=True)
            weights = load_file(result.adapter / "adapter_model.safetensors")
            save_file({k: w.to(torch.bfloat16) for k, w in weights.items()},
                      REAL / "adapter" / "adapter_model.safetensors", {"format": "pt"})
            config = json.loads((result.adapter / "adapter_config.json").read_text())
            write_json("adapter/adapter_config.json",
                       config | {"base_model_name_or_path": recipe.base_model})


def reply_all(names: list[str]) -> None:
    """Add each model's reply to every evaluation task, and its loss on the reference."""
    from course_utils.checkpoint import CheckpointStore
    from course_utils.inference import generate as replies_to
    from course_utils.inference import load_model
    from course_utils.prompts import get_template
    from course_utils.recipe import load_recipe
    from course_utils.scale.preflight import cpu_has_bfloat16

    recipe, store = load_recipe("gemma-270m"), CheckpointStore.open("real", REPO / "runs")
    tasks, template = questions(), get_template(recipe.train.template)
    prompts = [template.render(task) for task in tasks.values()]
    for name in names:
        adapter = None if name == "base" else store.latest(name) / "adapter"
        dtype = "bfloat16" if cpu_has_bfloat16() else "float32"
        model, tokenizer = load_model(recipe.base_model, adapter, dtype=dtype)
        losses = [reference_loss(model, tokenizer, task, template) for task in tasks.values()]
        said = replies_to(model, tokenizer, prompts, batch_size=recipe.evaluate.batch_size,
                          max_new_tokens=recipe.evaluate.max_new_tokens)
        rows = [{"id": i, "model": name, "reply": r.text, "ended": r.stopped, **loss}
                for i, r, loss in zip(tasks, said, losses, strict=True)]
        path = REAL / "replies.jsonl"
        old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in old if json.loads(line)["model"] != name]
        new = [json.dumps(row, ensure_ascii=False) for row in rows]
        write_atomic(path, "\n".join(kept + new) + "\n")
        print(f"{name}: {sum(r.stopped for r in said)} of {len(said)} ended", flush=True)


def reference_loss(model, tokenizer, task: Task, template) -> dict:
    """The summed loss on the tokens of the reference, and how many they are: none without one."""
    import torch

    from course_utils.collator import IGNORE_INDEX, encode

    if not task.output:
        return {"loss": 0.0, "labels": 0}
    row = encode(tokenizer, template.render(task), task.output, 1024, end=template.end)
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"][1:])
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, :-1].float()
    trained = labels != IGNORE_INDEX
    loss = torch.nn.functional.cross_entropy(logits[trained], labels[trained], reduction="sum")
    return {"loss": round(loss.item(), 3), "labels": int(trained.sum())}


# ---------------------------------------------------------------- the judge


def known_pairs() -> list[Item]:
    """120 pairs whose winner is known: a seed's answer (a) and the same one spoiled by code (b)."""
    pool = seeds()
    random.Random(0).shuffle(pool)
    fit = {"number": lambda text: re.search(NUMBER, text),
           "half": lambda text: len(text.split()) >= 8,
           "latin": lambda text: hangul_share(text) > 0.8, "other": lambda text: True}
    items = []
    for kind, fits in fit.items():
        chosen = [task for task in pool if fits(task.output)][:30]
        pool = [task for task in pool if task not in chosen]
        for i, task in enumerate(chosen):
            other = chosen[i - 1].output
            items.append(Item(f"{kind}-{i + 1}", asked(task), a=task.output,
                              b=spoil(kind, task.output, other), category=kind))
    return items


NUMBER = r"(?<![\d.])\d+(?!\d|\.\s)"  # but not the number of a list's line


def spoil(kind: str, text: str, other: str) -> str:
    """A worse answer: a number changed, half of it, all in Latin letters, another task's."""
    if kind == "number":
        return re.sub(NUMBER, lambda found: str(int(found[0]) + 3), text, count=1)
    if kind == "half":
        return text[: len(text) // 2].rsplit(maxsplit=1)[0]
    return latin(text) if kind == "latin" else other


def latin(text: str) -> str:
    """Korean spelt letter by letter in Latin ones: 한글 -> hangeul."""
    first = "g kk n d tt r m b pp s ss  j jj ch k t p h".split(" ")
    middle = "a ae ya yae eo e yeo ye o wa wae oe yo u wo we wi yu eu ui i".split()
    last = " k k ks n nj nh t l lk lm lb ls lt lp lh m p ps t t ng t t k t p h".split(" ")
    letters = []
    for letter in text:
        code = ord(letter) - ord("가")
        if 0 <= code < 11172:
            letter = first[code // 588] + middle[code % 588 // 28] + last[code % 28]
        letters.append(letter)
    return "".join(letters)


@cache
def replies() -> dict[str, dict[str, dict]]:
    """The recorded rows by model and question."""
    found: dict[str, dict] = {}
    for line in (REAL / "replies.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.setdefault(row["model"], {})[row["id"]] = row
    return found


def battle_items(a: str, b: str) -> list[Item]:
    return [Item(i, asked(task), a=replies()[a][i]["reply"], b=replies()[b][i]["reply"],
                 reference=task.output or None, category=task.meta["category"])
            for i, task in questions().items()]


def write_pairs() -> None:
    """Keep the pairs where a notebook reads them."""
    rows = [{"id": item.id, "kind": item.category, "question": item.question, "right": item.a,
             "spoiled": item.b} for item in known_pairs()]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_atomic(REAL / "pairs.jsonl", "\n".join(lines) + "\n")


def judge_all(url: str = NOBODY, what: tuple[str, ...] = ("known", *BATTLES)) -> dict[str, list]:
    """The games of the known pairs and of each battle, from the journal where it has them."""
    judge = Judge(client("judge.jsonl", url), progress=url != NOBODY, max_tokens=400)
    sets = {name: known_pairs() if name == "known" else battle_items(*BATTLES[name])
            for name in what}
    return {name: judge.battle(items) for name, items in sets.items()}


# ---------------------------------------------------------------- what is quoted


def share(values: list[float]) -> dict:
    """A mean over questions with its 95% interval: Wilson's for a share, a bootstrap's else."""
    edges = (wilson_interval(sum(values), len(values)) if set(values) <= {0.0, 1.0}
             else bootstrap_interval(values))
    return {"value": round(fmean(values), 4), "n": len(values),
            "interval": [round(edge, 4) for edge in edges]}


def repeated_part(text: str) -> float:
    """The share of runs of four morphemes that a text has had before (Welleck et al., 2020)."""
    tokens = morphemes(text)
    runs = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def first_number(text: str) -> str | None:
    """The first number, a fraction too, that does not number a line: "3/5입니다." -> "3/5"."""
    found = re.search(r"(?<![\d.])\d[\d,./:]*(?<![,.])(?!\d|\.\s)", text)
    return found and found[0]


def measures(rows: dict[str, dict]) -> dict[str, list[float]]:
    """For each measure one number a question, in the order of the questions."""
    tasks = questions()
    known = [row for row in rows.values() if row["labels"]]  # a free text has no reference
    labels = fmean(row["labels"] for row in known)
    total = sum(row["loss"] for row in known) / (labels * len(known))
    found = {
        # Its mean is the loss a token; a question counts by how far it pulls that mean.
        "loss": [total + (row["loss"] - total * row["labels"]) / labels for row in known],
        "rouge_l": [rouge_l(morphemes(rows[i]["reply"]), morphemes(t.output))
                    for i, t in tasks.items() if t.output],
        "ended": [float(row["ended"]) for row in rows.values()],
        "repeated": [repeated_part(row["reply"]) for row in rows.values()],
        "hangul": [hangul_share(rows[i]["reply"]) for i, t in tasks.items()
                   if t.meta["answer_lang"] == "ko"],
        "sums": [float(first_number(rows[i]["reply"]) == first_number(t.output))
                 for i, t in tasks.items() if t.meta["category"] == "수학"]}
    return found


def judged(games: list) -> dict:
    """What verdicts on pairs are worth whose a is the right one."""
    whole = summarize_battle(games, allow_invalid=True)
    said = [[v for v in (game.first, game.second) if v] for game in games]
    alone = {name: verdict_win_rate([getattr(game, name) for game in games], allow_invalid=True)
             for name in ("first", "second")}
    return {"pairs": len(games), "verdicts": sum(map(len, said)),
            "invalid": 2 * len(games) - sum(map(len, said)),
            "right": share([fmean(v == "a" for v in verdicts) for verdicts in said if verdicts]),
            "wrong": sum(v == "b" for verdicts in said for v in verdicts),
            "agree": round(whole.consistency, 4), **battled(whole),
            "shown_first": round(alone["first"].win_rate, 4),
            "shown_second": round(alone["second"].win_rate, 4)}


def battled(summary) -> dict:
    """A battle's numbers."""
    def rate(found):
        return found and {"value": round(found.value, 4), "n": found.n,
                          "interval": [round(edge, 4) for edge in found.interval]}

    names = ("n", "wins", "ties", "losses", "contradictions")
    return {**{name: getattr(summary, name) for name in names},
            "win_rate": round(summary.win_rate, 4),
            "interval": [round(edge, 4) for edge in summary.interval],
            "worst": round(summary.worst, 4), "best": round(summary.best, 4),
            "first_position": rate(summary.first_position), "longer": rate(summary.longer_answer)}


def measure() -> dict:
    """Every number that is quoted of the record."""
    found = {name: measures(rows) for name, rows in replies().items()}
    games = judge_all()
    kinds = {"all": games["known"]}
    for game in games["known"]:
        kinds.setdefault(game.id.partition("-")[0], []).append(game)
    return {
        "replies": {name: {key: share(values) for key, values in numbers.items()}
                    for name, numbers in found.items()},
        # Paired: what changed on the same questions, against the base model.
        "change": {name: {key: share([new - old for new, old in zip(values, found["base"][key],
                                                                    strict=True)])
                          for key, values in numbers.items()}
                   for name, numbers in found.items() if name != "base"},
        "judge": {kind: judged(some) for kind, some in kinds.items()},
        "battles": {name: {"invalid": sum((g.first is None) + (g.second is None)
                                          for g in games[name]),
                           **battled(summarize_battle(games[name], allow_invalid=True))}
                    for name in BATTLES}}


def check() -> dict:
    """Compute tasks, funnel and results anew from the journals; raises where they are others."""
    funnel = read_json("funnel.json")
    with tempfile.TemporaryDirectory() as folder:
        found, _ = generate(funnel["kept"], Path(folder) / "tasks.jsonl")
        assert found | {"seconds": funnel["seconds"]} == funnel
        assert read_tasks(Path(folder) / "tasks.jsonl") == read_tasks(REAL / "tasks.jsonl")
    assert measure() == (results := read_json("results.json"))
    return {"funnel": funnel, **results}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="check",
                        choices=("check", "teach", "train", "reply", "judge", "measure"))
    parser.add_argument("names", nargs="*", help="which of the models, or of the battles")
    parser.add_argument("--hours", type=float, default=1)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    options = parser.parse_args()
    names = options.names
    if options.part == "teach":
        teach(options.hours, options.url)
    elif options.part == "train":
        train_all(names or list(TUNED))
    elif options.part == "reply":
        reply_all(names or ["base", *TUNED])
    elif options.part == "judge":
        write_pairs()
        judge_all(options.url, tuple(names) or ("known", *BATTLES))
    elif options.part == "measure":
        write_json("results.json", measure())
    else:
        print(json.dumps(check(), ensure_ascii=False, indent=1))
