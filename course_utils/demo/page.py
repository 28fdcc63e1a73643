"""The demo page: a base model and the tuned one side by side on the same instruction.

    python -m course_utils.demo.page [--recipe R] [--adapter FOLDER] [--share]

The base model is in memory once and answers as a batch of two rows, of which PEFT gives the first
no adapter. The page asks nothing of the network, and makes no public link unless it is asked for.
Taught in 05; after the demo of Stanford Alpaca (Taori et al., 2023).
"""

import argparse
import os
import re
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import REPO, CourseError
from course_utils.collator import encode_prompts
from course_utils.inference import Generated, load_model, stop_ids
from course_utils.plumbing.colab import on_colab
from course_utils.plumbing.scrub import scrub
from course_utils.prompts import Template, get_template
from course_utils.session import BASE_MODEL, Course, setup
from course_utils.tasks import Task, read_tasks

if TYPE_CHECKING:
    import gradio as gr
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
# gradio 6.24 (Colab's) with Colab's fastapi forgets to await a function of its own.
warnings.filterwarnings("ignore", message="coroutine 'App.create_app", category=RuntimeWarning)

# Visitors take turns, token by token: two passes at a time would meet each other's hooks, which
# PEFT puts into the layers for one, and a tokenizer that two threads use may refuse.
_TURN = threading.Lock()

SIMULATED = (
    "**모의 모델입니다.** 파라미터가 몇백만 개뿐인 이 모델은 강의가 지어낸 작은 세계만 압니다. "
    "아래 예시와 비슷한 것을 물어보세요. 다른 질문에 하는 답은 아무 뜻이 없습니다.  \n"
    "*Simulated: this tiny model knows only its invented world. Ask it things like the examples.*")
INTRO = ("# 미세조정 전과 후\n같은 지시문을 두 모델에 동시에 보냅니다. '베이스'는 원래 모델, "
         "'미세조정'은 그 위에 어댑터를 얹은 모델입니다. "
         "*The same instruction to the base model and to the tuned one.*")
CSS = """
.gradio-container {max-width: 1080px !important; margin: 0 auto !important; word-break: keep-all}
.block.simulated {border-left: 4px solid #D55E00; padding: 2px 0 2px 12px}
"""


@dataclass(frozen=True)
class Duo:
    """A base model that carries an adapter, how both read a task, how long prompt and reply are."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    template: Template
    window: int  # in tokens; neither was trained on anything longer


def load_duo(course: Course, adapter: str | Path | None = None) -> Duo:
    """Load the course's base model with an adapter on it: a given one or the one of this run."""
    spec = course.recipe.train
    if adapter is None and spec.full:
        raise CourseError(f"The recipe '{course.recipe.name}' trains every weight and leaves no "
                          "adapter: choose one with lora_r above 0, or give --adapter.")
    adapter = adapter or course.artefact("train") / "adapter"
    model, tokenizer = load_model(course.base_model, adapter)
    return Duo(model, tokenizer, get_template(spec.template, tokenizer), spec.max_length)


def draw(logits: "torch.Tensor", temperature: float) -> list[int]:
    """Choose one token for each row of logits (rows, vocabulary): at temperature 0 the likeliest.

    Otherwise at random, with the probabilities of softmax(logits / temperature): below 1 the likely
    become likelier, above 1 the rare get their chance.
    """
    import torch

    if temperature == 0:
        return logits.argmax(-1).tolist()
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1).flatten().tolist()


