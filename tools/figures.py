"""Draw the four pictures of the course: python -m tools.figures writes assets/figures/.

As SVG for pages; as PNG for notebooks, which show them in an output, where Colab sees them too.

What a picture shows is computed, not typed: tokens by the collator, counts by the filter, scores by
the statistics. Letters are outlines, so Hangul needs no font where the picture is seen, and every
text is also in the file's description: that is what the test compares. On a white card, for GitHub
in the dark. Shown in README, 01 section 4, 02 section 3 and 03 section 8.
"""

import json
import re
from itertools import product

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from course_utils import REPO, similarity
from course_utils.collator import IGNORE_INDEX, encode
from course_utils.generate import question_text
from course_utils.inference import load_tokenizer
from course_utils.plots import BLUE, GREEN, GREY, INK, ORANGE, PALE, font_file, use_korean_font
from course_utils.prompts import get_template
from course_utils.session import BASE_MODEL
from course_utils.stats import Game
from course_utils.tasks import read_tasks

FOLDER = REPO / "assets" / "figures"
SAMPLE = REPO / "assets" / "sample" / "preprocess" / "tasks.jsonl"
TINTS = {BLUE: "#E3F0F8", ORANGE: "#FBEADF", GREEN: "#E0F2EB", GREY: "#F3F4F5"}


def card(width, height, title):
    """Return a figure of this size in inches, and axes whose unit is an inch from the top left."""
    use_korean_font()
    fig = plt.figure(figsize=(width, height), facecolor="white")
    plt.close(fig)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    words(ax, 0.25, 0.32, title, size=12, bold=True, ha="left")
    return fig, ax


def words(ax, x, y, text, size=9.5, color=INK, bold=False, **style):
    # By file and not by weight: matplotlib's versions disagree on how heavy this font is.
    style |= {"fontproperties": font_file(bold=True)} if bold else {}
    ax.text(x, y, text, **{"color": color, "ha": "center", "va": "center", "linespacing": 1.45,
                           **style, "fontsize": size})  # fmt: skip


def box(ax, x, y, w, h, text, color=GREY, size=9.5, dashed=False, **style):
    """A tinted box from its top left corner with a text in the middle."""
    ax.add_patch(FancyBboxPatch(
        (x, y), w, h, boxstyle="round,pad=0,rounding_size=0.07", linewidth=1.2,
        linestyle="--" if dashed else "-", edgecolor=color, facecolor=TINTS.get(color, color),
    ))  # fmt: skip
    words(ax, x + w / 2, y + h / 2, text, size, **style)


def arrow(ax, start, end, color=INK, dashed=False):
    ax.add_patch(FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=11, linewidth=1.3, color=color,
        linestyle="--" if dashed else "-", shrinkA=0, shrinkB=0,
    ))  # fmt: skip


def pipeline():
    """Seeds to report, with the two addresses that are either real or simulated."""
    fig, ax = card(10, 4.1, "강의 전체  The whole course")
    y, h, middle = 1.72, 0.72, 2.08
    chain = [
        ("씨앗 과제\nseeds", GREY), ("01 전처리\npreprocess", BLUE),
        ("지시 데이터\ninstructions", GREY), ("02 학습\ntrain", BLUE),
        ("어댑터\nadapter", GREY), ("03 평가\nevaluate", BLUE), ("보고서\nreport", GREY),
    ]  # fmt: skip
    left, edges = 0.3, []
    for text, color in chain:
        w = 1.42 if color == BLUE else 1.04
        box(ax, left, y, w, h, text, color, bold=color == BLUE)
        edges.append((left, left + w))
        left += w + 0.185
    for (_, end), (start, _) in zip(edges, edges[1:], strict=False):
        arrow(ax, (end, middle), (start, middle))
    center = [sum(pair) / 2 for pair in edges]

    api = "OpenAI 호환 API: 교사와 심사 모델  teacher, judge\n"
    api += "실제 모델 real    또는    모의 서버 simulated"
    box(ax, center[1] - 0.71, 0.62, center[5] - center[1] + 1.42, 0.6, api, ORANGE, dashed=True)
    base = "베이스 모델  base model\n실제 모델 real    또는    모의 tiny-gemma-ko simulated"
    box(ax, center[3] - 1.9, 3.12, 3.8, 0.6, base, ORANGE, dashed=True)
    for x in (center[1], center[5]):
        arrow(ax, (x, 1.22), (x, y), ORANGE, dashed=True)
    arrow(ax, (center[3], 3.12), (center[3], y + h), ORANGE, dashed=True)
    box(ax, 0.3, 3.42, 1.95, 0.6, "04 키우기\nscale up", BLUE, bold=True)
    box(ax, center[5] - 0.71 + 0.45, 3.12, 1.42, 0.6, "05 데모\ndemo", BLUE, bold=True)
    arrow(ax, (center[4], y + h), (center[5] - 0.26, 3.28))
    box(ax, 0.3, 2.72, 1.95, 0.6, "06 내 자료\nown documents", BLUE, bold=True)
    arrow(ax, (2.25, 2.86), (edges[2][0] + 0.3, y + h))
    arrow(ax, (2.25, 3.6), (edges[3][0] + 0.1, y + h))
    return fig


