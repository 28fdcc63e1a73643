"""The setup cell: recipe, run, secrets, attention, and the offline server."""

import getpass
import os
import signal
import subprocess
import sys
import time
import types
import urllib.request
from types import SimpleNamespace

import pytest

from course_utils import REPO, CourseError, inference, session, shown
from course_utils.inference import Device
from course_utils.plumbing import colab as colab_module
from course_utils.plumbing import secrets
from course_utils.plumbing.secrets import MissingSecret, secret
from course_utils.recipe import RecipeError, load_recipe
from course_utils.session import RestartNeeded, setup
from course_utils.tasks import Task, TaskFileError, write_tasks

L4 = Device("cuda", "NVIDIA L4, 22 GiB, capability 8.9", 22.0, (8, 9))
T4 = Device("cuda", "Tesla T4, 15 GiB, capability 7.5", 14.7, (7, 5))
CPU = Device("cpu", "CPU, 2 cores")


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No GPU, no keys, no Colab, an empty folder; whatever setup sets is undone."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("RECIPE", "DATA", "PRESET", "OPENAI_API_KEY", "GEMINI_API_KEY", "GROQ_API_KEY",
                 "LLM_API_KEY", "HF_TOKEN", "TEACHER", "JUDGE", "MODEL_PROXY_HOST",
                 "COLAB_RELEASE_TAG", "OFFLINE_URL"):  # fmt: skip
        os.environ.pop(name, None)
    os.environ["RUNS"] = str(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "REPO", tmp_path)
    monkeypatch.setattr("course_utils.REPO", tmp_path)
    monkeypatch.setattr(secrets, "REPO", tmp_path)
    monkeypatch.setattr(secrets, "_found", {})
    monkeypatch.setattr(session, "_exported", {})
    monkeypatch.setattr(colab_module, "_silent_since", float("-inf"))
    monkeypatch.setattr(session, "find_device", lambda: CPU)
    # Packages that other tests have loaded are not this machine's concern.
    monkeypatch.setattr(session, "PACKAGES", ("torch",))
    monkeypatch.setattr(session, "refusal", lambda: None)


def machine(monkeypatch, device, key=True):
    monkeypatch.setattr(session, "find_device", lambda: device)
    if key:
        os.environ["OPENAI_API_KEY"] = "sk-planted-key"


class Error(Exception):
    """google.colab.errors.Error."""


class SecretNotFoundError(Error):
    def __init__(self, key):
        super().__init__(f"Secret {key} does not exist.")


class TimeoutException(Error):
    def __init__(self, key):
        super().__init__(f"Requesting secret {key} timed out.")


class NotebookAccessError(Exception):  # not one of errors.Error
    def __init__(self, key):
        super().__init__(f"Notebook does not have access to secret {key}")


class MessageError(Exception):
    """google.colab._message.MessageError, for what the browser answers."""


def colab(monkeypatch, get=None, mount=None):
    """A fake google.colab with the parts the course uses, which raise what the real ones raise."""
    os.environ["COLAB_RELEASE_TAG"] = "release-colab-test"
    package = types.ModuleType("google.colab")
    package.userdata = SimpleNamespace(
        get=get, SecretNotFoundError=SecretNotFoundError, TimeoutException=TimeoutException,
        NotebookAccessError=NotebookAccessError)  # fmt: skip
    package.drive = SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", package)


@pytest.fixture
def content(monkeypatch, tmp_path):
    """A machine of Colab: /content and, once mounted, Drive are folders of the test."""
    from course_utils import checkpoint
    from course_utils.plumbing import colab as on_colab

    monkeypatch.setattr(on_colab, "DRIVE", tmp_path / "content/drive/MyDrive")
    monkeypatch.setattr(session, "DRIVE", on_colab.DRIVE)
    monkeypatch.setattr(checkpoint, "DRIVE", on_colab.DRIVE)
    monkeypatch.setattr(checkpoint, "COLAB", tmp_path / "content")
    os.environ.pop("RUNS")
    return tmp_path / "content"


