"""The card at the top of every notebook: where to open it, what it needs and makes, what it takes.

Its words are in cards.yaml. Minutes and memory are in measured.json: "offline" from the last
`make notebooks`, a Colab GPU's from tools/colab; whatever was not measured is said to be so.
"""

import json
import os
import threading
import time
from datetime import date

import psutil
import yaml

from tools import REPO, repository, tag

CARDS = yaml.safe_load((REPO / "tools" / "notebooks" / "cards.yaml").read_text(encoding="utf-8"))
WORDS = CARDS.pop("words")
MEASURED = REPO / "notebooks" / "measured.json"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def links(name: str, language: str) -> str:
    """Return the line below the title: Colab badge, the other language, neighbours."""
    say, other = WORDS[language], {"ko": "en", "en": "ko"}[language]
    address = f"https://colab.research.google.com/github/{repository()}/blob/{tag()}"
    parts = [f"[![Open in Colab]({BADGE})]({address}/notebooks/{language}/{name}.ipynb)"]
    parts += [f"[{say['other']}](../{other}/{name}.ipynb)"]
    names = [*CARDS]
    before, (_, *after) = names[:names.index(name)], names[names.index(name):]
    parts += [f"← [{_title(one, language)}]({one}.ipynb)" for one in before[-1:]]
    parts += [f"[{_title(one, language)}]({one}.ipynb) →" for one in after[:1]]
    return " · ".join(parts)


def card(name: str, language: str) -> str:
    """Return the card of a notebook as Markdown."""
    say, facts = WORDS[language], CARDS[name]
    gpus, unknown = dict(measured().get(name, {})), say["not measured"]
    offline, rows = gpus.pop("offline", None), []
    if offline:
        where = say["offline"].format(cores=offline["cores"], date=offline["date"])
        rows.append([where, _took(offline, say), f"{offline['memory_gib']:.1f} GiB", say["free"]])
    for gpu, found in gpus.items():
        where = f"Colab {gpu}, {found['recipe']} ({found['date']})"
        memory = say["both"].format(gpu=found["gpu_gib"], ram=found["memory_gib"])
        cost = f"${found['dollars']:.2f}" if found["dollars"] else say["free"]
        rows.append([where, _took(found, say), memory, cost])
    if not gpus:
        rows.append(["Colab L4", unknown, unknown, unknown if facts["api"] else say["free"]])
    head = [say[key] for key in ("where", "time", "memory", "cost")]
    lines = [f"**{say['needs']}** {facts['needs'][language]}  ",
             f"**{say['makes']}** {facts['makes'][language]}", ""]
    lines += ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * 4, *rows)]
    return "\n".join(lines)


def measured() -> dict[str, dict]:
    """Return measured.json: for each notebook what it took, offline and on Colab's GPUs."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}


def with_card(source: str, name: str, language: str) -> str:
    """Return a notebook's first text with the links below its title and the card at its end."""
    if name not in CARDS:
        return source
    title, _, rest = source.partition("\n")
    return f"{title}\n\n{links(name, language)}\n{rest}\n\n{card(name, language)}"


class Meter:
    """What an execution takes: seconds and the kernel's largest resident memory, children too."""

    def __init__(self):
        self.peak, self._start, self._over = 0, time.perf_counter(), threading.Event()

    def watch(self, pid: int) -> None:
        """Begin to look at a kernel's memory, four times a second."""
        threading.Thread(target=self._look, args=(pid,), daemon=True).start()

    def _look(self, pid: int) -> None:
        while not self._over.wait(0.25):
            try:
                kernel = psutil.Process(pid)
                family = [kernel, *kernel.children(recursive=True)]
                self.peak = max(self.peak, sum(p.memory_info().rss for p in family))
            except psutil.Error:
                continue  # a child has just ended, or all is over

    def write(self, name: str) -> None:
        """Put what was measured into measured.json."""
        self._over.set()
        known = measured()
        known.setdefault(name, {})["offline"] = {
            "seconds": round(time.perf_counter() - self._start),
            "memory_gib": round(self.peak / 2**30, 1),
            "cores": os.cpu_count(), "date": date.today().isoformat(),
        }  # fmt: skip
        text = json.dumps(dict(sorted(known.items())), indent=1)
        MEASURED.write_text(text + "\n", encoding="utf-8")


def _took(found: dict, say: dict[str, str]) -> str:
    seconds, minutes = found["seconds"], round(found["seconds"] / 60)
    return say["seconds"].format(seconds) if minutes < 2 else say["minutes"].format(minutes)


def _title(name: str, language: str) -> str:
    return f"{name[:2]} {CARDS[name]['title'][language]}"
