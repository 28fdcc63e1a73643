"""The first cell as it stands, on a machine that has what Colab's image has.

The machine is the image's packages (.venv-image), its IPython kernel, a fake google.colab and a
Drive. Three things are put in the place of others: a repository on this disk for GitHub's, a folder
for /content, and Python 3.11 or what runs these tests for the image's 3.13.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpec

from course_utils import REPO, __version__
from tools import repository

IMAGE = REPO / ".venv-image"
pytestmark = pytest.mark.skipif(
    Path(sys.prefix).name != ".venv-colab" or not IMAGE.is_dir(),
    reason="only the Colab stack has the packages of Colab's image: STACK=colab make test",
)
SOURCE = f"https://github.com/{repository()}"
NOWHERE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1",
}  # fmt: skip
STEP = """
import torch
from course_utils.inference import load_model, reply
model, tokenizer = load_model(course.base_model, course.artefact("train") / "adapter")
model.train()
for name, weight in model.named_parameters():
    weight.requires_grad_("lora_" in name)
trained = [weight for weight in model.parameters() if weight.requires_grad]
before = [weight.detach().clone() for weight in trained]
ids = tokenizer("전주는 전북특별자치도에 있습니다.", return_tensors="pt").input_ids
model(input_ids=ids, labels=ids).loss.backward()
torch.optim.AdamW(trained, lr=1e-3).step()
moved = sum(not torch.equal(old, new) for old, new in zip(before, trained))
print(len(trained) > 20, moved == len(trained))
"""


def first_cell() -> str:
    """The folded set-up and the two lines after it, the same in every notebook."""
    starts = []
    for path in sorted((REPO / "notebooks").glob("??/0*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        first, second = [cell for cell in cells if cell["cell_type"] == "code"][:2]
        assert first["metadata"]["cellView"] == "form"
        assert first["metadata"]["jupyter"]["source_hidden"]
        starts.append("".join(first["source"]) + "\n\n" + "".join(second["source"]))
    assert len(starts) >= 10 and all(start == starts[0] for start in starts)
    return starts[0]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The course as a tagged repository, with a folder of ours where it says /content."""
    folder = tmp_path_factory.mktemp("github")
    content = folder / "content"
    (content / "drive/MyDrive").mkdir(parents=True)
    course = folder / "course"
    for name in ("course_utils", "assets/tiny-gemma-ko", "assets/sample", "data"):
        shutil.copytree(REPO / name, course / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, course)
    path = course / "course_utils/plumbing/colab.py"
    text = path.read_text(encoding="utf-8")
    assert text.count('Path("/content') == 2
    path.write_text(text.replace('Path("/content', f'Path("{content}'), encoding="utf-8")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(course)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "all"], check=True)
    subprocess.run([*git, "tag", f"v{__version__}"], check=True)
    fake = folder / "fake/google/colab"  # without an __init__ above: protobuf is in google, too
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("from google.colab import drive, userdata\n")
    (fake / "drive.py").write_text("def mount(folder, force_remount=False): pass\n")
    (fake / "userdata.py").write_text(
        "class SecretNotFoundError(Exception): pass\n"
        "def get(key): raise SecretNotFoundError(f'Secret {key} does not exist.')\n"
    )
    return folder


class Colab:
    """One machine: its Python, and a kernel that runs cells."""

    def __init__(self, folder: Path, published: Path, **environment: str):
        self.python = folder / "machine/bin/python"
        # Links, as in .ci/setup: pip leaves the files of the image as they are.
        shutil.copytree(IMAGE, folder / "machine", symlinks=True, copy_function=os.link)
        self.cell = first_cell().replace("/content", str(published / "content"))
        shutil.rmtree(published / "content/instruction-tuning-course", ignore_errors=True)
        kept = {"PATH", "HOME", "TMPDIR", "LANG", "OMP_NUM_THREADS"}
        self.environment = {
            **{k: v for k, v in os.environ.items() if k in kept or k.startswith("PIP_")},
            "COLAB_RELEASE_TAG": "release-colab-20260825", "PYTHONPATH": str(published / "fake"),
            "IPYTHONDIR": str(folder), "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{published}/course.insteadOf",
            "GIT_CONFIG_VALUE_0": SOURCE, **environment,
        }  # fmt: skip
        self.start()

    def start(self) -> None:
        self.manager = KernelManager()
        argv = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager._kernel_spec = KernelSpec(argv=argv, language="python")
        self.manager.start_kernel(env=self.environment, cwd=str(self.python.parents[2]))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.run("import google.colab")  # as every kernel of Colab has

    def run(self, code: str) -> str:
        """Return what a cell printed, and at the end of it its error."""
        said = []

        def hear(message):
            content = message["content"]
            said.append(content.get("text", ""))
            if message["msg_type"] == "error":
                said.append(f"{content['ename']}: {content['evalue']}")

        self.client.execute_interactive(code, output_hook=hear, timeout=400, allow_stdin=False)
        return "".join(said)

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def packages(self) -> dict[str, str]:
        code = "from course_utils.plumbing.colab import installed; print(json.dumps(installed()))"
        code = f"import json; {code}"
        return json.loads(subprocess.check_output([self.python, "-c", code], cwd=REPO))