# --- which recipe -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "key", "recipe", "reason"),
    [
        (CPU, True, "offline", "auto: there is no GPU"),
        (T4, True, "midm-2b-t4", "auto: a T4 or the like"),
        (L4, False, "offline", "auto: none of OPENAI_API_KEY"),
        (L4, True, "midm-2b-l4", "auto: an L4 or better, without HF_TOKEN"),
    ],
)
def test_auto_takes_a_gpu_recipe_only_with_a_gpu_and_somebody_to_ask(
    monkeypatch, capsys, device, key, recipe, reason
):
    machine(monkeypatch, device, key)
    course = setup()
    card = capsys.readouterr().out
    assert course.recipe.train == load_recipe(recipe).train
    assert course.recipe.name == recipe and course.device == device.kind
    assert reason in card and device.name in card
    assert "sk-planted-key" not in card


def test_the_card_says_that_the_api_is_simulated_and_where_things_go(capsys):
    course = setup("offline")
    card = capsys.readouterr().out
    assert course.simulated
    assert "simulated-teacher: SIMULATED" in card and "simulated-judge: SIMULATED" in card
    assert "runs/offline" in card and str(REPO) not in card
    assert not setup("gemma-2b-l4").simulated
    assert "SIMULATED" not in capsys.readouterr().out


def test_recipe_from_the_environment_unless_one_is_asked_for(monkeypatch):
    machine(monkeypatch, L4)
    os.environ["RECIPE"] = "offline"
    assert setup().recipe.name == "offline"
    assert setup("gemma-2b-l4").recipe.name == "gemma-2b-l4"


def test_a_preset_makes_the_run_small_and_keeps_it_apart(capsys):
    full = setup("offline")
    os.environ["PRESET"] = "quick"
    quick = setup("offline")
    assert "offline-quick (asked for; PRESET=quick: 800 tasks, epochs 2" in capsys.readouterr().out
    assert quick.store.run == "offline-quick" != full.store.run
    assert quick.recipe.data.n < full.recipe.data.n
    os.environ["PRESET"] = "full"
    assert setup("offline").store.run == full.store.run
    os.environ["PRESET"] = "quik"
    with pytest.raises(RecipeError, match="closest is 'quick', and all are: quick, full"):
        setup("offline")


def test_a_mistyped_recipe_names_the_closest():
    os.environ["RECIPE"] = "ofline"
    with pytest.raises(RecipeError, match="'offline'"):
        setup()


# --- own data ---------------------------------------------------------------------------------


def test_own_data_has_its_own_run_and_changed_data_another(tmp_path):
    path = tmp_path / "내 데이터.json"
    os.environ["DATA"] = str(path)
    runs = []
    for output in ("네", "아니요"):
        path.write_text(f'[{{"instruction": "답하세요.", "output": "{output}"}}]', "utf-8")
        course = setup()
        assert course.data == path
        runs.append(course.store.run)
    assert all(run.startswith("offline-내-데이터-") for run in runs) and runs[0] != runs[1]


def test_broken_data_is_refused_by_setup(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"instruction": "a"}\n')
    os.environ["DATA"] = str(tmp_path / "bad.jsonl")
    with pytest.raises(TaskFileError, match="bad.jsonl:1"):
        setup()


# --- artefacts --------------------------------------------------------------------------------


def test_artefacts_of_the_run_come_before_the_sample(tmp_path, capsys):
    course = setup("offline")
    with pytest.raises(CourseError, match="no finished step 'preprocess'"):
        course.artefact("preprocess")
    sample = tmp_path / "assets" / "sample" / "preprocess"
    sample.mkdir(parents=True)
    assert course.artefact("preprocess") == sample
    assert "the shipped sample" in capsys.readouterr().out
    (course.store.local("preprocess") / "tasks.jsonl").write_text("{}")
    sealed = course.store.seal("preprocess")
    assert course.artefact("preprocess") == sealed.path
    assert "this run's own" in capsys.readouterr().out


def test_a_sample_adapter_is_not_handed_to_another_base_model(monkeypatch, tmp_path):
    (tmp_path / "assets" / "sample" / "train").mkdir(parents=True)
    assert setup("offline").sample("train").is_dir()
    with pytest.raises(CourseError, match="no sample of it that fits"):
        setup("gemma-2b-l4").sample("train")


def test_simulated_data_is_not_handed_to_a_real_run(tmp_path):
    (tmp_path / "assets" / "sample" / "preprocess").mkdir(parents=True)
    assert setup("offline").sample("preprocess").is_dir()
    with pytest.raises(CourseError, match="'gemma-2b-l4' has no finished step 'preprocess' in"):
        setup("gemma-2b-l4").training_tasks()


