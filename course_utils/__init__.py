"""What the notebooks teach: prompts, the similarity filter, the masking collator, the judge."""

from pathlib import Path

__version__ = "0.1.0"

REPO = Path(__file__).resolve().parent.parent
"""The checkout this package runs from; `data/` and `assets/` are found here."""


class CourseError(Exception):
    """The root of every error this course raises on purpose: its message says what to do next.

    A message may quote a library, which may quote a server, which may quote a key: none gets out.
    """

    def __init__(self, *args):
        from course_utils.secrets import scrub

        super().__init__(*(scrub(arg) if isinstance(arg, str) else arg for arg in args))
