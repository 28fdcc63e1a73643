"""The setup cell: recipe, run, own data, the card, the environment, clients, and the doctor."""

import os
import sys
import types
from itertools import islice
from types import SimpleNamespace

import pytest
from machines import CPU, KEY, L4, T4, bare, on_colab

from course_utils import REPO, CourseError, session, shown
from course_utils.generate import generation_requests
from course_utils.llm import LLM
from course_utils.plumbing import colab
from course_utils.plumbing.files import TaskFileError
from course_utils.recipe import RecipeError, load_recipe
from course_utils.session import RestartNeeded, doctor, setup
from course_utils.tasks import Task, read_tasks, write_tasks


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    bare(monkeypatch, tmp_path)


def machine(monkeypatch, device, key=True):
    monkeypatch.setattr(session, "find_device", lambda: device)
    if key:
        os.environ["OPENAI_API_KEY"] = KEY


def sample(folder, step):
    (folder / "assets/sample" / step).mkdir(parents=True)


# --- which recipe -----------------------------------------------------------------------------
@pytest.mark.parametrize(("device", "key", "recipe", "reason"), [
    (CPU, True, "offline", "auto: there is no GPU"),
    (T4, True, "midm-2b-t4", "auto: a T4 or the like"),
    (L4, False, "offline", "auto: none of OPENAI_API_KEY"),
    (L4, True, "midm-2b-l4", "auto: an L4 or better, without HF_TOKEN"),
])
def test_auto_takes_a_gpu_recipe_only_with_a_gpu_and_somebody_to_ask(
        monkeypatch, capsys, device, key, recipe, reason):
    machine(monkeypatch, device, key)
    course, card = setup(), capsys.readouterr().out
    assert course.recipe.train == load_recipe(recipe).train
    assert course.recipe.name == recipe and course.device == device
    assert reason in card and device.name in card and KEY not in card


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
        assert len(course.store.about["data"]) == 64
    assert all(run.startswith("offline-내-데이터-") for run in runs) and runs[0] != runs[1]


@pytest.mark.parametrize(("name", "shown_as"), [
    ("가" * 80, "가" * 80), ("a" * 250, "a" * 250), ("\udcff\udcfe", r"\udcff\udcfe"),
    ("...", "..."), ("a\nDrive       mounted\u202e\x1b[1m", r"a\nDrive       mounted\u202e\x1b[1m"),
    ("<b>x [y](javascript:z) ", "<b>x [y](javascript:z) "),
])
def test_no_name_of_a_data_file_breaks_a_run_or_the_card(tmp_path, capsys, name, shown_as):
    path = tmp_path / f"{name}.json"
    path.write_text('{"instruction": "답하세요.", "output": "네."}')
    os.environ["DATA"] = str(path)
    course = setup("offline")
    assert course.store.local("preprocess").is_dir() and len(course.store.run.encode()) < 150
    assert f"\nData        {shown_as}.json, instead" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a" * 300, "none.json", "\udcff.json", ".", "~nobody/x.json"])
def test_a_data_file_that_is_not_there_is_one_sentence(name):
    os.environ["DATA"] = name
    with pytest.raises(TaskFileError, match=r"cannot be read \(.*\)") as error:
        setup("offline")
    assert str(error.value).isprintable()


def test_a_mirror_on_the_hub_is_handed_to_the_store_and_broken_data_refused(tmp_path):
    assert setup("offline").store.mirror is None
    os.environ["HUB_MIRROR"] = "me/name"
    assert setup("offline").store.mirror.args == ("me/name",)
    (tmp_path / "bad.jsonl").write_text('{"instruction": "a"}\n')
    os.environ["DATA"] = str(tmp_path / "bad.jsonl")
    with pytest.raises(TaskFileError, match="bad.jsonl:1"):
        setup()


def test_what_is_held_out_of_own_data_is_a_tenth_of_it(tmp_path):
    tasks = [Task(f"{i}번째 질문에 답해 주세요.", "", f"답 {i}") for i in range(50)]
    write_tasks(tmp_path / "own.jsonl", tasks)
    os.environ["DATA"] = str(tmp_path / "own.jsonl")
    course = setup("offline")
    write_tasks(course.store.local("preprocess") / "tasks.jsonl", tasks)
    course.store.seal("preprocess")
    training, heldout = course.training_tasks(), course.heldout()
    assert (len(training), len(heldout)) == (45, 5) and course.unseen() == []
    assert {task.meta["family"] for task in heldout} == {"data"}
    assert not {t.instruction for t in training} & {t.instruction for t in heldout}
    assert course.truth(heldout[0]) is None