def test_a_missing_base_folder_is_one_sentence(tmp_path):
    course = setup("offline")
    with pytest.raises(CourseError, match="tiny-gemma-ko does not exist: make base-model"):
        _ = course.base_model
    (tmp_path / "assets" / "tiny-gemma-ko").mkdir(parents=True)
    assert course.base_model == os.path.join("assets", "tiny-gemma-ko")


def test_the_card_names_the_base_model_as_seen_from_the_checkout(tmp_path, monkeypatch, capsys):
    for folder in ("assets/tiny-gemma-ko", "notebooks/ko"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "ko")  # where Jupyter starts a notebook
    assert setup("offline").base_model == os.path.join("..", "..", "assets", "tiny-gemma-ko")
    assert "Base model  assets/tiny-gemma-ko\n" in capsys.readouterr().out
    assert setup("gemma-2b-l4").base_model == "google/gemma-2b-it"


def test_shown_hides_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(session, "REPO", tmp_path / "checkout")
    assert shown(tmp_path / "checkout" / "runs" / "offline") == "runs/offline"
    assert shown(tmp_path / "elsewhere") == "elsewhere"  # from the working folder
    assert shown("/somewhere/else") == "/somewhere/else"


# --- the environment of the libraries ---------------------------------------------------------


def test_a_changed_hub_token_is_seen_by_the_next_setup(monkeypatch):
    tokens = ["hf_read", "hf_write"]
    colab(monkeypatch, get=lambda name: tokens[0] if name == "HF_TOKEN" else None)
    setup("gemma-2b-l4")
    assert os.environ["HF_TOKEN"] == "hf_read"
    tokens.pop(0)
    setup("gemma-2b-l4")
    assert os.environ["HF_TOKEN"] == "hf_write"
    os.environ["HF_TOKEN"] = "hf_by_hand"  # what somebody set themselves stays
    setup("gemma-2b-l4")
    assert os.environ["HF_TOKEN"] == "hf_by_hand"


def test_offline_is_taken_back_while_the_hub_library_is_not_loaded(monkeypatch, tmp_path):
    (tmp_path / "assets" / "tiny-gemma-ko").mkdir(parents=True)
    os.environ.pop("HF_HUB_OFFLINE", None)
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)
    setup("offline")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    setup("gemma-2b-l4")
    assert "HF_HUB_OFFLINE" not in os.environ
    setup("offline")
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.ModuleType("huggingface_hub"))
    with pytest.raises(RestartNeeded, match="began offline.*restart the session"):
        setup("gemma-2b-l4")


# --- clients ----------------------------------------------------------------------------------


@pytest.fixture
def clients(monkeypatch):
    """What LLM would have been made with."""
    module = types.ModuleType("course_utils.llm")
    module.LLM = lambda model, **settings: SimpleNamespace(model=model, **settings)
    monkeypatch.setitem(sys.modules, "course_utils.llm", module)


def test_clients_follow_the_recipe(clients, monkeypatch):
    os.environ["OFFLINE_URL"] = "http://127.0.0.1:9/v1/"
    course = setup("offline")
    teacher = course.teacher(journal="t.jsonl", workers=3)
    assert (teacher.model, teacher.base_url) == ("simulated-teacher", "http://127.0.0.1:9/v1")
    assert (teacher.journal, teacher.workers) == ("t.jsonl", 3)
    assert course.judge().model == "simulated-judge"
    with pytest.raises(CourseError, match="nobody to ask"):
        setup("gemma-2b-l4").teacher()
    machine(monkeypatch, L4)
    teacher = setup("gemma-2b-l4").teacher(workers=2)
    assert (teacher.base_url, teacher.api_key) == (None, "sk-planted-key")
    assert (teacher.model, teacher.price, teacher.rpm) == ("gpt-6-luna", (0.1, 0.5), 500)
    assert (teacher.params, teacher.workers) == ({"reasoning_effort": "none"}, 2)


def test_openais_key_goes_to_openai_only(clients, monkeypatch):
    machine(monkeypatch, CPU)
    recipe = load_recipe("offline").replace("teacher.base_url", "http://127.0.0.1:8001/v1")
    assert session._client(recipe.teacher, "teacher", None, {}).api_key == "none"
    os.environ["LLM_API_KEY"] = "the-servers-own"
    assert session._client(recipe.teacher, "teacher", None, {}).api_key == "the-servers-own"


# --- secrets ----------------------------------------------------------------------------------


