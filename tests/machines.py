"""A machine that a test makes up: no GPU, no key, an empty folder; and Colab's own library."""

import os
import sys
import types
from types import SimpleNamespace

from course_utils import session
from course_utils.inference import Device
from course_utils.plumbing import colab, scrub, secrets

L4 = Device("cuda", "NVIDIA L4, 22 GiB, capability 8.9", 22.0, (8, 9))
T4 = Device("cuda", "Tesla T4, 15 GiB, capability 7.5", 14.7, (7, 5))
CPU = Device("cpu", "CPU, 2 cores")
KEY = "sk-planted-key"


def bare(monkeypatch, folder):
    """No GPU, no keys, no Colab, an empty folder; whatever setup sets is undone."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("RECIPE", "DATA", "PRESET", "OPENAI_API_KEY", "GEMINI_API_KEY", "GROQ_API_KEY",
                 "LLM_API_KEY", "HF_TOKEN", "TEACHER", "JUDGE", "MODEL_PROXY_HOST",
                 "COLAB_RELEASE_TAG", "OFFLINE_URL", "HUB_MIRROR"):  # fmt: skip
        os.environ.pop(name, None)
    os.environ["RUNS"] = str(folder / "runs")
    monkeypatch.chdir(folder)
    for module in ("", ".session", ".plumbing.secrets", ".plumbing.model_folder"):
        monkeypatch.setattr(f"course_utils{module}.REPO", folder)
    monkeypatch.setattr(scrub, "_found", {})
    monkeypatch.setattr(secrets, "can_ask", lambda: False)
    monkeypatch.setattr(session, "_exported", {})
    monkeypatch.setattr(colab, "_silent_since", float("-inf"))
    monkeypatch.setattr(session, "find_device", lambda: CPU)
    # Packages that other tests have loaded are not this machine's concern.
    monkeypatch.setattr(session, "PACKAGES", ("torch",))
    monkeypatch.setattr(session, "refusal", lambda: None)


class SecretNotFoundError(Exception):
    """google.colab.userdata's, as are the next two."""

    def __init__(self, key):
        super().__init__(f"Secret {key} does not exist.")


class TimeoutException(Exception):
    def __init__(self, key):
        super().__init__(f"Requesting secret {key} timed out.")


class NotebookAccessError(Exception):
    def __init__(self, key):
        super().__init__(f"Notebook does not have access to secret {key}")


def on_colab(monkeypatch, get=lambda name: None, mount=lambda folder, force_remount: None):
    """A google.colab with the parts the course uses, which raise what the real ones raise."""
    os.environ["COLAB_RELEASE_TAG"] = "release-colab-test"
    package = types.ModuleType("google.colab")
    package.userdata, package.drive = SimpleNamespace(get=get), SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", package)
