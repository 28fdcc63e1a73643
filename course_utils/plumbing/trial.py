"""Does training work with what is installed here? One LoRA step of a model that is made up for it.

    python -m course_utils.plumbing.trial      # nothing, or which package refuses and what to do

An image may hold a package that ours refuse, most as late as the first LoRA layer.
"""

import functools
import importlib.metadata
import re
import subprocess
import sys
import traceback

from course_utils import REPO
from course_utils.plumbing.colab import installed, name_of

STACK = ("torch", "transformers", "peft", "accelerate", "datasets", "trl")
OLDER_IMAGE = "choose an earlier Runtime version (Runtime > Change runtime type), report this line"


def training_step(attention: str = "sdpa", device: str = "cpu") -> None:
    """Take one LoRA step with a two-layer Llama of random weights; raise what a library raises."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=64, hidden_size=128, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1)
    config._attn_implementation = attention
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(target_modules="all-linear"))
    model.to(device, torch.float32 if device == "cpu" else torch.bfloat16)
    optimizer = torch.optim.AdamW(weight for weight in model.parameters() if weight.requires_grad)
    ids = torch.arange(32, device=device).reshape(2, 16)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    if device != "cpu":
        torch.cuda.synchronize()
    from trl import SFTTrainer  # noqa: F401, the slowest to load comes last


def refusal() -> str | None:
    """Return which package refuses to train here and what to do, in one sentence; None if none.

    It is tried in another process, once for what is installed: no half-loaded library stays here.
    """
    return _refusal(frozenset(installed().items()))


@functools.cache
def _refusal(packages: frozenset[tuple[str, str]]) -> str | None:
    command = [sys.executable, "-m", "course_utils.plumbing.trial"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    if done.returncode == 1 and done.stdout.strip():
        return done.stdout.strip().split("\n")[-1]
    if done.returncode == 0:
        return None
    return f"Python ended in the middle of one step (code {done.returncode}): {OLDER_IMAGE}."


def explain(error: Exception) -> str:
    """Return an error out of a library as one sentence: who refuses what, and what to do."""
    message, here = " ".join(str(error).split())[:200].rstrip("."), installed()
    modules = [frame.f_globals.get("__name__", "").split(".")[0]
               for frame, _ in traceback.walk_tb(error.__traceback__)]
    who = ["course_utils", *(module for module in modules if module in STACK)][-1]
    named = re.search(r"version of ([A-Za-z][\w.-]*)", message)
    refused = name_of(named[1]) if named else ""
    needed = {name_of(line) for name in STACK for line in importlib.metadata.requires(name) or ()
              if "extra ==" not in line} | set(STACK)  # fmt: skip
    if refused in here.keys() - needed:
        return (f"{refused} {here[refused]} is refused by {who} {here.get(who)} ({message}): run "
                f"`%pip uninstall -y {refused}` in a cell, then this cell again.")
    return (f"{who} {here.get(who)} does not train here ({type(error).__name__}: {message}): "
            f"{OLDER_IMAGE}.")


if __name__ == "__main__":
    try:
        training_step()
    except Exception as error:  # whatever it is, it is told
        print(explain(error))
        sys.exit(1)
