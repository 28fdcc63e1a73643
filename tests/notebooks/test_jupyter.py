"""The committed notebooks as a student has them: opened in JupyterLab, "Restart and run all".

A real browser clicks; the files are copies, so what is committed stays as it is. JUPYTER=all runs
every notebook in both languages, in order, as one student would (`make jupyter-test`, about fifteen
minutes; without a Chromium they are skipped). Else a kernel runs 05 alone, without a browser.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import nbformat
import pytest
from playwright.sync_api import TimeoutError

from tools import REPO
from tools.notebooks.kernel import SOURCES, execute, read_source, sources

RUN_ALL = 'jp-button[data-command="notebook:restart-run-all"]:visible'
PROMPTS = "[...document.querySelectorAll('.jp-InputPrompt')].map(prompt => prompt.textContent)"
WAITING = f"{PROMPTS}.some(text => text.includes('*'))"
TOKEN = "student"
ACCEPT = ".jp-Dialog .jp-mod-accept"
SAVE = 'jp-button[data-command="docmanager:save"]:visible'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The notebooks and their figures, free to be run and saved; no cell counts as run yet."""
    folder = tmp_path_factory.mktemp("jupyter")
    shutil.copytree(REPO / "assets" / "figures", folder / "assets" / "figures")
    for language in ("ko", "en"):
        (folder / "notebooks" / language).mkdir(parents=True)
        for path in (REPO / "notebooks" / language).glob("*.ipynb"):
            notebook = nbformat.read(path, as_version=4)
            for cell in code(notebook):
                cell.execution_count = None
            nbformat.write(notebook, folder / "notebooks" / language / path.name)
    return folder


@pytest.fixture(scope="module", params=["ko", "en"])
def lab(request, folder, tmp_path_factory):
    """One student's JupyterLab, with runs of its own: its address and the language."""
    home = tmp_path_factory.mktemp(f"home-{request.param}")
    environment = {
        **os.environ, "HOME": str(home), "RUNS": str(home / "runs"), "RECIPE": "offline",
        "JUPYTER_CONFIG_DIR": str(home), "JUPYTER_DATA_DIR": str(home), "PRESET": "full",
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "IPYTHONDIR": str(home),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0",
        "--ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    log = (home / "log.txt").open("w")
    server = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield started(home / "runtime", server, log.name), request.param
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        log.close()


def started(runtime, server, log, seconds=60):
    end = time.monotonic() + seconds
    while not (found := list(runtime.glob("jpserver-*.json"))):
        assert server.poll() is None and time.monotonic() < end, open(log).read()[-2000:]
        time.sleep(0.1)
    return json.loads(found[0].read_text())["url"]


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def test_the_demo_runs_in_a_kernel(tmp_path):
    environment = {"RUNS": str(tmp_path), "DATA": "", "RECIPE": "offline"}
    execute(read_source(SOURCES / "05_demo.py"), environment)


@pytest.mark.skipif(os.environ.get("JUPYTER") != "all", reason="only with make jupyter-test")
@pytest.mark.parametrize("name", [path.stem for path in sources()])
def test_restart_and_run_all(visit, lab, name):
    root, language = lab
    # A workspace of its own: the shared one opens the notebooks of before as well.
    where = f"lab/workspaces/{name}/tree/notebooks/{language}/{name}.ipynb"
    page = visit(f"{root}{where}?token={TOKEN}", height=1000)
    restart_and_run_all(page, root)
    notebook = finished(page, root, f"notebooks/{language}/{name}.ipynb")
    shot = REPO / "build" / "screenshots" / f"jupyter-{name}-{language}.png"  # to be looked at
    shot.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=shot)
    close(page, root)

    committed = nbformat.read(REPO / "notebooks" / language / f"{name}.ipynb", as_version=4)
    ran, kept = code(notebook), code(committed)
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert [error for cell in ran for error in complaints(cell)] == []
    silent = [new.source for new, old in zip(ran, kept, strict=True)
              if old.outputs and not new.outputs]  # fmt: skip
    assert silent == [], "these cells show nothing, and do so in the committed notebook"


def restart_and_run_all(page, root, tries=10):
    """Click until cells are waiting for their turn: nothing happens while the kernel starts."""
    for _ in range(300):  # restarted while it still connects, it may never run anything
        kernels = api(f"{root}api/kernels")
        if any(kernel["execution_state"] == "idle" and kernel["connections"] for kernel in kernels):
            break
        time.sleep(0.2)
    for _ in range(tries):
        page.click(RUN_ALL)
        if appears(page, f"!!document.querySelector('{ACCEPT}')", 5):
            page.click(ACCEPT)
            if appears(page, WAITING, 30):
                return
    raise AssertionError(f"nothing was run after {tries} clicks")


def appears(page, script, seconds):
    try:
        return page.wait_for_function(script, timeout=1000 * seconds)
    except TimeoutError:
        return None


def finished(page, root, path, seconds=1200):
    """The notebook as it is saved once every cell has run, or one has failed."""
    ran, quiet, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)
        idle = all(kernel["execution_state"] == "idle" for kernel in api(f"{root}api/kernels"))
        quiet = quiet + 1 if idle and not page.evaluate(WAITING) else 0
        if quiet == 4:  # for a moment it is idle between two cells as well
            page.click(SAVE)
            time.sleep(1)
            # Through Jupyter, which puts a file aside that others read while it is written.
            notebook = nbformat.from_dict(api(f"{root}api/contents/{path}")["content"])
            ran = [cell.execution_count for cell in code(notebook)]
            outputs = [output for cell in code(notebook) for output in cell.outputs]
            if all(ran) or any(output.output_type == "error" for output in outputs):
                return notebook
            quiet = 0
    raise AssertionError(f"{path}: {sum(map(bool, ran))} of {len(ran)} cells ran in {seconds} s")


def complaints(cell):
    """Errors and warnings that a cell shows."""
    where = cell.source.split("\n")[0]
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"{where}: {output.ename}: {output.evalue}"
        elif output.get("name") == "stderr" and "Warning" in output.text:
            yield f"{where}: {output.text[:300]}"


def close(page, root):
    """Close the tab and end its kernel: the next notebook has the machine to itself."""
    page.close()
    for session in api(f"{root}api/sessions"):
        with suppress(HTTPError):  # Jupyter may lose track of a kernel; it ends with the server
            api(f"{root}api/sessions/{session['id']}", method="DELETE")


def api(address, method="GET"):
    """Ask the Jupyter server itself."""
    request = Request(address, method=method, headers={"Authorization": f"token {TOKEN}"})
    for seconds in (1, 2, 4, 0):  # it answers 500 while a kernel starts or ends
        try:
            with urlopen(request) as answer:
                return json.loads(answer.read() or "null")
        except HTTPError:
            if not seconds:
                raise
            time.sleep(seconds)
