"""What the notebooks teach: prompts, the similarity filter, the masking collator, the judge.

Begin where your notebook is; each module says in its first line what it does.

    01 preprocess   tasks  korean  prompts  parsing  similarity  llm  generate
    02 train        collator  train  inference
    03 evaluate     judge  stats
    all of them     checkpoint  recipe  session  plots

One floor down is what serves them: scale (04), demo (05), sources (the Batch API, own documents,
whom to ask), reports, practice (the exercises), offline (the simulated world), and plumbing, which
no lesson takes apart.
"""

import logging
import os
import warnings
from pathlib import Path

from course_utils.plumbing.scrub import scrub

__version__ = "0.1.0"
REPO = Path(__file__).resolve().parent.parent
"""The checkout this package runs from; `data/` and `assets/` are found here."""

# tqdm's advice to install widgets: plain text bars will do.
warnings.filterwarnings("ignore", message="IProgress not found")
# bitsandbytes' advice to install kernels, on CPUs that have bfloat16: its own will do.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


class CourseError(Exception):
    """An error that this course raises on purpose: it says what to do next, and quotes no key."""

    def __init__(self, *args):
        # A file's name may hold bytes that are no UTF-8: they would be the next error.
        super().__init__(*(scrub(arg).encode(errors="backslashreplace").decode()
                           if isinstance(arg, str) else arg for arg in args))


def shown(path: str | Path) -> str:
    """Return a path as it is printed: from the checkout or the working folder, if it is there.

    Signs that are not seen, or do more than be seen, are written out: a line break as \\n.
    """
    path = Path(os.path.abspath(path))  # without its ".."
    base = next(filter(path.is_relative_to, (REPO, Path.cwd())), "")
    path = path.relative_to(base) if base else path
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode()
                   for sign in path.as_posix())
