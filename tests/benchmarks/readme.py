"""Fill the results of both READMEs from tests/benchmarks/results, so that no number is typed.

    python -m tests.benchmarks.readme

`tests/test_readme.py` compares them. The table of tests/faults is filled by the same function.
"""

import json
import re
from collections.abc import Callable
from statistics import mean

from course_utils import REPO
from course_utils.offline.world import FAMILIES

RESULTS = REPO / "tests" / "benchmarks" / "results"
READMES = {"en": REPO / "README.md", "ko": REPO / "README.ko.md"}

Say = Callable[[str, str], str]
"""Chooses between the English and the Korean wording."""


def result(name: str) -> dict:
    """What a benchmark wrote, or {} if it has not been run yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns after the first are numbers."""
    line = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", line,
                      *("| " + " | ".join(row) + " |" for row in rows)])


def percent(share: float) -> str:
    """0.824 -> "82%"."""
    return f"{share:.0%}"


def folded(summary: str, *blocks: str) -> str:
    """Blocks that open with a click, on GitHub and on the site."""
    return "\n\n".join([f"<details><summary>{summary}</summary>", *blocks, "</details>"])


def families(say: Say) -> str:
    """Exact match by family before and after tuning."""
    found = result("tuning")
    runs = [run for run in found["runs"] if run["variant"] == "response"]
    rows = []
    for family in sorted(FAMILIES, key=lambda f: -mean(run["by_family"][f] for run in runs)):
        shares = [run["by_family"][family] for run in runs]
        fails = say(" (fails)", " (실패)") if mean(shares) < 0.8 else ""
        title = say(FAMILIES[family].title_en, FAMILIES[family].title_ko)
        rows.append([title + fails, percent(found["before"][family]),
                     ", ".join(map(percent, shares)), percent(mean(shares))])
    for name, key in ((say("**All twelve**", "**열둘 모두**"), "mean"),
                      (say("Wordings never trained on", "학습에 없던 표현"), "unseen_mean")):
        shares = [run[key] for run in runs]
        before = percent(found["before_mean"]) if key == "mean" else ""
        rows.append([name, before, ", ".join(map(percent, shares)), percent(mean(shares))])
    cpu = [run["cpu_seconds"] for run in runs]
    after, unseen = (percent(mean(run[key] for run in runs)) for key in ("mean", "unseen_mean"))
    intro = say(
        "With the simulated teacher and the tiny base model, exact match on held-out tasks goes "
        f"from {percent(found['before_mean'])} to {after}, and to {unseen} in wordings that "
        "training never used: the mean of three seeds. A reply is right if its first line equals "
        f"the reference. One training took {min(cpu):.0f} to {max(cpu):.0f} CPU seconds "
        "(`tuning.py`).",
        "모의 교사와 작은 베이스 모델로, 떼어 둔 문제의 정답률은 "
        f"{percent(found['before_mean'])}에서 {after}가 되었고, 학습에 없던 표현으로 물으면 "
        f"{unseen}입니다(시드 셋의 평균). 응답의 첫 줄이 모범 답안과 같아야 정답입니다. 학습 한 "
        f"번에 CPU 시간 {min(cpu):.0f}~{max(cpu):.0f}초가 들었습니다(`tuning.py`).")
    summary = say(f"Each of the twelve families, {found['per_family']} tasks each",
                  f"열두 유형 하나하나, 문제는 {found['per_family']}개씩")
    head = say("Family|before|after, three seeds|mean", "유형|학습 전|학습 후, 시드 셋|평균")
    return intro + "\n\n" + folded(summary, table(head.split("|"), rows))


VARIANTS = {
    "response": ("LoRA r=4, loss on the response", "LoRA r=4, 손실은 응답에서만"),
    "everything": ("... on the prompt as well", "... 프롬프트에서도"),
    "one token late": ("... without the response's first token", "... 응답의 첫 토큰만 빼고"),
    "rank 16": ("LoRA r=16, loss on the response", "LoRA r=16, 손실은 응답에서만"),
    "full": ("full fine-tuning, loss on the response", "전체 미세조정, 손실은 응답에서만"),
}


def variants(say: Say) -> str:
    """Exact match of every way to train that has been measured."""
    runs, rows = result("tuning")["runs"], []
    for name, titles in VARIANTS.items():
        shares = [run["mean"] for run in runs if run["variant"] == name]
        if shares:
            rows.append([say(*titles), ", ".join(map(percent, shares)), percent(mean(shares))])
    head = say("What is trained, same data and steps|held-out, each seed|mean",
               "무엇을 학습하나 (데이터와 스텝 수는 같음)|시드별 정답률|평균")
    return table(head.split("|"), rows)