def test_secret_environment_then_env_file(tmp_path):
    text = '# keys\nOTHER=1\nexport MY_KEY = "from-file"\nMY_KEY_2=x=y\n'
    (tmp_path / ".env").write_text(text)
    assert secret("MY_KEY") == "from-file"
    assert secret("MY_KEY_2") == "x=y"
    os.environ["MY_KEY"] = "from-environment"
    assert secret("MY_KEY") == "from-environment"


def test_secret_missing_says_where_to_put_it(monkeypatch):
    monkeypatch.setattr(secrets, "can_ask", lambda: False)
    with pytest.raises(MissingSecret) as error:
        secret("MY_KEY")
    assert all(word in str(error.value) for word in ("MY_KEY", "environment", ".env", "Secrets"))


def test_secret_asks_last_and_only_where_somebody_is(monkeypatch):
    monkeypatch.setattr(getpass, "getpass", lambda prompt: " typed ")
    monkeypatch.setattr(secrets, "can_ask", lambda: True)
    assert secret("MY_KEY") == "typed"
    with pytest.raises(MissingSecret):
        secret("MY_KEY", ask=False)

    def no_front_end(prompt):
        raise RuntimeError("raw_input was called, but this frontend does not support it")

    monkeypatch.setattr(getpass, "getpass", no_front_end)
    with pytest.raises(MissingSecret):
        secret("MY_KEY")


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (SecretNotFoundError, "do not have it"),
        (NotebookAccessError, "no access"),
        (TimeoutException, "did not answer"),
    ],
)
def test_colabs_secrets_fail_in_words(monkeypatch, kind, hint):
    def get(key):
        raise kind(key)

    colab(monkeypatch, get=get)
    monkeypatch.setattr(secrets, "can_ask", lambda: False)
    with pytest.raises(MissingSecret, match=hint):
        secret("MY_KEY")
    monkeypatch.setattr(colab_module, "_silent_since", float("-inf"))  # a minute later
    colab(monkeypatch, get=lambda key: "from-colab")
    assert secret("MY_KEY") == "from-colab"


def test_where_colabs_secrets_never_answer_they_are_asked_once(monkeypatch):
    """From VS Code every question takes ten seconds, and a card asks for half a dozen keys."""
    asked = []

    def get(key):
        asked.append(key)
        raise TimeoutException(key)

    colab(monkeypatch, get=get)
    monkeypatch.setattr(secrets, "can_ask", lambda: False)
    for name in ("A_KEY", "B_KEY", "C_KEY"):
        with pytest.raises(MissingSecret, match="From VS Code they never do: paste the key"):
            secret(name)
    assert asked == ["A_KEY"]


def test_outside_the_browser_colabs_secrets_are_not_there(monkeypatch):
    os.environ["COLAB_RELEASE_TAG"] = "release-colab-test"
    monkeypatch.setitem(sys.modules, "google.colab", None)
    monkeypatch.setattr(secrets, "can_ask", lambda: False)
    with pytest.raises(MissingSecret, match="cannot be used from here|not set"):
        secret("MY_KEY")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Incorrect API key provided: sk-ab12****************wxyz.", "provided: [secret]."),
        ("Invalid token hf_abcdefghijklmnopqrstuvwxyz", "token [secret]"),
        ("authorization: Bearer abc.def-123_x", "Bearer [secret]"),
        ("http://me:pass-word@proxy.local:80 refused", "http://[secret]@proxy.local:80 refused"),
        ("the value of planted", "the value of [MY_TOKEN]"),
        ("typed-at-the-prompt twice", "[ASKED_FOR] twice"),
        ("risk-adjusted hf_transfer key_padding", "risk-adjusted hf_transfer key_padding"),
    ],
)
def test_keys_are_scrubbed_from_every_message(monkeypatch, text, clean):
    os.environ |= {"MY_TOKEN": "planted-in-the-environment", "SHORT_KEY": "none"}
    monkeypatch.setattr(secrets, "can_ask", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "typed-at-the-prompt")
    secret("ASKED_FOR")
    text = text.replace("planted", "planted-in-the-environment")
    assert clean in secrets.scrub(text)
    error = CourseError(text)
    assert clean in str(error) and clean in repr(error) and "none" not in secrets.scrub("x")


def test_a_key_file_that_others_may_read_is_said_once(tmp_path, capsys):
    (tmp_path / ".env").write_text("MY_KEY=from-file\n")
    (tmp_path / ".env").chmod(0o644)
    for _ in range(2):
        assert secret("MY_KEY") == "from-file"
    assert capsys.readouterr().out.count("chmod 600 .env") == 1