def test_what_is_held_out_offline_comes_from_the_world():
    course = setup("offline")
    heldout, unseen = course.heldout(), course.unseen()
    assert len(heldout) == 12 * course.recipe.data.heldout and len(unseen) == len(heldout) // 3
    assert {task.meta["family"] for task in heldout} == {task.meta["family"] for task in unseen}
    assert all(course.truth(task) == task.output for task in heldout + unseen)
    assert course.truth(Task("오늘 점심은 무엇이 좋을까요?")) is None


# --- artefacts and the base model ---------------------------------------------------------------
def test_artefacts_of_the_run_come_before_the_sample(tmp_path, capsys):
    course = setup("offline")
    with pytest.raises(CourseError, match="no finished step 'preprocess'"):
        course.artefact("preprocess")
    sample(tmp_path, "preprocess")
    assert course.artefact("preprocess") == tmp_path / "assets/sample/preprocess"
    assert "the shipped sample" in capsys.readouterr().out
    (course.store.local("preprocess") / "tasks.jsonl").write_text("{}")
    sealed = course.store.seal("preprocess")
    assert course.artefact("preprocess") == sealed.path
    assert "this run's own" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["train", "preprocess"])
def test_a_sample_of_the_small_world_is_not_handed_to_a_real_run_or_own_data(tmp_path, step):
    sample(tmp_path, step)
    assert setup("offline").artefact(step).is_dir()
    with pytest.raises(CourseError, match="no sample of it fits"):
        setup("gemma-2b-l4").artefact(step)
    write_tasks(tmp_path / "own.jsonl", [Task("답하세요.", "", "네.")])
    os.environ["DATA"] = str(tmp_path / "own.jsonl")
    with pytest.raises(CourseError, match="names the same recipe, data and folder"):
        setup("offline").artefact(step)


def test_the_base_model_is_seen_from_the_checkout_and_its_lack_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "assets").mkdir()
    course = setup("offline")
    assert "Base model  MISSING. There is no model folder" in capsys.readouterr().out
    with pytest.raises(CourseError, match="no model folder .*tiny-gemma-ko"):
        _ = course.base_model
    for folder in ("assets/tiny-gemma-ko", "notebooks/ko"):
        (tmp_path / folder).mkdir(parents=True)
    assert course.base_model == os.path.join("assets", "tiny-gemma-ko")
    monkeypatch.chdir(tmp_path / "notebooks" / "ko")  # where Jupyter starts a notebook
    assert setup("offline").base_model == os.path.join("..", "..", "assets", "tiny-gemma-ko")
    assert "Base model  assets/tiny-gemma-ko\n" in capsys.readouterr().out
    assert setup("gemma-2b-l4").base_model == "google/gemma-2b-it"


def test_shown_hides_the_machine(tmp_path):
    assert shown(tmp_path / "runs" / "offline") == "runs/offline"
    assert shown("/somewhere/else") == "/somewhere/else"


# --- the card -----------------------------------------------------------------------------------
def test_the_card_says_that_the_api_is_simulated_and_where_things_go(capsys):
    course = setup("offline")
    card = capsys.readouterr().out
    assert course.simulated
    assert "simulated-teacher: SIMULATED" in card and "simulated-judge: SIMULATED" in card
    assert "Artefacts   runs/offline\n" in card and str(REPO) not in card
    assert not setup("gemma-2b-l4").simulated
    assert "SIMULATED" not in capsys.readouterr().out


def test_a_t4_where_an_l4_is_needed_is_said(monkeypatch, capsys, tmp_path):
    machine(monkeypatch, T4)
    setup("gemma-2b-l4")
    said = capsys.readouterr().out
    assert "Wrong GPU   this recipe computes in bfloat16, which Tesla T4" in said
    assert "choose an L4" in said and "or take midm-2b-t4" in said
    setup("gemma-2b-t4")
    setup()
    assert "Wrong GPU" not in capsys.readouterr().out
    (tmp_path / "runs/gemma-2b-l4").mkdir(parents=True)
    setup()  # a reconnect: what was begun on an L4 would be left for another run
    assert "the run gemma-2b-l4 was begun on a larger one" in capsys.readouterr().out
    machine(monkeypatch, L4)
    setup("gemma-2b-l4")
    assert "Wrong GPU" not in capsys.readouterr().out


