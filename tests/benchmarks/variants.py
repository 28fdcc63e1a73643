"""Replies of three ways to train the tiny Gemma on one set of tasks, for the battles of 03.

    python tests/benchmarks/variants.py

Trains on the sample's tasks as the offline recipe says, but on the prompt as well, or with rank 16;
the third is the sample's own adapter (rank 4, loss on the response). Writes their greedy replies to
the held-out tasks of the small world to assets/sample/variants.jsonl.
"""

import json
import tempfile

from tuning import masked

from course_utils import REPO
from course_utils.collator import encode_tasks
from course_utils.inference import load_model, reply
from course_utils.offline.world import heldout_tasks
from course_utils.prompts import get_template
from course_utils.session import setup
from course_utils.tasks import read_tasks, write_atomic
from course_utils.train import train

SAMPLE = REPO / "assets" / "sample"
WAYS = {"everything": ("everything", {}), "rank 16": ("response", {"train.lora_r": 16})}


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        course = setup("offline", root=root)
        _, tokenizer = load_model(course.base_model)
        template = get_template(course.recipe.train.template, tokenizer)
        tasks = read_tasks(SAMPLE / "preprocess" / "tasks.jsonl")
        rows, _ = encode_tasks(tokenizer, tasks, template, course.recipe.train.max_length)
        adapters = {"response": SAMPLE / "train" / "adapter"}
        for name, (mask, changes) in WAYS.items():
            recipe = course.recipe
            for key, value in changes.items():
                recipe = recipe.replace(key, value)
            trained = train(recipe, course.store, rows=masked(rows, mask), progress=False,
                            step=name.replace(" ", "-"))
            adapters[name] = trained.adapter
        prompts = [template.render(task) for task in heldout_tasks(30)]
        lines = []
        for name, adapter in adapters.items():
            model, _ = load_model(course.base_model, adapter)
            said = reply(model, tokenizer, prompts, batch_size=course.recipe.evaluate.batch_size,
                         max_new_tokens=course.recipe.evaluate.max_new_tokens)
            lines += [json.dumps({"way": name, "reply": text}, ensure_ascii=False) for text in said]
    write_atomic(SAMPLE / "variants.jsonl", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
