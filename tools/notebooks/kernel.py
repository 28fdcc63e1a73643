"""Execute a notebook in a real kernel of this very Python, and make its outputs fit to be kept."""

import asyncio
import atexit
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jupytext
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from tools import REPO

SOURCES = REPO / "notebooks" / "src"

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Moving parts that say nothing once they stand still.
BAR = re.compile(
    r"^.*(?:\d%\|.*\||\d\w* \[(?:\d+:)?\d\d:\d\d[,<]|[━╸]{5}|\[=+[>.=]*\] |<progress\b|"
    r"\d [kMG]?i?B/s\b.*\beta\b).*$\n?",
    re.MULTILINE,
)
WIDGET = "application/vnd.jupyter.widget"
MOST_LINES = 32  # about a screen; a longer output keeps its beginning and its end


class NotebookFailed(Exception):
    """A cell that raised: `args[0]` is a sentence or two, `traceback` the whole of it."""

    def __init__(self, message: str, traceback: str):
        super().__init__(message)
        self.traceback = traceback


def sources(pattern: str = "*.py") -> list[Path]:
    """Return the notebooks' sources in the order of their numbers."""
    return sorted(SOURCES.glob(pattern))


def read_source(path: Path) -> NotebookNode:
    """Read a jupytext percent file; markdown cells carry metadata.lang "ko" or "en"."""
    return jupytext.read(path, fmt="py:percent")


def execute(
    notebook: NotebookNode,
    environment: dict[str, str],
    *,
    on_cell: Callable[[int], None] = lambda index: None,
    on_start: Callable[[int], None] = lambda pid: None,
) -> None:
    """Run every code cell in order, from the checkout's root; outputs go into `notebook`.

    `on_cell` hears the index of each cell before it runs, `on_start` the kernel's process id.
    Raises NotebookFailed.
    """

    def started(**_):
        # nbclient would answer Ctrl-C by ending the kernel and then raise something obscure.
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)
        on_start(client.km.provisioner.pid)

    client = NotebookClient(
        notebook, kernel_manager_class=_ThisPython, timeout=None, startup_timeout=300,
        iopub_timeout=60,  # a busy machine may deliver a cell's last output late
        record_timing=False, resources={"metadata": {"path": str(REPO)}},
        on_notebook_start=started, on_cell_execute=lambda cell, cell_index: on_cell(cell_index),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as profile:
        environment = {
            **os.environ, **environment,
            "IPYTHONDIR": profile,  # nobody's startup files
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else Colab's ipykernel speaks of breakpoints
            "PYTHONPATH": os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            what = _sentence(error.ename, error.evalue)
            raise NotebookFailed(what, ANSI.sub("", error.traceback)) from None
        except KeyboardInterrupt:
            atexit.unregister(client._cleanup_kernel)  # it would wait for the cell to end
            os.kill(client.km.provisioner.pid, signal.SIGKILL)
            raise
        except DeadKernelError:
            raise NotebookFailed(
                "The kernel ended in the middle of it, as it does when the memory is full: close "
                "other programs and run it again, it goes on from what is saved.",
                "The kernel died; it left no traceback.",
            ) from None


def tidy(text: str, folders: dict[str, str]) -> str:
    """Return what is worth keeping: no colours, no progress bars, no paths.

    `folders` maps machine folders to what is shown in their place.

    >>> tidy("50%|#  | 1/2\\r100%|##| 2/2\\nin /work/x/runs", {"/work/x/": ""})
    'in runs'
    """
    text = ANSI.sub("", text).replace("\r\n", "\n")
    text = "\n".join(
        next((part for part in reversed(line.split("\r")) if part.strip()), "")
        for line in text.split("\n")
    )
    text = BAR.sub("", text)
    text = re.sub(r"/tmp/ipykernel_\d+/\d+\.py", "<cell>", text)
    for folder, shown in folders.items():
        text = text.replace(folder, shown)
    return re.sub(r"\b0x[0-9a-f]{8,}\b", "0x...", text)


def tidy_outputs(notebook: NotebookNode, folders: dict[str, str]) -> None:
    """Tidy and shorten every output in place, join pieces of one stream, drop widgets."""
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        outputs: list[NotebookNode] = []
        for output in cell.outputs:
            before = outputs[-1] if outputs else {}
            if output.output_type == "stream" and before.get("name") == output.name:
                before.text += output.text
            else:
                outputs.append(output)
        for output in outputs:
            if output.output_type == "stream":
                output.text = shorten(tidy(output.text, folders))
            elif output.output_type == "error":
                output.traceback = [tidy(line, folders) for line in output.traceback]
            data = output.get("data", {})
            if any(kind.startswith(WIDGET) for kind in data):
                data.clear()  # its text is no more than the widget's repr
            for kind, content in data.items():
                if isinstance(content, str) and not kind.startswith("image/p"):
                    text = tidy(content, folders)
                    data[kind] = shorten(text) if kind == "text/plain" else text
            output.pop("transient", None)
        cell.outputs = [
            output for output in outputs
            if output.get("text", "").strip() or output.get("data") or "ename" in output
        ]  # fmt: skip
    notebook.metadata.pop("widgets", None)


def machine_folders(**shown: str | Path) -> dict[str, str]:
    """Return what `tidy` replaces: the checkout, this Python, the home folder.

    `shown` adds folders of one's own: `machine_folders(runs="/tmp/abc")` shows them as "runs".
    """
    return {
        **{str(path): name for name, path in shown.items()}, f"{REPO}/": "", str(REPO): ".",
        sys.prefix: "<python>", sys.base_prefix: "<python>", str(Path.home()): "~",
    }  # fmt: skip


def shorten(text: str) -> str:
    """Return a text of at most 32 lines; the middle of a longer one is left out, and said so."""
    lines = text.rstrip("\n").split("\n")
    if len(lines) <= MOST_LINES:
        return text
    head, tail = lines[: MOST_LINES - 6], lines[-5:]
    left_out = len(lines) - len(head) - len(tail)
    return "\n".join([*head, f"... ({left_out} more lines) ...", *tail]) + "\n"


def _sentence(name: str, message: str) -> str:
    """Return an exception as text; the course's own messages are sentences and need no name."""
    message = ANSI.sub("", message).strip()
    if message.endswith(".") and " " in message:
        return message
    return f"{name}: {message}" if message else name


class _ThisPython(AsyncKernelManager):
    """Kernels of the running interpreter, whatever kernels are registered on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = "-m ipykernel_launcher -f {connection_file} --log-level=ERROR"
        # ERROR: no advice about encryption within one machine
        return KernelSpec(argv=[sys.executable, *command.split()], language="python")