@pytest.mark.parametrize("mounts", [True, False])
def test_drive_holds_the_parts_and_the_machine_the_work(monkeypatch, capsys, tmp_path, mounts):
    content = tmp_path / "content"
    drive = content / "drive/MyDrive"
    for module in ("plumbing.colab", "session", "checkpoint"):
        monkeypatch.setattr(f"course_utils.{module}.DRIVE", drive)
    monkeypatch.setattr("course_utils.checkpoint.COLAB", content)
    monkeypatch.setattr(session, "refusal", lambda: "torchao 0.10.0 is refused by peft.")
    del os.environ["RUNS"]
    on_colab(monkeypatch, mount=lambda folder, force_remount: mounts and drive.mkdir(parents=True))
    course = setup("offline")
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Drive       NOT MOUNTED") for line in said) != mounts
    survives = drive / "instruction-tuning/runs" if mounts else content / "runs"
    assert course.store.root == survives  # and the lesson goes on
    assert course.store.local("train").is_relative_to(content / "runs")
    assert said[-1] == "Training    torchao 0.10.0 is refused by peft."
    assert colab.DRIVE.is_dir() == mounts == colab.drive_mounted()
    del os.environ["COLAB_RELEASE_TAG"]
    setup("offline", root=tmp_path)
    assert "Training" not in capsys.readouterr().out  # there `make setup` chose the packages


def test_no_run_goes_into_a_folder_in_drives_place(monkeypatch, tmp_path):
    drive = tmp_path / "drive/MyDrive"
    drive.mkdir(parents=True)
    for module in ("plumbing.colab", "session", "checkpoint"):
        monkeypatch.setattr(f"course_utils.{module}.DRIVE", drive)
    monkeypatch.setattr(colab, "CONTENT", tmp_path / "content")
    del os.environ["RUNS"]
    error = [ValueError("Mountpoint must not already contain files")]

    def mount(folder, force_remount):
        if error:
            raise error.pop()

    on_colab(monkeypatch, mount=mount)
    assert setup("offline").store.root == tmp_path / "content/runs"
    assert "Drive                not mounted" in doctor() and not any(drive.iterdir())
    assert setup("offline").store.root == drive / "instruction-tuning/runs"


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


# --- the environment of the libraries -----------------------------------------------------------
def test_a_changed_hub_token_is_seen_by_the_next_setup(monkeypatch):
    tokens = ["hf_read", "hf_write"]
    on_colab(monkeypatch, lambda name: tokens[0] if name == "HF_TOKEN" else None)
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


def test_a_replaced_package_asks_for_a_restart(monkeypatch):
    monkeypatch.setattr(session, "PACKAGES", ("pytest", "torch"))
    setup("offline")
    monkeypatch.setitem(sys.modules, "pytest", SimpleNamespace(__version__="0.1"))
    with pytest.raises(RestartNeeded, match=r"^pytest 0\.1 is loaded .* restart the session"):
        setup("offline")
    assert "Replaced             pytest 0.1\n" in doctor()


# --- clients ------------------------------------------------------------------------------------
@pytest.fixture
def clients(monkeypatch):
    """What LLM would have been made with."""
    module = types.ModuleType("course_utils.llm")
    module.LLM = lambda model, **settings: SimpleNamespace(model=model, **settings)
    monkeypatch.setitem(sys.modules, "course_utils.llm", module)


def test_clients_follow_the_recipe(clients, monkeypatch):
    os.environ["OFFLINE_URL"] = "http://127.0.0.1:9/v1/"
    course = setup("offline")
    teacher = course.llm("teacher", "t.jsonl", workers=3)
    assert (teacher.model, teacher.base_url) == ("simulated-teacher", "http://127.0.0.1:9/v1")
    assert (teacher.journal, teacher.workers) == ("t.jsonl", 3)
    assert course.llm("judge").model == "simulated-judge"
    with pytest.raises(CourseError, match="nobody to ask"):
        setup("gemma-2b-l4").llm("teacher")
    machine(monkeypatch, L4)
    teacher = setup("gemma-2b-l4").llm("teacher", workers=2)
    assert (teacher.base_url, teacher.api_key) == (None, KEY)
    assert (teacher.model, teacher.price, teacher.rpm) == ("gpt-6-luna", (0.1, 0.5), 500)
    assert (teacher.params, teacher.workers) == ({"reasoning_effort": "none"}, 2)