def masking():
    """A real row of tokens: what is only read, and what is trained."""
    tokenizer = load_tokenizer(REPO / BASE_MODEL)
    template = get_template("chat", tokenizer)
    tasks = read_tasks(SAMPLE)
    task = min(tasks, key=lambda t: len(tokenizer(template.render(t) + t.output)["input_ids"]))
    row = encode(tokenizer, template.render(task), task.output, 256, end=template.end)
    title = "마스킹: 프롬프트는 읽기만, 응답만 배운다  Masking: only the response is trained"
    fig, ax = card(10, 2.7, title)
    pieces = [tokenizer.decode([i]).replace("\n", "↵").replace(" ", "␣") for i in row["input_ids"]]
    ems = [sum(1.75 if ord(c) > 0x2FF else 1 for c in piece) for piece in pieces]
    widths = [max(0.4, 0.085 * em + 0.14) for em in ems]
    x, y = 0.25, 0.62
    for piece, label, w, token in zip(
        pieces, row["labels"], widths, row["input_ids"], strict=True
    ):
        if x + w > 9.8:
            x, y = 0.25, y + 0.8
        trained = label != IGNORE_INDEX
        assert not trained or label == token
        color = GREEN if trained else GREY
        box(ax, x, y, w, 0.34, piece, color, size=8.5)
        words(ax, x + w / 2, y + 0.47, str(label), 7.5, GREEN if trained else "#5F656B")
        x += w + 0.05
    trained = sum(label != IGNORE_INDEX for label in row["labels"])
    masked = len(row["labels"]) - trained
    box(ax, 0.25, 2.22, 0.3, 0.22, "", GREY)
    words(ax, 0.65, 2.33, f"레이블 −100, 손실에 들어가지 않음  masked ({masked})", 9, ha="left")
    box(ax, 4.4, 2.22, 0.3, 0.22, "", GREEN)
    learned = f"배우는 토큰, 끝 표시까지  trained, end of turn too ({trained})"
    words(ax, 4.8, 2.33, learned, 9, ha="left")
    return fig


def pruned_pairs(threshold=0.7):
    """Count the pairs of the sample's tasks that are left after each bound, running the filter."""
    texts = list(map(question_text, read_tasks(SAMPLE)))
    rows = [similarity.morphemes(text) for text in texts]
    tokens = dict(zip(texts, rows, strict=True))
    found = similarity.filter_similar(texts, threshold, tokens.__getitem__)
    # The second 는 of a text counts as a token of its own: (는, 0), (는, 1).
    numbered = [[(token, row[:i].count(token)) for i, token in enumerate(row)] for row in rows]
    columns = {token: i for i, token in enumerate(sorted({t for row in numbered for t in row}))}
    has = np.zeros((len(rows), len(columns)), np.float32)
    for i, row in enumerate(numbered):
        has[i, [columns[token] for token in row]] = 1
    kept = np.zeros(len(rows), bool)
    kept[found.kept] = True
    asked = kept & (np.arange(len(rows))[None] < np.arange(len(rows))[:, None])
    # The margin keeps what meets the threshold exactly.
    shared, length = has @ has.T, has.sum(1)
    least = threshold * (length[:, None] + length) / 2 - 1e-4
    fits = asked & (np.minimum.outer(length, length) >= least)
    return {
        "모든 쌍  all pairs": int(asked.sum()),
        "길이로는 가능  lengths allow it": int(fits.sum()),
        "겹치는 토큰으로는 가능  shared tokens allow it": int((asked & (shared >= least)).sum()),
        f"ROUGE-L > {threshold}, 버림  dropped": len(found.dropped),
    }


