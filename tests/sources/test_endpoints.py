"""Who is asked: the entries, what auto takes, the whole loop against each provider's dialect."""

import json
import os
import re

import dialects
import pytest

from course_utils import REPO, CourseError, session
from course_utils.generate import generate_tasks
from course_utils.inference import Device
from course_utils.judge import Item, Judge
from course_utils.llm import LLM, Request
from course_utils.offline import world
from course_utils.plumbing import colab, connection, scrub, secrets
from course_utils.plumbing.entries import EndpointError, entries, fill, retirement
from course_utils.plumbing.secrets import BadSecret
from course_utils.recipe import Endpoint, RecipeError, load_recipe
from course_utils.session import setup
from course_utils.sources.endpoints import choose, located, named, terms
from course_utils.stats import summarize_battle
from course_utils.tasks import read_tasks

AUTO = Endpoint(endpoint="auto")
SEEDS = read_tasks(REPO / "data" / "seed_tasks.jsonl")
KEYS = [entry["secret"] for entry in entries().values() if "secret" in entry]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch, tmp_path):
    """No key, no proxy, nobody at the keyboard, an empty folder."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in (*KEYS, "TEACHER", "JUDGE", "RECIPE", "PRESET", "DATA", "MODEL_PROXY_HOST",
                 "LOCAL_URL", "OPENAI_BASE_URL", "COLAB_RELEASE_TAG", "HF_TOKEN"):  # fmt: skip
        os.environ.pop(name, None)
    os.environ["RUNS"] = str(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(secrets, "REPO", tmp_path)
    monkeypatch.setattr(scrub, "_found", {})
    monkeypatch.setattr(secrets, "can_ask", lambda: False)
    monkeypatch.setattr(colab, "_silent_since", float("-inf"))
    monkeypatch.setattr(session, "find_device", lambda: Device("cpu", "CPU, 2 cores"))
    monkeypatch.setattr(session, "PACKAGES", ())
    monkeypatch.setattr(session, "_exported", {})


def keys(*names):
    for name in names:
        os.environ[name] = f"planted-key-of-{name.lower()}"


# --- the file -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", entries())
def test_each_entry_says_what_a_student_must_know(name):
    entry = entries()[name]
    assert entry["data"] and entry["checked"].isoformat() >= "2026-11-01"
    assert isinstance(entry["models"], dict) and ("list" in entry or entry["models"])
    for model in entry["models"]:
        filled = Endpoint(**fill({"endpoint": name, "model": model}, "teacher"))
        assert terms(filled)
        if name not in ("local", "offline", "openai"):
            assert filled.rpm  # nobody's free tier is run into
    assert entry.get("judge") in (None, *entry["models"])
    for known in entry.get("retired", {}).values():
        assert known["successor"] in entry["models"]


def test_an_entry_gives_a_model_and_its_terms():
    luna, terra = named("openai", "teacher"), named("openai", "judge")
    assert (luna.model, luna.price, luna.params) == (
        "gpt-6-luna", (0.1, 0.5), {"reasoning_effort": "none"})
    assert (terra.model, terra.price) == ("gpt-6.1-terra", (1, 5))
    assert terms(luna) == "$0.10 in and $0.50 out a million tokens, 500 requests a minute"
    other = named("openai:gpt-7-of-next-year", "teacher")
    assert other.params == {} and "price not known" in terms(other)
    free = named("openrouter:openai/gpt-oss-120b:free", "teacher")
    assert free.model == "openai/gpt-oss-120b:free" and "free" in terms(free)
    assert "price not known" in terms(named("openrouter:openai/gpt-4o", "teacher"))
    assert named("gemini:gemini-3.5-flash", "judge").rpm == 5


@pytest.mark.parametrize(("said", "environment", "price"), [
    ({}, "", (0.1, 0.5)), ({}, "https://api.openai.com/v1", (0.1, 0.5)),
    ({}, "http://127.0.0.1:9/v1", None), ({"base_url": "https://gateway.example/v1"}, "", None),
    ({"price": [1, 2]}, "http://127.0.0.1:9/v1", (1, 2))])
def test_a_price_holds_at_its_own_address_alone(said, environment, price):
    os.environ["OPENAI_BASE_URL"] = environment
    endpoint = Endpoint(**fill({"endpoint": "openai", **said}, "teacher"))
    assert endpoint.price == price and ("price not known" in terms(endpoint)) == (price is None)


def test_retired_models_name_their_successors(capsys):
    assert retirement("gpt-6-luna") is None
    assert "gpt-4o-mini ends on 2027-01-14; openai's successor is gpt-6-luna" in retirement(
        "gpt-4o-mini")
    for name in ("gpt-4o-2024-08-06", "openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18"):
        assert "successor is gpt-6" in retirement(name)
    assert named("openai:gpt-4o", "judge").price == (2.5, 10)  # while it lasts, the budget holds
    keys("OPENAI_API_KEY")
    os.environ |= {"RECIPE": "gemma-2b-l4", "TEACHER": "openai:gpt-4o-mini"}
    setup()
    assert "successor is gpt-6-luna" in capsys.readouterr().out


def test_a_journal_of_a_retired_model_is_read_and_its_successor_named(tmp_path, capsys):
    record = {"key": "k", "model": "gpt-4o-mini", "text": "네", "finish_reason": "stop",
              "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    (tmp_path / "journal.jsonl").write_text(json.dumps(record) + "\n")
    keys("OPENAI_API_KEY")
    os.environ |= {"RECIPE": "gemma-2b-l4", "TEACHER": "openai"}
    teacher = setup().llm("teacher", journal=tmp_path / "journal.jsonl")
    assert teacher.journal.get("k")["text"] == "네" and teacher.model == "gpt-6-luna"
    assert "replies of another model. gpt-4o-mini ends on" in capsys.readouterr().out


# --- auto ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(("there", "teacher", "judge"), [
    (["OPENAI_API_KEY"], "openai:gpt-6-luna", "openai:gpt-6.1-terra"),
    (["GEMINI_API_KEY"], "gemini:gemini-3.1-flash-lite", "gemini:gemini-3.1-flash-lite"),
    (["GROQ_API_KEY"], "groq:openai/gpt-oss-120b", "groq:qwen/qwen3.6-27b"),
    (["OPENAI_API_KEY", "GROQ_API_KEY"], "openai:gpt-6-luna", "groq:qwen/qwen3.6-27b"),
    (["GROQ_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY"], "openai:gpt-6-luna",
     "gemini:gemini-3.1-flash-lite"),
    (["OPENROUTER_API_KEY"], "auto:", "auto:"),
])
def test_auto_takes_the_first_key_and_a_judge_of_another_family(there, teacher, judge):
    keys(*there)
    *both, said = choose(AUTO, AUTO)
    assert [f"{e.endpoint}:{e.model}" for e in both] == [teacher, judge]
    assert any(f"{key} is set" == said for key in there) or "none of OPENAI_API_KEY" in said


def test_teacher_and_judge_of_the_environment_come_first():
    keys("OPENAI_API_KEY", "GROQ_API_KEY")
    os.environ |= {"TEACHER": "groq:llama-3.3-70b-versatile"}
    teacher, judge, _ = choose(AUTO, AUTO)
    assert (teacher.model, judge.endpoint) == ("llama-3.3-70b-versatile", "openai")
    os.environ |= {"TEACHER": "offline", "JUDGE": "groq"}
    teacher, judge, _ = choose(AUTO, AUTO)
    assert teacher.simulated and judge.model == "qwen/qwen3.6-27b"
    os.environ.pop("JUDGE")
    assert choose(AUTO, AUTO)[1].model == "simulated-judge"


def test_a_real_teacher_does_not_share_a_run_with_the_simulated_one(capsys):
    keys("GROQ_API_KEY")
    simulated = setup("offline")
    os.environ["TEACHER"] = "groq"
    real = setup("offline")
    assert (simulated.store.run, real.store.run) == ("offline", "offline-groq")
    assert simulated.simulated and not real.simulated
    assert not real.truth(real.heldout()[0])


@pytest.mark.parametrize(("device", "token", "recipe"), [
    (Device("cuda", "Tesla T4", 14.7, (7, 5)), True, "midm-2b-t4"),
    (Device("cuda", "NVIDIA L4", 22.0, (8, 9)), True, "gemma-2b-l4"),
    (Device("cuda", "NVIDIA L4", 22.0, (8, 9)), False, "midm-2b-l4"),
    (Device("cuda", "NVIDIA H100", 79.0, (9, 0)), False, "midm-2b-l4"),
    (Device("cuda", "NVIDIA RTX 4080", 15.6, (8, 9)), False, "midm-2b-t4"),
    (Device("cuda", "NVIDIA MX150", 2.0, (6, 1)), False, "offline"),
    (Device("cpu", "CPU"), True, "offline"),
])
def test_auto_takes_the_recipe_that_fits_the_gpu(monkeypatch, device, token, recipe):
    monkeypatch.setattr(session, "find_device", lambda: device)
    keys("OPENAI_API_KEY", *["HF_TOKEN"] * token)
    course = setup()
    assert course.recipe.name == recipe
    assert course.simulated == (recipe == "offline")


def test_a_token_added_later_does_not_begin_another_run(monkeypatch, capsys):
    monkeypatch.setattr(session, "find_device", lambda: Device("cuda", "L4", 22.0, (8, 9)))
    keys("OPENAI_API_KEY")
    setup().store.local("train")
    keys("HF_TOKEN")
    assert setup().recipe.name == "midm-2b-l4"
    assert "begun before; OPENAI_API_KEY is set" in capsys.readouterr().out
    setup("gemma-2b-l4").store.local("train")  # asked for: begun as well
    assert setup().recipe.name == "gemma-2b-l4"


def test_a_recipe_asked_for_with_nobody_to_ask_trains_but_does_not_generate(capsys):
    course = setup("gemma-2b-l4")
    assert "Teacher     MISSING. There is nobody to ask" in capsys.readouterr().out
    with pytest.raises(EndpointError, match="none of OPENAI_API_KEY, .* TEACHER=local"):
        course.llm("teacher")


# --- keys with something in them ------------------------------------------------------------------
@pytest.mark.parametrize(("key", "what"), [
    ("sk-abc\ndef-123456", "line break, number 7"),
    ("sk-abcdef-123456\n", "line break, number 17"),
    ("sk-abc def-123456", "space, number 7"),
    ("\u00a0sk-abcdef-123456", "no-break space, number 1"),
    ("sk-abc\u200bdef-123456", "zero width space, number 7"),
    ("\ufeffsk-abcdef-123456", "zero width no-break space, number 1"),
    ("sk-abcdef키123456", "hangul syllable ki, number 10"),
    ("sk-abcdef–123456", "en dash, number 10"),
])
def test_a_key_that_no_key_can_be_is_named_where_it_is_found(key, what):
    os.environ["OPENAI_API_KEY"] = key
    what = f"has a character that no key has .{what}.:"
    for ask in (lambda: choose(AUTO, AUTO), lambda: setup("gemma-2b-l4")):
        with pytest.raises(BadSecret, match=f"OPENAI_API_KEY {what}") as error:
            ask()
        assert "123456" not in str(error.value) and "abc" not in str(error.value)
    with pytest.raises(BadSecret, match=f"API key for https://api.example.org/v1 {what}"):
        llm = LLM("m", base_url="https://api.example.org/v1", api_key=key)
        list(llm.complete([Request([{"role": "user", "content": "a"}])]))


# --- Colab's own models ---------------------------------------------------------------------------
@pytest.fixture
def proxy():
    with dialects.Colab() as server:
        os.environ |= {"MODEL_PROXY_HOST": server.host, "MODEL_PROXY_API_KEY": server.key}
        yield server


def test_a_student_with_nothing_has_colabs_models(monkeypatch, proxy, capsys):
    monkeypatch.setattr(session, "find_device", lambda: Device("cuda", "T4", 14.7, (7, 5)))
    course = setup()
    assert course.recipe.name == "midm-2b-t4"
    assert course.recipe.teacher.model == "google/gemini-2.5-flash"
    card = capsys.readouterr().out
    assert "google/gemini-2.5-flash at colab (free within the provider's limits, 10" in card
    assert "(auto: a T4 or the like; Colab lends its models)" in card
    assert "the teacher's own family" in card and "Sent data   colab: not known" in card
    proxy.models = ("google/\x1b[31m", "google/gemini-9-flash")  # none that the file knows
    assert choose(AUTO, AUTO)[0].model == "google/gemini-9-flash"


@pytest.mark.parametrize(("status", "models", "said"), [
    (401, ["m"], "does not list its models: .*401"), (403, ["m"], "403"),
    (200, [], "offers no model")])
def test_a_proxy_that_refuses_leaves_the_offline_recipe(monkeypatch, proxy, status, models, said):
    monkeypatch.setattr(session, "find_device", lambda: Device("cuda", "T4", 14.7, (7, 5)))
    proxy.shut, proxy.models = status, models
    course, why = session._find_course("auto", None)
    assert course.recipe.name == "offline"
    assert re.search(said, why)
    os.environ["TEACHER"] = "colab"
    course = setup("midm-2b-t4")
    with pytest.raises(EndpointError, match=said):
        course.llm("teacher")


def test_a_proxy_that_never_answers_is_waited_for_once(monkeypatch):
    """`setup` asks for its models several times: for the teacher, for the judge, for the card."""
    asked = []
    monkeypatch.setattr(connection, "within", lambda seconds, *_: asked.append(seconds) or late())
    os.environ |= {"MODEL_PROXY_HOST": "http://127.0.0.1:9", "TEACHER": "colab",
                   "MODEL_PROXY_API_KEY": "planted-key-of-colab"}

    def late():
        raise TimeoutError("no whole answer")

    course = setup("midm-2b-t4")
    with pytest.raises(EndpointError, match="does not list its models: .*no whole answer"):
        course.llm("teacher")
    assert asked == [4]


def test_colabs_proxy_outside_colab_is_one_sentence():
    keys("MODEL_PROXY_API_KEY")
    with pytest.raises(EndpointError, match="MODEL_PROXY_HOST is not set"):
        located(named("colab", "teacher"), "teacher")


# --- dialects -------------------------------------------------------------------------------------
DIALECTS = {
    "openai": (dialects.OpenAI, "OPENAI_API_KEY", "/v1"),
    "gemini": (dialects.Gemini, "GEMINI_API_KEY", "/v1beta/openai/"),
    "groq": (dialects.Groq, "GROQ_API_KEY", "/openai/v1"),
    "colab": (dialects.Colab, "MODEL_PROXY_API_KEY", "/models/openapi"),
    "local": (dialects.ThinkingAloud, "LLM_API_KEY", "/v1"),
}


def speaks(monkeypatch, server, name, path):
    """Have an entry's address lead to a server on loopback, which is teacher and judge."""
    os.environ |= {"TEACHER": name, "JUDGE": name, "OPENAI_BASE_URL": server.host + path,
                   "MODEL_PROXY_HOST": server.host, "LOCAL_URL": server.host + path}
    entry = dict(entries()[name], rpm=6000)
    if entry["base_url"] and "${" not in entry["base_url"]:
        entry["base_url"] = server.host + path
    changed = entries.__wrapped__() | {name: entry}
    monkeypatch.setattr("course_utils.plumbing.entries.entries", lambda: changed)