@pytest.fixture(scope="module")
def colab(tmp_path_factory, published):
    machines = []

    def make(**environment: str) -> Colab:
        machines.append(Colab(tmp_path_factory.mktemp("colab"), published, **environment))
        return machines[-1]

    yield make
    for machine in machines:
        machine.stop()


@pytest.fixture(scope="module")
def student(colab):
    """A machine on which the first cell has run, its packages before that, and the card."""
    machine = colab()
    return machine, machine.packages(), machine.run(machine.cell)


def test_the_first_cell_makes_a_machine_that_trains_and_says_what_it_changed(student):
    machine, before, card = student
    after = machine.packages()
    assert before["torchao"] == "0.10.0" and "trl" not in before
    line = card.splitlines()[0]  # git and pip say nothing
    assert line.startswith("Installed   ")
    replaced, new, removed = line.removeprefix("Installed   ").split("; ")
    assert replaced == ", ".join(
        f"{name} {before[name]} -> {after[name]}"
        for name in ("datasets", "huggingface_hub", "pyarrow")
    )
    assert {name.split()[0] for name in new.removeprefix("new: ").split(", ")} == {
        "bm25s", "course_utils", "kiwipiepy", "kiwipiepy_model", "koreanize_matplotlib",
        "rapidfuzz", "trl",
    }  # fmt: skip
    assert removed == "removed: torchao 0.10.0 (peft refuses it)"
    assert {name for name in before if after.get(name) != before[name]} == {
        "datasets", "huggingface_hub", "pyarrow", "torchao",
    }  # fmt: skip
    assert "Recipe      offline (auto: " in card and "Error" not in card
    assert f"transformers {before['transformers']}, trl {after['trl']}" in card
    assert "drive/MyDrive/instruction-tuning/runs" in card and "Training    " not in card
    said = machine.run(STEP)
    assert said.splitlines()[-1] == "True True", said


def test_run_again_it_needs_no_network_and_what_refuses_is_one_line_of_the_card(student):
    machine, *_ = student
    machine.stop()
    machine.environment |= NOWHERE
    machine.start()
    card = machine.run(machine.cell)
    assert card.startswith("Recipe ") and "Training    " not in card
    for folder in IMAGE.glob("lib/python*/site-packages/torchao*"):  # back, as an upgrade would
        shutil.copytree(folder, machine.python.parents[1] / folder.relative_to(IMAGE))
    assert machine.run("course = setup()").splitlines()[-1].startswith(
        "Training    torchao 0.10.0 is refused by peft 0.20.0 (Found an incompatible version of"
    )
    card = machine.run(machine.cell)
    assert card.startswith("Installed   removed: torchao 0.10.0 (peft refuses it)\nRecipe ")
    assert "Training    " not in card


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"GIT_CONFIG_VALUE_0": "https://x.invalid/", "https_proxy": "http://127.0.0.1:9"},
         f"ConnectionError: {SOURCE} could not be cloned, see above: run this cell again."),
        (NOWHERE,
         "CourseError: The course is not installed: the package index cannot be reached (pip: "),
    ],
    ids=["GitHub", "index"],
)  # fmt: skip
def test_without_a_network_it_is_one_sentence_and_nothing_is_half_installed(
    colab, environment, sentence
):
    machine = colab(**environment)
    before = machine.packages()
    said = machine.run(machine.cell)
    assert sentence in said and "Recipe " not in said
    assert machine.packages() == before
