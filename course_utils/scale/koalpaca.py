"""KoAlpaca's published instruction data as tasks: a file that was downloaded, or the Hub.

    v1.0   ko_alpaca_data.json    49,620 rows   instruction, input, output   CC-BY-NC-4.0
    v1.1   KoAlpaca_v1.1.jsonl    about 21,000  instruction, output, url     beomi/KoAlpaca-v1.1a

v1.0 is Alpaca's data, its questions translated by machine and answered anew by ChatGPT; v1.1 begins
with questions that people asked on Naver. Source: https://github.com/Beomi/KoAlpaca. Taught in 04,
section 2.
"""

import re
from pathlib import Path
from typing import Any

from course_utils import CourseError
from course_utils.tasks import Task, read_tasks

HUB_ID = "beomi/KoAlpaca-v1.1a"


class KoAlpacaError(CourseError):
    """A data set that cannot be had from the Hub, or one that does not hold instruction data."""


def load_koalpaca(source: str | Path = HUB_ID) -> list[Task]:
    """Return the tasks of a KoAlpaca file (JSON or JSONL), or of a data set on the Hub, in order.

    Nothing is dropped: what cannot be trained on is counted by `encode_tasks`. Fields beside
    instruction, input and output (v1.1's `url`) go to `meta`. Raises KoAlpacaError, TaskFileError.

        {"instruction": "왜 배가 고픈가요?", "output": "...", "url": "https://..."}
        ->  Task("왜 배가 고픈가요?", "", "...", meta={"url": "https://..."})
    """
    path = Path(source).expanduser()
    if path.exists() or path.suffix in (".json", ".jsonl"):
        return read_tasks(path)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise KoAlpacaError(
            f"'{source}' is neither a file nor the name of a data set on the Hub: give a .json or "
            f".jsonl file, or a name such as {HUB_ID}."
        )
    return [_task(row, f"{source}, row {n}") for n, row in enumerate(_from_hub(str(source)), 1)]


def _from_hub(name: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, split="train")
    except Exception as error:  # each library on the way has error classes of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise KoAlpacaError(
            f"The data set '{name}' cannot be loaded from the Hub ({reason}): check the name and "
            "the network, or give a file that you downloaded, such as KoAlpaca_v1.1.jsonl."
        ) from error


def _task(row: dict[str, Any], where: str) -> Task:
    for name in ("instruction", "output"):
        if not isinstance(row.get(name), str):
            raise KoAlpacaError(
                f'{where} has no text in "{name}" (its fields: {", ".join(row)}): this is not '
                "instruction data with KoAlpaca's fields; give another data set."
            )
    extra = {k: v for k, v in row.items() if k not in ("instruction", "input", "output")}
    return Task(row["instruction"], row.get("input") or "", row["output"], meta=extra)