def stream_both(duo: Duo, prompt: str, *, max_new_tokens: int = 64,
                temperature: float = 0.0) -> Iterator[tuple[Generated, Generated]]:
    """Yield what the base and the tuned model have written so far, after every token of either."""
    import torch

    stops = stop_ids(duo.tokenizer)
    with _TURN:
        new = torch.tensor(encode_prompts(duo.tokenizer, [prompt]) * 2, device=duo.model.device)
    written: list[list[int]] = [[], []]
    stopped, cache = [False, False], None
    while not all(stopped) and max(map(len, written)) < max_new_tokens:
        with _TURN, torch.inference_mode():
            # PEFT's names for "no adapter" and for the one that was loaded.
            output = duo.model(input_ids=new, past_key_values=cache, use_cache=True,
                               logits_to_keep=1, adapter_names=["__base__", "default"])
            cache = output.past_key_values
            tokens = draw(output.logits[:, -1].float(), temperature)
            new = torch.tensor(tokens, device=duo.model.device)[:, None]
            for row, token in enumerate(tokens):
                stopped[row] |= token in stops
                if not stopped[row]:
                    written[row].append(token)
            texts = [duo.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
        # Half a letter of Hangul, as byte tokens write it, is not shown until it is whole.
        texts = [text.rstrip("\ufffd").strip() for text in texts]
        yield tuple(map(Generated, texts, map(len, written), stopped))


def respond(duo: Duo, instruction: str, input: str, temperature: float,
            length: int) -> Iterator[tuple[str, str, str]]:
    """Yield (base's reply, tuned model's, notice) as they grow: what a click on the page does.
    Nothing is raised: whatever goes wrong becomes a Korean sentence in the notice."""
    if not (instruction or "").strip():
        yield "", "", "지시문이 비어 있습니다. 할 일을 적은 뒤 다시 눌러 주세요."
        return
    base = tuned = Generated("", 0, False)
    try:
        prompt = duo.template.render(Task(instruction, input or ""))
        with _TURN:
            tokens = len(encode_prompts(duo.tokenizer, [prompt])[0])
        room = duo.window - length
        if tokens > room:
            yield "", "", (f"글이 너무 깁니다. 프롬프트가 {tokens:,}토큰인데, 답변 길이를 "
                           f"{length:,}토큰으로 두면 {room:,}토큰까지 들어갑니다. 글을 "
                           f"{tokens - room:,}토큰만큼 줄이거나 답변 길이를 줄여 주세요.")
            return
        for base, tuned in stream_both(duo, prompt, max_new_tokens=length, temperature=temperature):
            yield base.text, tuned.text, "쓰는 중입니다 ..."
    except Exception as error:  # a visitor can do nothing with a stack trace
        print(scrub(f"The demo failed: {type(error).__name__}: {error}"), file=sys.stderr)
        yield base.text, tuned.text, (
            f"답을 쓰다가 문제가 생겼습니다({type(error).__name__}). 답변 길이나 글을 줄여 다시 "
            "눌러 보시고, 그래도 안 되면 페이지를 띄운 곳에 적힌 오류를 읽어 주세요.")
        return
    first, second = (f"{each.tokens:,}토큰, {'스스로 멈춤' if each.stopped else '길이 제한에 걸림'}"
                     for each in (base, tuned))
    yield base.text, tuned.text, f"베이스: {first} · 미세조정: {second}"


def example_tasks(course: Course, n: int = 6) -> list[Task]:
    """Return tasks to click on, of kinds as different as can be; none of them was trained on."""
    own_world = course.recipe.base_model == BASE_MODEL and course.data is None
    tasks = course.heldout() if own_world else read_tasks(REPO / "data" / "eval_tasks.jsonl")
    kinds = {task.meta.get("family") or task.meta.get("category"): task for task in tasks[::-1]}
    chosen = list(kinds.values())[::-1]
    return chosen[:: max(1, len(chosen) // n)][:n]


def label(task: Task) -> str:
    """The last sentence of an instruction, shortened: what the button of an example says."""
    return textwrap.shorten(re.split(r"(?<=[.?]) ", task.instruction)[-1], 34, placeholder=" …")


def build_page(duo: Duo, course: Course) -> "gr.Blocks":
    """Return the page for models that are loaded; `launch` puts it on an address."""
    import gradio as gr

    examples, longest = example_tasks(course), duo.window // 2
    usual = min(course.recipe.evaluate.max_new_tokens, longest)
    with gr.Blocks(title="미세조정 전과 후") as page:
        gr.Markdown(INTRO)
        if course.recipe.base_model == BASE_MODEL:
            gr.Markdown(SIMULATED, elem_classes="simulated")
        instruction = gr.Textbox(label="지시문 Instruction", lines=2, elem_id="instruction",
                                 placeholder="할 일을 적어 주세요.")
        material = gr.Textbox(label="입력 Input (없어도 됩니다)", lines=2, elem_id="input")
        gr.Examples([[task.instruction, task.input] for task in examples], [instruction, material],
                    label="예시 Examples", example_labels=[label(task) for task in examples])
        with gr.Row():
            temperature = gr.Slider(0, 1.5, 0, step=0.1, label="온도 Temperature", min_width=260,
                                    info="높을수록 뜻밖의 말을 합니다.")
            length = gr.Slider(8, longest, usual, step=8, label="답변 길이 Length", min_width=260,
                               info="답변마다 최대 토큰 수입니다.")
        with gr.Row():
            ask = gr.Button("묻기 Ask", variant="primary", elem_id="ask", scale=3)
            stop = gr.Button("멈추기 Stop", elem_id="stop", scale=1)
        notice = gr.Markdown(" ", elem_id="notice")
        with gr.Row():
            shape = {"lines": 4, "max_lines": 20, "interactive": False, "min_width": 260}
            base = gr.Textbox(label="베이스 Base", elem_id="base", **shape)
            tuned = gr.Textbox(label="미세조정 Tuned", elem_id="tuned", **shape)
        # A second click while a reply grows is ignored; other visitors wait for their turn.
        asked = ask.click(partial(respond, duo), [instruction, material, temperature, length],
                          [base, tuned, notice], show_progress="hidden", api_name="ask")
        stop.click(lambda: "멈췄습니다.", None, notice, cancels=[asked], queue=False,
                   api_visibility="private")
    return page.queue(max_size=16)


def only_own_names(app: Any, page: "gr.Blocks") -> Any:
    """Return an ASGI app that answers only who comes by one of the page's own names: a site in the
    same browser may have its name point here (DNS rebinding) or post to this address, and then Host
    or Origin is that site's."""
    from starlette.responses import PlainTextResponse

    refused = PlainTextResponse("This page answers under its own address only.", 403)
    # Colab's proxy: no browser runs on that machine, and these names are Google's.
    proxy = (".googleusercontent.com", ".colab.dev")
    bare = partial(re.sub, r"^https?://|:\d+$", "")

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        own = ("localhost", "127.0.0.1", "[::1]", page.server_name, bare(page.share_url or "[::1]"))
        named = [bare(value.decode("latin-1").lower())
                 for name, value in scope.get("headers", ()) if name in (b"host", b"origin")]
        admitted = scope["type"] != "http" or named and all(
            name in own or on_colab() and name.endswith(proxy) for name in named)
        await (app if admitted else refused)(scope, receive, send)

    return answer


def launch(page: "gr.Blocks", *, share: bool = False, **options: Any) -> str:
    """Put the page on an address and return it; `options` go to gradio's `launch`."""
    import gradio as gr
    from starlette.middleware import Middleware

    if share:
        print("The share link is public: anybody who has it can use this model until you stop it.")
    fonts = ("system-ui", "Noto Sans KR", "Malgun Gothic", "sans-serif")  # fetched from nowhere
    theme = gr.themes.Default(primary_hue="blue", font=fonts, font_mono="monospace")
    page.launch(share=share, quiet=True, ssr_mode=False, prevent_thread_lock=True, footer_links=[],
                theme=theme, css=CSS, head="<script>document.documentElement.lang = 'ko'</script>",
                app_kwargs={"middleware": [Middleware(only_own_names, page)]}, **options)
    return page.share_url or page.local_url


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m course_utils.demo.page")
    parser.add_argument("--recipe", default="auto", help="a recipe's name or file")
    parser.add_argument("--adapter", help="an adapter's folder; default: the one of this run")
    parser.add_argument("--share", action="store_true", help="also make a public link")
    options = parser.parse_args(arguments)
    try:
        course = setup(options.recipe)
        page = build_page(load_duo(course, options.adapter), course)
        print(f"The demo is at {launch(page, share=options.share)}  (Ctrl-C stops it)")
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    page.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