def test_openais_key_goes_to_openai_only(clients, monkeypatch, tmp_path):
    machine(monkeypatch, CPU)
    recipe = (REPO / "course_utils/recipes/offline.yaml").read_text(encoding="utf-8")
    own = "\nteacher: {model: m, base_url: 'http://127.0.0.1:8001/v1'}\n"
    lines = [line for line in recipe.splitlines() if not line.startswith("teacher:")]
    (tmp_path / "own.yaml").write_text("\n".join(lines) + own, encoding="utf-8")
    course = setup(tmp_path / "own.yaml")
    assert course.llm("teacher").api_key == "none"
    os.environ["LLM_API_KEY"] = "the-servers-own"
    assert course.llm("teacher").api_key == "the-servers-own"


def test_a_loops_journal_is_sealed_and_brought_back_by_its_client(tmp_path):
    os.environ["OFFLINE_URL"] = "http://127.0.0.1:9/v1"
    course = setup("offline")
    path = course.store.local("preprocess") / "journal.jsonl"
    teacher = course.llm("teacher", journal=path)
    teacher.journal.add({"key": "a", "model": "other"})
    teacher.journal.watch.seal()
    teacher.journal.close()
    del teacher
    path.unlink()  # the session died
    assert len(course.llm("teacher", os.path.relpath(path)).journal) == 1
    for unwatched in (tmp_path / "journal.jsonl", path.with_name("notes.jsonl")):
        assert course.llm("judge", unwatched).journal.watch is None  # not sealed as one


# --- the doctor ---------------------------------------------------------------------------------
def test_doctor_tells_which_keys_are_set_and_never_what_they_are(monkeypatch):
    machine(monkeypatch, CPU)
    os.environ["GROQ_API_KEY"] = "planted\nkey"
    page = doctor()
    assert "OPENAI_API_KEY       set" in page and "HF_TOKEN             not set" in page
    assert "GROQ_API_KEY has a character that no key has (line break" in page
    assert KEY not in page and "planted" not in page and CPU.name in page


def test_doctor_says_what_a_rerun_would_do_and_cost(monkeypatch, tmp_path):
    monkeypatch.setattr("course_utils.reports.doctor.REPO", REPO)
    os.environ |= {"RECIPE": "gemma-2b-l4", "OPENAI_API_KEY": KEY}
    page = doctor()
    assert page.count("nothing yet") == 4 and "trains from the start" in page
    assert "115 calls to make (0 already in the journal)" in page
    assert "about $0.00" not in page and "for 60 questions in both orders" in page
    assert not (tmp_path / "runs").exists()  # it only looked

    course = setup()
    work = course.store.local("preprocess")
    llm = LLM("gpt-6-luna", journal=work / "journal.jsonl", params=course.recipe.teacher.params)
    for request in islice(generation_requests(read_tasks(REPO / "data/seed_tasks.jsonl")), 40):
        llm.journal.add({"key": llm.key(request), "model": llm.model, "text": "",
                         "usage": {"prompt_tokens": 1000, "completion_tokens": 2000}})
    assert "75 calls to make (40 already in the journal)" in doctor()
    (work / "funnel.json").write_text('{"calls": 40}')
    part = course.store.seal("preprocess").path
    (course.store.local("train-progress") / "checkpoints/checkpoint-120").mkdir(parents=True)
    assert "rerun: goes on from step 120; no calls" in doctor()
    for folder, name in (("train", "result.json"), ("evaluate", "summary.json")):
        (course.store.local(folder) / name).write_text('{"done": true}')
        course.store.seal(folder)
    llm.journal.close()
    (work / "journal.jsonl").unlink()  # another machine: what is sealed counts
    page = doctor()
    assert "preprocess   part-0001 whole (2 files); journals/part-0001 whole (1 files); " in page
    assert "rerun: 0 calls to make (40 already in the journal)" in page
    assert "rerun: returns the sealed adapter" in page
    assert "rerun: 0 calls to make (0 already in the journal), about $0.00, for 60 quest" in page
    (part / "funnel.json").write_bytes(bytes(13))
    assert "part-0001 BROKEN (funnel.json is not what was written" in doctor()