def test_a_notebook_saves_no_key_with_an_error(monkeypatch):
    os.environ["OPENAI_API_KEY"] = "planted-in-the-environment"
    shown = []

    class Shell:
        def _showtraceback(self, kind, error, lines):
            shown.append((kind, str(error), lines))

    shell = Shell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    for _ in range(2):  # the setup cell is run again
        secrets.scrub_notebook_errors()
    shell._showtraceback(ValueError, ValueError("planted-in-the-environment!"),
                         ["key = 'planted-in-the-environment'"])  # fmt: skip
    assert shown == [(ValueError, "[OPENAI_API_KEY]!", ["key = '[OPENAI_API_KEY]'"])]


def test_doctor_tells_which_keys_are_set_and_never_what_they_are(monkeypatch):
    machine(monkeypatch, CPU)
    page = session.doctor()
    assert "OPENAI_API_KEY       set" in page and "HF_TOKEN             not set" in page
    assert "sk-planted-key" not in page and CPU.name in page


# --- Colab ------------------------------------------------------------------------------------


TIMEOUT = "mount failed: timeout during initial read of root folder; for more info: https://..."
POLICY = "The domain policy has disabled Drive File Stream: https://support.google.com/a/answer"


@pytest.mark.parametrize(
    ("error", "words", "cure"),
    [
        (ValueError("mount failed"), "gave no reason", "run this cell again"),
        (ValueError(TIMEOUT), "too many files to list", "move some of them"),
        (ValueError("Mountpoint must not already contain files"), "before it was there", "restart"),
        (ValueError("Mountpoint must not be a symlink"), "is a link", "restart"),
        (ValueError("Mountpoint must either be a directory or not exist"), "is a file", "restart"),
        (ValueError("Mountpoint must be in a directory that exists"), "is not there", "restart"),
        (ValueError(POLICY), "administrator", "another account"),
        (ValueError("mount failed: invalid oauth code"), "permission was not given", "allow"),
        (MessageError("Error: credential propagation was unsuccessful"), "permission", "allow"),
        (NotImplementedError(), "no Drive", "hosted by Colab"),
        (OSError(107, "Transport endpoint is not connected"), "connection", "restart"),
        (RuntimeError("never heard of"), "never heard of", "run this cell again"),
        (None, "is not there", "run this cell again"),
    ],
    ids=str,
)
def test_a_drive_that_does_not_mount_is_one_sentence_with_the_next_step(
    monkeypatch, capsys, content, error, words, cure
):
    def mount(folder, force_remount=False):
        assert folder == str(content / "drive")
        if error:
            raise error

    colab(monkeypatch, get=lambda name: None, mount=mount)
    course = setup("offline")
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "NOT MOUNTED" in line]
    assert words in said and cure in said and said.endswith(".")
    assert course.store.root == content / "runs"  # and the lesson goes on


def test_a_mounted_drive_holds_the_parts_and_the_machine_the_work(monkeypatch, capsys, content):
    mounted = []

    def mount(folder, force_remount=False):
        (content / "drive/MyDrive").mkdir(parents=True)
        mounted.append(force_remount)

    colab(monkeypatch, get=lambda name: None, mount=mount)
    for _ in range(2):
        course = setup("offline")
    assert mounted == [False] and "NOT MOUNTED" not in capsys.readouterr().out
    assert course.store.root == content / "drive/MyDrive/instruction-tuning/runs"
    assert course.store.local("train").is_relative_to(content / "runs")


def test_a_connection_to_drive_that_broke_is_made_anew(monkeypatch, content):
    from course_utils.plumbing import colab as on_colab

    (content / "drive/MyDrive").mkdir(parents=True)
    broken, mounted, real = [True], [], os.stat

    def stat(path, *args, **kwargs):
        if broken and str(path) == str(on_colab.DRIVE):
            raise OSError(107, "Transport endpoint is not connected")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    colab(monkeypatch, get=lambda name: None,
          mount=lambda folder, force_remount: (mounted.append(force_remount), broken.clear()))
    assert on_colab.mount_drive() is None and mounted == [True]