def engine(say: Say) -> str:
    """The filter and the loop."""
    rows, found = [], result("filter")
    if found:
        compared, small, large = found["compare"], found["10000"], found["50000"]
        rows += [
            [say(f"similarity filter against Alpaca's loop, {compared['texts']:,} texts",
                 f"유사도 필터, Alpaca 방식과 비교, {compared['texts']:,}개"),
             say(f"{compared['times_faster']:,} times faster, same decisions",
                 f"{compared['times_faster']:,}배 빠름, 판정은 같음")],
            [say("... against its process pool", "... 프로세스 풀을 쓰는 Alpaca 방식과 비교"),
             say(f"{compared['pool_times_faster']:,} times faster",
                 f"{compared['pool_times_faster']:,}배 빠름")],
            [say(f"the filter on {found['texts']:,} texts", f"필터, {found['texts']:,}개"),
             say(f"{large['wall']:.1f} s", f"{large['wall']:.1f}초")],
            [say("... tokenised as well", "... 형태소 분석까지"),
             say(f"{found['fresh']['wall']:.0f} s", f"{found['fresh']['wall']:.0f}초")],
            [say(f"growth exponent, 10,000 ({small['wall']:.2f} s) to {found['texts']:,}",
                 f"과제 수에 따른 시간의 증가 지수, 10,000개({small['wall']:.2f}초)에서 "
                 f"{found['texts']:,}개까지"),
             f"{found['exponent']:.2f}"],
        ]
    found = result("generation")
    for run in found.get("runs", []):
        if run["workers"] > 1:
            rows.append([
                say(f"generation, {run['workers']} workers, {found['latency']} s a reply",
                    f"생성, 동시 요청 {run['workers']}개, 응답 지연 {found['latency']}초"),
                say(f"{percent(run['share'])} of the theoretical maximum (workers / latency), "
                    f"{run['times_one_at_a_time']:.1f} times as fast as one at a time",
                    f"이론상 최대 속도(동시 요청 수 ÷ 지연)의 {percent(run['share'])}, "
                    f"하나씩 물을 때보다 {run['times_one_at_a_time']:.1f}배 빠름")])
    found = result("sealing")
    if found:
        (real, often), long = found["journal"], found["long"]
        rows += [
            [say(f"sealing {real['replies']:,} replies, every {real['minutes']:g} min and at the "
                 "end", f"응답 {real['replies']:,}개 봉인, {real['minutes']:g}분마다와 끝에"),
             say(f"{real['share']:.2%} of the run", f"실행 시간의 {real['share']:.2%}")],
            [say(f"... every {60 * often['minutes']:.0f} s ({often['seals']} times)",
                 f"... {60 * often['minutes']:.0f}초마다({often['seals']}번)"),
             say(f"{often['share']:.2%} of the run", f"실행 시간의 {often['share']:.2%}")],
            [say(f"sealing {long['replies']:,} replies, every {real['minutes']:g} min and at the "
                 "end", f"응답 {long['replies']:,}개 봉인, {real['minutes']:g}분마다와 끝에"),
             say(f"{long['share']:.2%} of the run", f"실행 시간의 {long['share']:.2%}")],
            [say(f"sealing an adapter of {found['adapter']['megabytes']} MB, fsync included",
                 f"{found['adapter']['megabytes']} MB 어댑터 봉인, fsync까지"),
             say(f"{percent(found['adapter']['speed_against_cp'])} of the speed of cp + sha256sum",
                 f"cp + sha256sum 속도의 {percent(found['adapter']['speed_against_cp'])}")],
        ]
    head = say("The data engine (`filter.py`, `generation.py`, `sealing.py`)|measured",
               "데이터 엔진(`filter.py`, `generation.py`, `sealing.py`)|잰 값")
    return table(head.split("|"), rows)


