"""The demo: both replies are those of the models alone, and a page that nothing can break.

The page is driven in a headless Chromium where the machine has one; everything else always runs.
"""

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest

from course_utils import REPO, CourseError
from course_utils.collator import encode_prompts
from course_utils.demo import page as demo
from course_utils.demo.page import draw, example_tasks, launch, respond, stream_both
from course_utils.inference import generate, load_model
from course_utils.session import setup
from course_utils.tasks import Task

ADAPTER = REPO / "assets" / "sample" / "train" / "adapter"
LONG = "전주의 특산물을 알려 주세요. " * 200


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return setup("offline", root=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def duo(course):
    return demo.load_duo(course, ADAPTER)


@pytest.fixture(scope="module")
def task(course):
    return example_tasks(course)[0]


class Address(str):
    """The address of a page, and the page."""


@pytest.fixture(scope="module")
def address(duo, course):
    """The page on this machine, where every connection to anywhere else is refused and noted."""
    outside, connect = [], socket.socket.connect

    def only_here(self, where):
        network = self.family in (socket.AF_INET, socket.AF_INET6)
        if network and where[0] not in ("127.0.0.1", "::1"):
            outside.append(where)
            raise OSError("no network in this test")
        return connect(self, where)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", only_here)
    page = demo.build_page(duo, course)
    found = Address(launch(page))
    found.page = page
    yield found
    page.close(verbose=False)
    patch.undo()
    assert outside == []


def last(stream):
    *_, end = stream
    return end


# --- the two replies ---------------------------------------------------------------------------


def test_each_row_says_what_its_model_says_alone(duo, course):
    prompts = [duo.template.render(task) for task in example_tasks(course, 4)]
    alone = [load_model(course.base_model, adapter) for adapter in (None, ADAPTER)]
    wanted = [generate(*loaded, prompts, max_new_tokens=16, batch_size=1) for loaded in alone]
    streamed = [last(stream_both(duo, prompt, max_new_tokens=16)) for prompt in prompts]
    assert streamed == list(zip(*wanted, strict=True))
    assert any(base != tuned for base, tuned in streamed)


def test_both_grow_a_token_at_a_time_and_stop_by_themselves(duo, task):
    steps = list(stream_both(duo, duo.template.render(task), max_new_tokens=40))
    for before, after in zip(steps, steps[1:], strict=False):
        for old, new in zip(before, after, strict=True):
            assert 0 <= new.tokens - old.tokens <= 1 and new.text.startswith(old.text[:-1])
    base, tuned = steps[-1]
    assert tuned.stopped and tuned.text == task.output
    assert base.tokens == 40 and not base.stopped


def test_a_letter_is_shown_when_it_is_whole(duo, course):
    import torch

    torch.manual_seed(0)
    for task in example_tasks(course, 3):
        prompt = duo.template.render(task)
        for pair in stream_both(duo, prompt, max_new_tokens=24, temperature=1.5):
            assert not any(reply.text.endswith("\ufffd") for reply in pair)


def test_draw_is_the_likeliest_at_0_and_follows_the_softmax_above():
    import torch

    logits = torch.tensor([[0.0, 1.0, 2.0]])
    assert draw(logits, 0) == [2]
    torch.manual_seed(0)
    for temperature in (0.5, 1.0, 1.5):
        tokens = torch.tensor(draw(logits.expand(20_000, 3), temperature))
        shares = torch.bincount(tokens, minlength=3) / len(tokens)
        assert torch.allclose(shares, torch.softmax(logits[0] / temperature, 0), atol=0.015)


def test_two_visitors_at_once_get_what_each_would_get_alone(duo, course):
    prompts = [duo.template.render(task) for task in example_tasks(course, 4)]

    def answer(prompt):
        return last(stream_both(duo, prompt, max_new_tokens=12))

    alone = [answer(prompt) for prompt in prompts]
    with ThreadPoolExecutor(8) as together:  # tokenizers 0.22: "Already borrowed" without turns
        assert list(together.map(answer, prompts * 2)) == alone * 2


# --- what a click does -------------------------------------------------------------------------


def test_a_click_ends_with_both_replies_and_how_they_ended(duo, task):
    steps = list(respond(duo, task.instruction, task.input, 0, 24))
    assert len(steps) > 5 and steps[0][2].startswith("쓰는 중")
    base, tuned, notice = steps[-1]
    assert tuned == task.output and base not in ("", tuned)
    assert "24토큰, 길이 제한에 걸림" in notice and "스스로 멈춤" in notice


def prompt_tokens(duo, instruction):
    return len(encode_prompts(duo.tokenizer, [duo.template.render(Task(instruction))])[0])


def test_too_long_a_text_is_refused_with_counts_and_the_longest_that_fits_is_not(duo):
    room = duo.window - 8
    texts = ["가나다라" * n for n in range(1, 300)]
    over = next(n for n, text in enumerate(texts) if prompt_tokens(duo, text) > room)
    ((base, tuned, notice),) = respond(duo, texts[over], "", 0, 8)
    have = prompt_tokens(duo, texts[over])
    assert (base, tuned) == ("", "")
    assert f"{have}토큰인데" in notice and f"{room}토큰까지" in notice
    assert f"{have - room}토큰만큼" in notice
    assert "미세조정: " in last(respond(duo, texts[over - 1], "", 0, 8))[2]


@pytest.mark.parametrize("nothing", ["", "  \n ", None])
def test_an_empty_instruction_is_refused(duo, nothing):
    assert [row[:2] for row in respond(duo, nothing, "밥 먹었어?", 0, 8)] == [("", "")]
    assert "비어 있습니다" in last(respond(duo, nothing, "", 0, 8))[2]


def test_whatever_fails_becomes_a_sentence_and_keeps_what_was_written(duo, task, monkeypatch):
    import torch

    whole = stream_both

    def breaks(*arguments, **options):
        yield next(whole(*arguments, **options))
        raise failures[0]

    monkeypatch.setattr(demo, "stream_both", breaks)
    failures = [RuntimeError("secret path /x"), torch.OutOfMemoryError("CUDA")]
    for said in ("문제가 생겼습니다(RuntimeError)", "(OutOfMemoryError). 답변 길이나 글을 줄여"):
        steps = list(respond(duo, task.instruction, task.input, 0, 8))
        assert said in steps[-1][2] and steps[-1][:2] == steps[-2][:2]
        assert "/x" not in steps[-1][2]
        failures.pop(0)


@pytest.mark.parametrize("length, temperature", [(0, 0), (-5, 0), (8, -1), (None, 0), (8, None)])
def test_no_number_that_only_a_program_can_send_breaks_it(duo, task, length, temperature):
    assert last(respond(duo, task.instruction, "\ud83d", temperature, length))[2]


# --- the page ----------------------------------------------------------------------------------


def test_the_server_streams_both_and_answers_one_after_the_other(address, duo, task):
    from gradio_client import Client

    client = Client(address, verbose=False, analytics_enabled=False)
    job = client.submit(task.instruction, task.input, 0, 16, api_name="/ask")
    second = client.submit(LONG, "", 0, 16, api_name="/ask")
    base, tuned, _ = job.result(timeout=60)
    assert len(job.outputs()) > 5 and tuned == task.output and base
    assert "너무 깁니다" in second.result(timeout=60)[2]
    api = client.view_api(return_format="dict", print_info=False)
    assert list(api["named_endpoints"]) == ["/ask"]


@pytest.mark.parametrize(("host", "origin", "status"), [
    ("127.0.0.1:7860", None, 200), ("LOCALHOST", "http://localhost:1", 200), ("[::1]:1", None, 200),
    ("abc.gradio.live", "https://abc.gradio.live", 200), ("other.gradio.live", None, 403),
    ("evil.example", None, 403), ("localhost.evil.example:7860", None, 403), ("", None, 403),
    ("evil.example@localhost", None, 403), ("localhost:1@evil.example", None, 403),
    ("localhost", "https://evil.example", 403), ("localhost", "null", 403), ("-", None, 403),
    ("7860-abc-colab.googleusercontent.com", None, 403),
])
def test_only_its_own_names_are_answered(address, duo, monkeypatch, host, origin, status):
    """Else any site open in the same browser could use the model: by its DNS, or by a form."""
    page = address.page
    monkeypatch.setattr(page, "share_url", "https://abc.gradio.live")
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    nothing = {"data": ["", "", 0, 8]}
    asked = httpx.post(f"{address}gradio_api/call/ask", json=nothing, headers=headers)
    assert asked.status_code == httpx.get(address, headers=headers).status_code == status
    if host.endswith("googleusercontent.com"):
        monkeypatch.setenv("COLAB_RELEASE_TAG", "release")  # where it is Colab's own proxy
        assert httpx.get(address, headers=headers).status_code == 200


def ask(page, until):
    """Click as an impatient visitor does, again and again, until the notice says this."""
    page.wait_for_function("until => document.querySelector('#notice').innerText.includes(until)"
                           " || (document.querySelector('#ask').click(), false)",
                           arg=until, polling=100)  # fmt: skip


def field(page, name):
    return page.locator(f"#{name} textarea")


def holds(page, name, text):
    page.wait_for_function("([name, text]) => document.querySelector(`#${name} textarea`).value "
                           "== text", arg=[name, text])  # fmt: skip


@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser(visit, address, course, task, width):
    page = visit(address, width=width)
    page.wait_for_selector("#ask")
    page.wait_for_function("document.documentElement.lang == 'ko'")
    assert "모의 모델입니다" in page.inner_text("body")

    ask(page, until="비어 있습니다")

    page.locator("button", has_text=demo.label(task)).first.click()
    holds(page, "instruction", task.instruction)
    holds(page, "input", task.input)
    ask(page, until="멈춤")
    assert field(page, "tuned").input_value() == task.output
    assert field(page, "base").input_value()

    field(page, "instruction").fill(LONG)
    ask(page, until="너무 깁니다")
    assert field(page, "tuned").input_value() == field(page, "base").input_value() == ""

    assert page.complaints == []
    assert [r for r in page.asked if not r.startswith((address, "data:", "blob:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_share_link_is_made_only_when_asked_for_and_with_a_warning(capsys):
    asked, page = [], SimpleNamespace(share_url=None, local_url="here")
    page.launch = lambda **options: asked.append(options["share"])
    assert launch(page) == "here" and capsys.readouterr().out == ""
    launch(page, share=True)
    assert asked == [False, True] and "public" in capsys.readouterr().out


# --- what cannot be shown ----------------------------------------------------------------------


def test_a_missing_adapter_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RUNS", str(tmp_path))
    assert demo.main(["--recipe", "offline", "--adapter", str(tmp_path / "none")]) == 1
    assert "has no adapter_config.json" in capsys.readouterr().err


def test_a_recipe_that_trains_every_weight_has_no_adapter_to_compare(course):
    full = replace(course, recipe=course.recipe.replace("train.lora_r", 0))
    with pytest.raises(CourseError, match="lora_r above 0"):
        demo.load_duo(full)


def test_examples_come_from_the_world_of_the_model_and_else_from_the_evaluation_tasks(course):
    assert len({task.meta["family"] for task in example_tasks(course)}) == 6
    real = replace(course, recipe=course.recipe.replace("base_model", "google/gemma-2b-it"))
    tasks = example_tasks(real)
    assert len({task.meta["category"] for task in tasks}) == len(tasks) == 6