def test_what_cannot_train_is_the_cards_last_line_on_colab_and_stops_nothing(
    monkeypatch, capsys, content
):
    monkeypatch.setattr(session, "refusal", lambda: "torchao 0.10.0 is refused by peft.")
    setup("offline")
    assert "Training" not in capsys.readouterr().out  # there `make setup` chose the packages
    colab(monkeypatch, get=lambda name: None, mount=lambda *_, **__: None)
    assert setup("offline").recipe.name == "offline"
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "Training    torchao 0.10.0 is refused by peft."


def test_a_t4_where_an_l4_is_needed_is_said(monkeypatch, capsys, tmp_path):
    machine(monkeypatch, T4)
    setup("gemma-2b-l4")
    said = capsys.readouterr().out
    assert "Wrong GPU   this recipe computes in bfloat16, which Tesla T4" in said
    assert "choose an L4" in said and "gemma-2b-t4" in said
    setup("gemma-2b-t4")
    setup()
    assert "Wrong GPU" not in capsys.readouterr().out
    (tmp_path / "runs/gemma-2b-l4").mkdir(parents=True)
    setup()  # a reconnect: what was begun on an L4 would be left for the offline recipe
    assert "the run gemma-2b-l4 was begun on a larger one" in capsys.readouterr().out
    machine(monkeypatch, L4)
    setup("gemma-2b-l4")
    assert "Wrong GPU" not in capsys.readouterr().out


# --- what earlier sessions left -----------------------------------------------------------------


def test_setup_checks_what_the_session_before_it_sealed(capsys):
    course = setup("offline")
    (course.store.local("train") / "a").write_text("weights")
    part = course.store.seal("train").path
    capsys.readouterr()
    setup("offline")
    assert "Checked" not in capsys.readouterr().out
    (part / "a").write_bytes(bytes(7))
    setup("offline")
    assert "Checked     train/part-0001 is broken: a is not what was" in capsys.readouterr().out


def test_a_loops_journal_is_sealed_and_brought_back_by_its_client(tmp_path):
    os.environ["OFFLINE_URL"] = "http://127.0.0.1:9/v1"
    course = setup("offline")
    path = course.store.local("preprocess") / "journal.jsonl"
    teacher = course.teacher(journal=path)
    teacher.journal.add({"key": "a", "model": "other"})
    teacher.journal.watch.seal()
    teacher.journal.close()
    del teacher
    path.unlink()  # the session died
    assert len(course.teacher(journal=path).journal) == 1
    assert course.teacher(journal=tmp_path / "journal.jsonl").journal.watch is None
    work = course.store.local("preprocess")
    assert course.judge(journal=work / "notes.jsonl").journal.watch is None  # not sealed as one


def test_doctor_says_what_a_rerun_would_do_and_cost(monkeypatch, capsys):
    monkeypatch.setattr(session, "REPO", REPO)  # the seeds
    os.environ |= {"RECIPE": "gemma-2b-l4", "OPENAI_API_KEY": "sk-planted-key"}
    page = session.doctor()
    assert page.count("nothing yet") == 3
    assert "115 calls to make (0 already in the journal)" in page
    assert "trains from the start" in page
    assert "about $0.00" not in page and "for 60 questions in both orders" in page
    assert not (session._find_course("auto", None)[0].store.root).exists()  # it only looked

    from itertools import islice

    from course_utils.generate import generation_requests
    from course_utils.llm import LLM
    from course_utils.tasks import read_tasks

    course = setup()
    work = course.store.local("preprocess")
    llm = LLM(course.recipe.teacher.model, journal=work / "journal.jsonl",
              params=course.recipe.teacher.params)
    for request in islice(generation_requests(read_tasks(REPO / "data/seed_tasks.jsonl")), 40):
        llm.journal.add({"key": llm.key(request), "model": llm.model, "text": "",
                         "usage": {"prompt_tokens": 1000, "completion_tokens": 2000}})
    assert "75 calls to make (40 already in the journal)" in session.doctor()
    (work / "funnel.json").write_text('{"calls": 40}')
    part = course.store.seal("preprocess").path
    for folder, content in (("train", "result.json"), ("evaluate", "summary.json")):
        (course.store.local(folder) / content).write_text("{}")
        course.store.seal(folder)
    page = session.doctor()
    size = (work / "journal.jsonl").stat().st_size
    assert (f"part-0001 whole (2 files, {size + 13:,} bytes); "
            f"journals/part-0001 whole (1 files, {size:,} bytes)") in page
    assert "rerun: 0 calls to make (40 already in the journal)" in page
    assert "trains from the start" in page  # an empty result is none
    (part / "funnel.json").write_bytes(bytes(13))
    assert "part-0001 BROKEN (funnel.json is not what was written" in session.doctor()


