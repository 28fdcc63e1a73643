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

from course_utils import REPO, CourseError, runtime, secrets
from course_utils.recipe import RecipeError, load_recipe
from course_utils.runtime import Device, MissingSecret, RestartNeeded, secret, setup, shown
from course_utils.tasks import Task, TaskFileError, write_tasks

L4 = Device("cuda", "NVIDIA L4, 22 GiB, capability 8.9", 22.0, (8, 9))
T4 = Device("cuda", "Tesla T4, 15 GiB, capability 7.5", 14.7, (7, 5))
CPU = Device("cpu", "CPU, 2 cores")


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No GPU, no keys, no Colab, an empty folder; whatever setup sets is undone."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("RECIPE", "DATA", "PRESET", "OPENAI_API_KEY", "LLM_API_KEY", "HF_TOKEN",
                 "COLAB_RELEASE_TAG", "OFFLINE_URL"):  # fmt: skip
        os.environ.pop(name, None)
    os.environ["RUNS"] = str(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "REPO", tmp_path)
    monkeypatch.setattr(secrets, "REPO", tmp_path)
    monkeypatch.setattr(secrets, "_found", {})
    monkeypatch.setattr(runtime, "find_device", lambda: CPU)
    # Packages that other tests have loaded are not this machine's concern.
    monkeypatch.setattr(runtime, "PACKAGES", ("torch",))


def machine(monkeypatch, device, key=True):
    monkeypatch.setattr(runtime, "find_device", lambda: device)
    if key:
        os.environ["OPENAI_API_KEY"] = "sk-planted-key"


def colab(monkeypatch, get=None, mount=None):
    """A fake google.colab whose parts raise what the real ones raise."""
    os.environ["COLAB_RELEASE_TAG"] = "release-colab-test"
    package = types.ModuleType("google.colab")
    package.userdata = SimpleNamespace(get=get)
    package.drive = SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", package)


# --- which recipe -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "key", "recipe", "reason"),
    [
        (CPU, False, "offline", "there is no GPU and OPENAI_API_KEY is not set"),
        (CPU, True, "offline", "there is no GPU"),
        (T4, True, "offline", "the GPU is not an L4 or better (Tesla T4"),
        (L4, False, "offline", "OPENAI_API_KEY is not set"),
        (L4, True, "gemma-2b-l4", "a large enough GPU and a key"),
    ],
)
def test_auto_takes_the_gpu_recipe_only_with_gpu_and_key(
    monkeypatch, capsys, device, key, recipe, reason
):
    machine(monkeypatch, device, key)
    course = setup()
    card = capsys.readouterr().out
    assert course.recipe == load_recipe(recipe)
    assert course.device == device.kind
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
    assert "offline-quick (asked for; PRESET=quick: 400 tasks, epochs 1" in capsys.readouterr().out
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


def test_a_missing_base_folder_is_one_sentence(tmp_path):
    course = setup("offline")
    with pytest.raises(CourseError, match="tiny-gemma-ko does not exist: make base-model"):
        _ = course.base_model
    (tmp_path / "assets" / "tiny-gemma-ko").mkdir(parents=True)
    assert course.base_model == os.path.join("assets", "tiny-gemma-ko")
    assert setup("gemma-2b-l4").base_model == "google/gemma-2b-it"


def test_shown_hides_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "REPO", tmp_path / "checkout")
    assert shown(tmp_path / "checkout" / "runs" / "offline") == "runs/offline"
    assert shown(tmp_path / "elsewhere") == "elsewhere"  # from the working folder
    assert shown("/somewhere/else") == "/somewhere/else"


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
    with pytest.raises(MissingSecret):
        setup("gemma-2b-l4").teacher()
    machine(monkeypatch, L4)
    teacher = setup("gemma-2b-l4").teacher()
    assert (teacher.base_url, teacher.api_key) == (None, "sk-planted-key")
    assert teacher.price == load_recipe("gemma-2b-l4").teacher.price


def test_openais_key_goes_to_openai_only(clients, monkeypatch):
    machine(monkeypatch, CPU)
    recipe = load_recipe("offline").replace("teacher.base_url", "http://127.0.0.1:8001/v1")
    assert runtime._client(recipe.teacher, None, {}).api_key == "none"
    os.environ["LLM_API_KEY"] = "the-servers-own"
    assert runtime._client(recipe.teacher, None, {}).api_key == "the-servers-own"


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
    ("name", "base", "hint"),
    [
        ("SecretNotFoundError", LookupError, "do not have it"),
        ("NotebookAccessError", Exception, "no access"),
        ("TimeoutException", Exception, "did not answer"),
    ],
)
def test_colabs_secrets_fail_in_words(monkeypatch, name, base, hint):
    def get(key):
        raise type(name, (base,), {})("internal")

    colab(monkeypatch, get=get)
    monkeypatch.setattr(secrets, "can_ask", lambda: False)
    with pytest.raises(MissingSecret, match=hint):
        secret("MY_KEY")
    colab(monkeypatch, get=lambda key: "from-colab")
    assert secret("MY_KEY") == "from-colab"


def test_doctor_tells_which_keys_are_set_and_never_what_they_are(monkeypatch):
    machine(monkeypatch, CPU)
    page = runtime.doctor()
    assert "OPENAI_API_KEY   set" in page and "HF_TOKEN         not set" in page
    assert "sk-planted-key" not in page and CPU.name in page


# --- Colab ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("mount failed"), NotImplementedError(), OSError(107, "not connected")]
)
def test_a_drive_that_does_not_mount_is_said_on_the_card(monkeypatch, capsys, error):
    def mount(folder):
        raise error

    colab(monkeypatch, get=lambda name: None, mount=mount)
    setup("offline")
    assert "NOT MOUNTED" in capsys.readouterr().out


def test_a_replaced_package_asks_for_a_restart(monkeypatch):
    monkeypatch.setattr(runtime, "PACKAGES", ("pytest",))
    setup("offline")
    monkeypatch.setitem(sys.modules, "pytest", SimpleNamespace(__version__="0.1"))
    with pytest.raises(RestartNeeded, match=r"pytest 0\.1 is loaded .* restart the session"):
        setup("offline")


# --- attention --------------------------------------------------------------------------------


def attention(monkeypatch, device, installed=(), trial=None):
    monkeypatch.setattr(runtime, "find_device", lambda: device)
    has = lambda name: name if name in installed else None  # noqa: E731
    monkeypatch.setattr(runtime, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=has)))
    monkeypatch.setattr(runtime, "_try_attention", trial)
    return runtime.pick_attention()


def test_attention_is_sdpa_wherever_flash_attention_would_not_work(monkeypatch, capsys):
    everything = ("flash_attn", "kernels")
    assert attention(monkeypatch, CPU, everything) == "sdpa"
    assert attention(monkeypatch, T4, everything) == "sdpa"
    assert attention(monkeypatch, L4) == "sdpa"
    assert capsys.readouterr().out.count("\n") == 1

    def broken(name):
        raise ImportError("no build for this torch")

    assert attention(monkeypatch, L4, ["kernels"], broken) == "sdpa"
    assert "ImportError" in capsys.readouterr().out


def test_attention_takes_what_works(monkeypatch):
    assert attention(monkeypatch, L4, ["flash_attn"]) == "flash_attention_2"
    tried = []
    assert attention(monkeypatch, L4, ["kernels"], tried.append) == tried[0]


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

    os.environ["OFFLINE_OPTIONS"] = "--no-such-option"
    monkeypatch.setattr(start, "_server", None)
    with pytest.raises(CourseError, match="ended at once .*no-such-option"):
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