def pruning():
    """How many pairs of texts each bound alone leaves."""
    counts = pruned_pairs()
    total = next(iter(counts.values()))
    fig, ax = card(10, 2.9, "재지 않아도 아는 쌍: 무엇이 얼마나 줄이나  What rules pairs out")
    for k, (name, count) in enumerate(counts.items()):
        y = 0.68 + 0.45 * k
        words(ax, 3.45, y + 0.16, name, ha="right")
        w, color = 4.6 * count / total, (GREY, BLUE, BLUE, ORANGE)[k]
        ax.add_patch(Rectangle((3.6, y), max(w, 0.015), 0.32, color=color))
        share = f"{count:,}" + f"  ({count / total:.2%})" * (k > 0)
        words(ax, 3.7 + w, y + 0.16, share, ha="left")
    note = "강의의 견본 데이터(모의)  the course's sample data (simulated)"
    words(ax, 0.25, 2.65, note, 8.5, "#5F656B", ha="left")
    return fig


def battle():
    """One question in two orders: which two verdicts make which result."""
    fig, ax = card(10, 4.2, "두 순서로 겨루기: 두 번 다 이겨야 이긴 것  Both orders must agree")
    box(ax, 0.3, 1.9, 1.5, 0.8, "질문 하나\none question", bold=True)
    orders = [("1차  a를 먼저\na shown first", 1.1), ("2차  b를 먼저\nb shown first", 2.75)]
    for text, y in orders:
        box(ax, 2.35, y, 1.6, 0.75, text, BLUE)
        arrow(ax, (1.8, 2.3), (2.35, y + 0.375))
    columns = [4.95, 5.95, 7.0, 8.65]
    heads = ["1차  1st", "2차  2nd", "a의 점수\nscore", "결과\nresult"]
    for x, head in zip(columns, heads, strict=True):
        words(ax, x, 0.82, head, 9, bold=True)
    names = {"a": "a", "b": "b", "tie": "="}
    grouped = {
        ("a 승  win", GREEN): [], ("무승부  tie", GREY): [],
        ("한 번만 무승부  one tie only", GREY): [], ("모순  contradiction", GREY): [],
        ("a 패  loss", ORANGE): [],
    }  # fmt: skip
    win, tie, half, contradiction, loss = grouped.values()
    for first, second in product(names, repeat=2):
        game = Game("q", first, second, 0, 0)
        place = contradiction if game.contradicts else tie if first == second == "tie" else half
        place = {1: win, 0: loss}.get(game.score, place)
        place.append((first, second, game.score))
    y = 1.1
    rows = sum(map(len, grouped.values()))
    step = 2.85 / rows
    for (name, color), games in grouped.items():
        for first, second, score in games:
            for x, verdict in zip(columns, (first, second), strict=False):
                words(ax, x, y + step / 2, names[verdict])
            words(ax, columns[2], y + step / 2, {1: "1", 0: "0", 0.5: "1/2"}[score])
            y += step
        top = y - step * len(games)
        box(ax, 7.45, top + 0.03, 2.3, step * len(games) - 0.06, name, color, size=9)
        ax.plot([4.5, 9.75], [y, y], color=PALE, linewidth=0.8, zorder=0)
    for _, order_y in orders:
        arrow(ax, (3.95, order_y + 0.375), (4.55, 2.3))
    return fig


FIGURES = {f.__name__: f for f in (pipeline, masking, pruning, battle)}


def shown(fig):
    """Return every text of a figure, in order: what its file's description holds."""
    texts = [text.get_text() for text in fig.findobj(mpl.text.Text)]
    return [text for text in texts if text]


def description(path):
    """Return the texts that a committed picture says it shows."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", path.read_text("utf-8"), re.DOTALL)
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def main():
    FOLDER.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "course"}):
        for name, draw in FIGURES.items():
            fig = draw()
            texts = json.dumps(shown(fig), ensure_ascii=False)
            about = {"Date": None, "Creator": None, "Description": texts, "Title": name}
            fig.savefig(FOLDER / f"{name}.svg", metadata=about)
            fig.savefig(FOLDER / f"{name}.png", dpi=120, metadata={"Software": None})
            print(f"assets/figures/{name}.svg and .png")


if __name__ == "__main__":
    main()