def test_a_replaced_package_asks_for_a_restart(monkeypatch):
    monkeypatch.setattr(session, "PACKAGES", ("pytest",))
    setup("offline")
    monkeypatch.setitem(sys.modules, "pytest", SimpleNamespace(__version__="0.1"))
    with pytest.raises(RestartNeeded, match=r"pytest 0\.1 is loaded .* restart the session"):
        setup("offline")


# --- attention --------------------------------------------------------------------------------


def attention(monkeypatch, device, installed=(), trial=None):
    monkeypatch.setattr(inference, "find_device", lambda: device)
    has = lambda name: name if name in installed else None  # noqa: E731
    found = SimpleNamespace(util=SimpleNamespace(find_spec=has))
    monkeypatch.setattr(inference, "importlib", found)
    monkeypatch.setattr(inference, "training_step", trial)
    return inference.pick_attention()


def test_attention_is_sdpa_wherever_flash_attention_would_not_work(monkeypatch, capsys):
    everything = ("flash_attn", "kernels")
    assert attention(monkeypatch, CPU, everything) == "sdpa"
    assert attention(monkeypatch, T4, everything) == "sdpa"
    assert attention(monkeypatch, L4) == "sdpa"
    assert capsys.readouterr().out.count("\n") == 1

    def broken(name, device):
        raise ImportError("no build for this torch")

    assert attention(monkeypatch, L4, ["kernels"], broken) == "sdpa"
    assert "ImportError" in capsys.readouterr().out


def test_attention_takes_what_works(monkeypatch):
    assert attention(monkeypatch, L4, ["flash_attn"]) == "flash_attention_2"
    tried = []
    trial = lambda name, device: tried.append((name, device))  # noqa: E731
    assert (attention(monkeypatch, L4, ["kernels"], trial), "cuda") == tried[0]


# --- the offline server -----------------------------------------------------------------------


def test_the_server_starts_once_and_ends_with_the_process_that_started_it(tmp_path):
    code = (
        "from course_utils.offline.start import offline_url\n"
        "import sys\n"
        "assert offline_url() == offline_url()\n"
        "print(offline_url(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPO, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        # A proxy that is not there: loopback must not go through it.
        env={**os.environ, "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
    )  # fmt: skip
    try:
        url = process.stdout.readline().strip()
        assert urllib.request.urlopen(f"{url}/models", timeout=10).status == 200
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/models", timeout=2)
        except OSError:
            return
        time.sleep(0.2)
    pytest.fail("The server outlived the process that started it.")


def test_a_server_that_ends_at_once_is_explained(monkeypatch):
    from course_utils.offline import start

    monkeypatch.setattr(start, "COMMAND", [*start.COMMAND, "--no-such-option"])
    monkeypatch.setattr(start, "_server", None)
    with pytest.raises(CourseError, match="did not start .*no-such-option"):
        start.offline_url()


def test_what_is_held_out_offline_comes_from_the_world(tmp_path, monkeypatch):
    monkeypatch.delenv("DATA", raising=False)
    course = setup("offline", root=tmp_path)
    heldout, unseen = course.heldout(), course.unseen()
    assert len(heldout) == 12 * course.recipe.data.heldout and len(unseen) == len(heldout) // 3
    assert {task.meta["family"] for task in heldout} == {task.meta["family"] for task in unseen}
    assert all(course.truth(task) == task.output for task in heldout + unseen)
    assert course.truth(Task("오늘 점심은 무엇이 좋을까요?")) is None


def test_what_is_held_out_of_own_data_is_a_tenth_of_it(tmp_path, monkeypatch):
    data = tmp_path / "own.jsonl"
    tasks = [Task(f"{i}번째 질문에 답해 주세요.", "", f"답 {i}") for i in range(50)]
    write_tasks(data, tasks)
    monkeypatch.setenv("DATA", str(data))
    course = setup("offline", root=tmp_path / "runs")
    write_tasks(course.store.local("preprocess") / "tasks.jsonl", tasks)
    course.store.seal("preprocess")
    training, heldout = course.training_tasks(), course.heldout()
    assert (len(training), len(heldout)) == (45, 5) and course.unseen() == []
    assert {task.meta["family"] for task in heldout} == {"data"}
    assert not {t.instruction for t in training} & {t.instruction for t in heldout}
    assert course.truth(heldout[0]) is None