@pytest.fixture(params=DIALECTS)
def provider(request, monkeypatch):
    """A provider's dialect on loopback."""
    kind, key, path = DIALECTS[request.param]
    with kind() as server:
        os.environ[key] = server.key
        speaks(monkeypatch, server, request.param, path)
        yield server


def test_the_loop_and_the_judge_go_through_against_each_provider(provider, tmp_path, capsys):
    items = [Item(f"q{i}", f"{task.instruction}\n\n{task.input}", answer=task.output,
                  a=task.output, b="모르겠습니다.")
             for i, task in enumerate(world.sample_tasks(8, split="heldout", seed=3))]  # fmt: skip

    def run():
        course = setup("offline")
        teacher = course.llm("teacher", journal=tmp_path / "teacher.jsonl", backoff=0.01)
        report = generate_tasks(teacher, SEEDS, 60, out=tmp_path / "tasks.jsonl",
                                progress=False, threshold=0.8)  # fmt: skip
        client = course.llm("judge", journal=tmp_path / "judge.jsonl", backoff=0.01)
        judge = Judge(client, progress=False)
        return report, judge.battle(items), judge

    report, games, judge = run()
    assert report.kept == 60 and report.calls >= 3
    assert judge.invalid == {} and summarize_battle(games).wins >= 6
    assert set(provider.answered.values()) == {1}  # none asked twice
    asked = len(provider.times)
    again = run()
    assert again[0].kept == 60 and again[1] == games
    assert len(provider.times) == asked


