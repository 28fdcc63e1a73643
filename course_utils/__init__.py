"""What the notebooks teach: prompts, the similarity filter, the masking collator, the judge.

Begin where your notebook is; each module says in its first line what it does.

    01 preprocess   tasks  prompts  candidates  rules  similarity  generate  domain  share
    02 train        collator  recipe  train  trainer  preflight  resume  inference
    03 evaluate     judging  judge  stats  labelling  judgment_report  report
    04 scale up     memory  parallel  tiny  koalpaca
    05 demo         demo
    all of them     runtime  llm  journal  checkpoint  secrets  plots  korean  practice

What those stand on: batch and connection under llm; slices, parts and sealing under checkpoint;
intervals, agreement, ranking and replies under stats; offline/ is the simulated world.
"""

import warnings
from pathlib import Path

__version__ = "0.1.0"

REPO = Path(__file__).resolve().parent.parent
"""The checkout this package runs from; `data/` and `assets/` are found here."""

# tqdm's advice to install widgets, at the top of every notebook: plain text bars will do.
warnings.filterwarnings("ignore", message="IProgress not found")


class CourseError(Exception):
    """The root of every error this course raises on purpose: its message says what to do next.

    A message may quote a library, which may quote a server, which may quote a key: none gets out.
    """

    def __init__(self, *args):
        from course_utils.secrets import scrub

        super().__init__(*(scrub(arg) if isinstance(arg, str) else arg for arg in args))