def training(say: Say) -> str:
    """Encoding, batches, the trainer and the memory estimate."""
    rows, found = [], result("encode")
    if found:
        rows.append([
            say(f"encode and mask {found['examples']:,} examples",
                f"예시 {found['examples']:,}개를 토큰으로 바꾸고 마스킹하기"),
            say(f"{found['times_faster']['ours']:.1f} times as fast as Alpaca's double "
                "tokenisation",
                "두 번 토큰화하는 Alpaca 방식보다 "
                f"{found['times_faster']['ours']:.1f}배 빠름")])
    found = result("training")
    for body, title in (("offline", ("the offline data", "오프라인 데이터")),
                        ("wide", ("answers of 8 to 2,048 tokens", "8~2,048토큰 응답"))):
        share = {row["way"]: row["padding"] for row in found.get("padding", {}).get("rows", [])
                 if row["data"] == body and row["batch"] == 4}
        if share:
            rows.append([
                say(f"padding in batches of 4, {title[0]}: random, by length, padding-free",
                    f"배치 크기 4에서 패딩의 비율, {title[1]}: 무작위, 길이별, 패딩 없이"),
                ", ".join(f"{share[way]:.1%}"
                          for way in ("random", "length, on a GPU", "padding-free"))])
    for row in found.get("speed", {}).get("summary", []):
        if row["way"] == "length":
            rows.append([
                say("training on one thread, batches by length", "스레드 하나로 학습, 길이별 배치"),
                say(f"{row['tokens_per_second']:,.0f} tokens/s, "
                    f"{row['tokens_per_second_ratio']:.2f} times as fast as a plain SFTTrainer",
                    f"초당 {row['tokens_per_second']:,.0f}토큰, 기본 설정 SFTTrainer보다 "
                    f"{row['tokens_per_second_ratio']:.2f}배 빠름")])
    found = result("gemma")
    if found:
        ratio, apart = found["ratio"], found["losses_apart"]
        rows.append([
            say("Gemma 3 270M, trained tokens a second, a plain SFTTrainer = 1",
                "Gemma 3 270M, 초당 학습한 토큰, 기본 설정 SFTTrainer = 1"),
            say(f"{ratio['float32']:.1f} in the same float32 (losses apart by {apart:.0e} at "
                f"most), {ratio['bfloat16']:.1f} in bfloat16",
                f"같은 float32에서 {ratio['float32']:.1f}(손실의 차이는 {apart:.0e} 이하), "
                f"bfloat16에서 {ratio['bfloat16']:.1f}")])
    found = result("memory")
    if found:
        ratios = [row["ratio"] for row in found["rows"]]
        rows.append([
            say(f"memory, estimated / measured on a CPU, {len(ratios)} cases",
                f"메모리, 어림값 ÷ CPU에서 잰 값, {len(ratios)}가지"),
            say(f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{min(ratios):.2f}~{max(ratios):.2f}")])
    head = say("The trainer (`encode.py`, `training.py`, `gemma.py`, `memory.py`)|measured",
               "학습(`encode.py`, `training.py`, `gemma.py`, `memory.py`)|잰 값")
    return table(head.split("|"), rows)


def judging(say: Say) -> str:
    """The judge's speed."""
    rows, found = [], result("judging")
    for run in found.get("runs", []):
        if run["workers"] > 1:
            rows.append([
                say(f"{run['battles']} battles, {run['workers']} workers, "
                    f"{found['latency']} s a reply",
                    f"맞대결 {run['battles']}번, 동시 요청 {run['workers']}개, 응답 지연 "
                    f"{found['latency']}초"),
                say(f"{percent(run['share'])} of the theoretical maximum (workers / latency), "
                    f"{run['times_one_at_a_time']:.1f} times as fast as one at a time; "
                    f"rerun: {run['rerun_calls']} calls",
                    f"이론상 최대 속도(동시 요청 수 ÷ 지연)의 {percent(run['share'])}, "
                    f"하나씩 물을 때보다 {run['times_one_at_a_time']:.1f}배 빠름. 다시 하면 요청 "
                    f"{run['rerun_calls']}번")])
    head = say("The judge (`judging.py`)|measured", "심사(`judging.py`)|잰 값")
    return table(head.split("|"), rows)


def block(language: str) -> str:
    """All results in one language."""
    def say(english: str, korean: str) -> str:
        return english if language == "en" else korean

    dates = sorted({found["date"] for path in RESULTS.glob("*.json")
                    if (found := result(path.stem)).get("date")})
    ends = dict.fromkeys([dates[0], dates[-1]])
    intro = say(f"Measured with `make bench` on two CPU cores, {' to '.join(ends)}; the scripts "
                "named here are in `tests/benchmarks`.",
                f"{'~'.join(ends)}, CPU 두 코어에서 `make bench`로 쟀습니다. 여기에 이름이 나오는 "
                "스크립트는 `tests/benchmarks`에 있습니다.")
    speed = folded(say("Speed and memory: data engine, trainer, judge",
                       "속도와 메모리: 데이터 엔진, 학습, 심사"),
                   engine(say), training(say), judging(say))
    return "\n\n".join([intro, families(say), variants(say), speed])


def whole_table(language: str) -> dict[str, str]:
    """What `make course` printed, as the README quotes it: the numbers by the name of their row."""
    text = READMES[language].read_text(encoding="utf-8")
    quoted = text.split("<!-- table: begin -->")[1].split("<!-- table: end -->")[0]
    rows = [line.strip().split("  ", 1) for line in quoted.splitlines()]
    return {row[0].split(" (")[0]: row[1].strip() for row in rows if len(row) == 2}


def around(rate: dict, digits: int = 0) -> str:
    """A number with its interval: "61% (52% to 70%)", or "2.13 (2.02 to 2.25)" with digits."""
    def said(value):
        return f"{value:.{digits}f}" if digits else percent(value)

    low, high = rate["interval"]
    return f"{said(rate.get('value', rate.get('win_rate')))} ({said(low)} ~ {said(high)})"


def kinds(language: str) -> str:
    """The three kinds of result side by side; the README's first table."""
    def say(english: str, korean: str) -> str:
        return english if language == "en" else korean

    def both(key: str, digits: int = 0) -> str:
        models = real["replies"]["base"], real["replies"]["seeds"]
        return " → ".join(around(model[key], digits) for model in models)

    simulated, real = whole_table(language), recorded("results")
    funnel, judge = recorded("funnel"), real["judge"]["all"]
    hits = [round(r["value"] * r["n"]) for r in (real["replies"][m]["sums"]
                                                 for m in ("base", "seeds"))]
    sums, rate = real["replies"]["seeds"]["sums"]["n"], simulated["win rate of the tuned model"]
    exact = simulated["exact match, held out"].split()
    rows = [
        [say("who wrote the data", "데이터를 쓴 쪽"),
         say("a program that knows the truth", "정답을 아는 프로그램"), "Qwen2.5-Coder 1.5B",
         say("the model you have a key for", "키가 있는 모델")],
        [say("what was tuned", "학습한 모델"),
         say("Gemma of 3.5M, pretrained here", "여기서 사전학습한 Gemma 350만"),
         say("Gemma 3 270M, on the seeds", "Gemma 3 270M, 씨앗으로"),
         say("a 2B model on Colab", "Colab에서 2B 모델")],
        [say("tasks kept, of those written", "남은 과제 / 쓴 과제"),
         f"{simulated['tasks kept']} / {simulated['tasks generated']}",
         f"{funnel['kept']} / {funnel['candidates']}", "01"],
        [say("right replies, before → after", "맞은 응답, 학습 전 → 후"), " → ".join(exact),
         say(f"{hits[0]} → {hits[1]} of {sums} sums", f"계산 {sums}개 중 {hits[0]} → {hits[1]}"),
         "02, 03"],
        [say("loss on answers never seen", "본 적 없는 답의 손실"), "–", both("loss", 2), "02"],
        [say("replies that end by themselves", "스스로 끝난 응답"), "–", both("ended"), "02"],
        [say("win rate against the base model", "베이스 모델 상대 승률"),
         re.sub(r" \(95%: (.*) to (.*)\)", r" (\1 ~ \2)", rate),
         around(real["battles"]["seeds against base"]), "03"],
        [say("the judge, where the winner is known", "이긴 쪽을 아는 짝에서 심사 모델"),
         say("its bias is a knob", "편향을 정해 둠"),
         say(f"right {around(judge['right'])}, first place {around(judge['first_position'])}",
             f"맞음 {around(judge['right'])}, 앞자리 {around(judge['first_position'])}"), "03"],
    ]
    head = say("|simulated|small and real|yours", "|모의|작은 실제|내 것").split("|")
    return table(head, rows)


def recorded(name: str) -> dict:
    """A file of assets/real."""
    return json.loads((REPO / "assets" / "real" / f"{name}.json").read_text(encoding="utf-8"))


def fill(section: str, block: Callable[[str], str], *, check: bool = False) -> list[str]:
    """Replace a section of both READMEs by its block, which is made for a language.

    Returns the READMEs that said something else; with `check` nothing is written.
    """
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    stale = []
    for language, path in READMES.items():
        before = path.read_text(encoding="utf-8")
        head, rest = before.split(begin)
        after = f"{head}{begin}\n{block(language)}\n{end}{rest.split(end)[1]}"
        if after != before:
            stale.append(path.name)
            if not check:
                path.write_text(after, encoding="utf-8")
    return stale


if __name__ == "__main__":
    fill("results", block)
    fill("kinds", kinds)