def test_the_day_ends_in_the_middle_and_goes_on_tomorrow(monkeypatch, tmp_path):
    with dialects.Gemini() as server:
        os.environ["GEMINI_API_KEY"] = server.key
        speaks(monkeypatch, server, "gemini", "/v1beta/openai/")
        server.daily = 3
        teacher = setup("offline").llm("teacher", journal=tmp_path / "journal.jsonl", backoff=0.01)
        with pytest.raises(CourseError, match="Today's quota is used up at .*every reply so far"):
            generate_tasks(teacher, SEEDS, 200, out=tmp_path / "t.jsonl", progress=False)
        assert len(teacher.journal) == 3 == server.answered.total()
        assert server.refused[429] <= server.too_fast + teacher.workers
        server.daily = 10_000
        report = generate_tasks(teacher, SEEDS, 60, out=tmp_path / "t.jsonl", progress=False)
        assert report.kept == 60 and set(server.answered.values()) == {1}


def test_a_model_that_only_thinks_is_stopped_after_three_replies(monkeypatch, tmp_path):
    with dialects.OpenAI() as server:
        os.environ["OPENAI_API_KEY"] = server.key
        speaks(monkeypatch, server, "openai", "/v1")
        teacher = setup("offline").llm("teacher", tmp_path / "j.jsonl", params={}, workers=1,
                                       price=(0.1, 0.5))
        with pytest.raises(CourseError, match="last 3 replies of gpt-6-luna are empty.*reasoning"):
            generate_tasks(teacher, SEEDS, 60, out=tmp_path / "t.jsonl", progress=False)
        assert len(teacher.journal) == 3  # what was paid for is kept and counted
        assert teacher.spent == pytest.approx(3 * (9 * 0.1 + 4000 * 0.5) / 1e6)


# --- what a hostile user tried -------------------------------------------------------------------
def test_another_endpoint_takes_no_key_along():
    recipe = load_recipe("gemma-2b-l4").replace("teacher", "openai")
    gemini = recipe.replace("teacher.endpoint", "gemini").teacher
    assert (gemini.secret, gemini.model) == ("GEMINI_API_KEY", "gemini-3.1-flash-lite")


def test_one_parameter_more_is_not_one_instead():
    filled = fill({"endpoint": "openai", "params": {"temperature": 0.7}}, "teacher")
    assert filled["params"] == {"reasoning_effort": "none", "temperature": 0.7}


@pytest.mark.parametrize("said", [{"endpoint": "auto", name: 3} for name in ("rpm", "model")])
def test_auto_with_settings_is_refused(said):
    with pytest.raises(RecipeError, match="auto takes what is there"):
        load_recipe("gemma-2b-l4").replace("teacher", said)


@pytest.mark.parametrize(("text", "model"), [
    (" GEMINI ", "gemini-3.1-flash-lite"), ("openai: gpt-4o ", "gpt-4o"),
    ("groq:", "openai/gpt-oss-120b")])
def test_names_are_read_as_people_write_them(text, model):
    assert named(text, "teacher").model == model


def test_an_empty_choice_is_none():
    os.environ |= {"TEACHER": " ", "OPENAI_API_KEY": "planted-key-of-openai"}
    assert choose(AUTO, AUTO)[0].endpoint == "openai"
    with pytest.raises(EndpointError, match="say offline alone"):
        named("offline:x", "teacher")
    with pytest.raises(EndpointError, match="named 'gemni'; the closest is 'gemini', and all are"):
        named("gemni", "teacher")


@pytest.mark.parametrize("body", [b"null", b"3", b"[null]", b"[1, [2]]", b'"abc"', b"{", b"<html>",
                                  b'{"data": [{"id": ["x"]}]}', b"[" * 100_000])
def test_an_odd_list_of_models_is_one_sentence(proxy, body):
    proxy.listing = body
    with pytest.raises(EndpointError, match="endpoint colab (offers no model|does not list its)"):
        located(named("colab", "teacher"), "teacher")


def test_a_redirect_takes_no_key_along(proxy):
    with dialects.Colab() as other:
        other.key = "not asked for"
        proxy.redirect = other.host + "/models"
        with pytest.raises(EndpointError, match="does not list its models: .*401"):
            located(named("colab", "teacher"), "teacher")
        assert other.seen == [None]
