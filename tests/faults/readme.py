"""Fill the table of faults in both READMEs from results.json, so that no number is typed.

    python -m tests.faults.readme
"""

import json
from pathlib import Path

from tests.benchmarks.readme import fill, folded, table

RESULTS = Path(__file__).with_name("results.json")

# What each row is called in the tests, and to readers; in the order of the table.
ROWS = {
    "SIGKILL while sealing and restoring": ("", "봉인하거나 되살리는 중 SIGKILL"),
    "SIGKILL while generating": ("", "생성 중 SIGKILL"),
    "SIGKILL while training": ("", "학습 중 SIGKILL"),
    "SIGKILL while judging": ("", "심사 중 SIGKILL"),
    "SIGKILL somewhere in the course": ("", "강의 전체를 돌리다 SIGKILL"),
    "a full disk": ("", "가득 찬 디스크"),
    "a read-only Drive": ("", "쓸 수 없게 된 Drive"),
    "a stop at any call":
        ("a stop at any call of sealing or restoring", "봉인하거나 되살릴 때 어느 호출에서든 멈춤"),
    "EIO at any call": ("an input/output error (EIO) at any call, listings among them",
                        "어느 호출에서든 입출력 오류(EIO), 목록 읽기도"),
    "errno 107 at any call": ("Drive gone (errno 107) at any call, listings among them",
                              "어느 호출에서든 끊긴 Drive(errno 107), 목록 읽기도"),
    "Drive unmounted at any call": ("", "어느 호출에서든 마운트가 풀린 Drive"),
    "a file that reads back short or as zeros": ("", "짧게 또는 0으로 읽히는 파일"),
    "a manifest that is missing, cut or edited": ("", "없거나 잘리거나 바뀐 manifest"),
    "a journal's copy that is missing, cut, edited or zeros":
        ("", "없거나 잘리거나 바뀌거나 0이 된 일지 사본"),
    "a broken newest part, an older one whole": ("", "가장 새 봉인이 깨지고 그 앞의 것은 온전함"),
    "two notebooks sealing the same run": ("", "두 노트북이 같은 실행을 동시에 봉인"),
    "two machines": ("two machines sealing the same run", "두 컴퓨터가 같은 실행을 동시에 봉인"),
    "a clock that jumps": ("a clock that jumps back and forth", "앞뒤로 튀는 시계"),
    "a full disk under the journal": ("", "일지를 쓰는 도중에 가득 찬 디스크"),
    "the API: too many requests, with Retry-After":
        ("API: 429 with Retry-After", "API: 429, Retry-After 있음"),
    "the API: too many requests, without Retry-After":
        ("API: 429 without it", "API: 429, Retry-After 없음"),
    "the API: a server error": ("API: 500", "API: 500"),
    "the API: a connection that is reset before the reply":
        ("API: connection reset", "API: 끊긴 연결"),
    "the API: no reply for --hang seconds": ("API: time-out", "API: 시간 초과"),
    "the API: half of the reply's body": ("API: half a body", "API: 반만 온 본문"),
    "the API: a reply that breaks off after its first bytes":
        ("API: the first bytes of a body", "API: 첫머리만 온 본문"),
    "the API: a page of HTML where JSON belongs":
        ("API: HTML instead of JSON", "API: JSON 대신 온 HTML"),
    "the API: a reply without choices": ("API: empty choices", "API: 빈 choices"),
    "the API: a content filter took the text; the same request meets it every time":
        ("API: content filter", "API: 콘텐츠 필터"),
    "the API: all of these while generating and judging":
        ("API: all but the filter, while generating and judging",
         "API: 필터 말고는 모두, 생성하고 심사하는 동안"),
    "the API: content as a list of parts":
        ("API, 200: content as a list of parts", "API, 200: 조각들로 나뉜 content"),
    "the API: half a character in the text":
        ("API, 200: half a character in the text", "API, 200: 반쪽 글자가 든 응답"),
    "the API: no content, cut off by length":
        ("API, 200: no content, cut off by length", "API, 200: 길이에 잘려 content 없음"),
    "the API: no usage": ("API, 200: no usage", "API, 200: usage 없음"),
    "the API: no message": ("API, 200: no message", "API, 200: message 없음"),
    "the API: choices that are an object":
        ("API, 200: choices that are an object", "API, 200: 객체로 온 choices"),
    "the API: no choices": ("API, 200: no choices", "API, 200: 빈 choices"),
    "the API: an error with status 200":
        ("API, 200: an error inside", "API, 200: 속에 든 오류"),
    "the API: HTML with status 200": ("API, 200: HTML", "API, 200: HTML"),
    "a budget, tokens counted as the plan does":
        ("A budget; tokens counted as the plan does", "예산: 계획과 같게 세는 서버"),
    "a budget, tokens counted three times as high":
        ("A budget; tokens counted three times as high", "예산: 세 배로 세는 서버"),
    "a budget, tokens counted and not reported":
        ("A budget; tokens not reported", "예산: 토큰 수를 알리지 않는 서버"),
    "a budget, tokens counted below nothing":
        ("A budget; negative tokens reported", "예산: 음수를 알리는 서버"),
}  # fmt: skip
COLUMNS = {  # of each count; one that no row has yet is not shown
    "injected": ("injected", "일으킨 횟수"),
    "runs": ("runs", "실행"),
    "right": ("ended right", "바르게 끝남"),
    "lost": ("replies lost", "잃은 응답"),
    "twice": ("replies paid twice", "두 번 산 응답"),
    "wrong": ("checkpoints believed wrongly", "잘못 믿은 체크포인트"),
    "over": ("budgets exceeded", "넘은 예산"),
}  # fmt: skip
TOTAL = {
    "en": "**{kinds} kinds of fault, injected {injected:,} times: {right:,} of {runs:,} runs ended "
          "right, {lost:,} replies lost, {twice:,} paid for twice, {wrong:,} checkpoints believed "
          "wrongly.**",
    "ko": "**고장 {kinds}가지를 모두 {injected:,}번 일으켰습니다. 실행 {runs:,}번 가운데 "
          "{right:,}번이 바르게 끝났고, 잃은 응답은 {lost:,}개, 두 번 산 응답은 {twice:,}개, 잘못 "
          "믿은 체크포인트는 {wrong:,}개입니다.**",
}  # fmt: skip
SUMMARY = {"en": "Each kind of fault", "ko": "고장 하나하나"}
INTRO = {
    "en": "Injected for real by `make faults` ({date}, {minutes:.0f} minutes on two CPU cores), "
          "{kills} SIGKILLs among them. A run ends right when its dataset, verdicts, adapter or "
          "restored work are the same bytes as without the fault. A reply counts once it has "
          "arrived whole: one that a kill or a time-out caught on its way may have been billed.",
    "ko": "`make faults`가 실제로 일으킨 고장입니다({date}, CPU 두 코어에서 {minutes:.0f}분). "
          "그 가운데 SIGKILL이 {kills}번입니다. 데이터, 판정, 어댑터, 되살린 작업이 고장 없이 "
          "돌렸을 때와 바이트까지 같아야 바르게 끝난 것입니다. 응답은 온전히 도착한 것만 셉니다. "
          "오는 길에 강제 종료나 시간 초과를 만난 응답에는 요금이 매겨졌을 수도 있습니다.",
}  # fmt: skip


def block(language: str) -> str:
    """The section in one language."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows, english = found["rows"], language == "en"
    kills = sum(counts["injected"] for fault, counts in rows.items() if "SIGKILL" in fault)
    intro = INTRO[language].format(date=found["date"], minutes=found["minutes"], kills=kills)
    total = {name: sum(counts.get(name, 0) for counts in rows.values()) for name in COLUMNS}
    summed = TOTAL[language].format(kinds=len(rows), **total)
    columns = [name for name in COLUMNS if any(name in counts for counts in rows.values())]
    lines = [
        [(words[0] or fault) if english else words[1],
         *(f"{rows[fault].get(name, 0):,}" for name in columns)]
        for fault, words in ROWS.items() if fault in rows
    ]  # fmt: skip
    if unknown := rows.keys() - ROWS.keys():
        raise SystemExit(f"ROWS in {Path(__file__).name} lacks {', '.join(sorted(unknown))}.")
    head = ["Fault" if english else "고장", *(COLUMNS[name][not english] for name in columns)]
    return "\n\n".join([summed, intro, folded(SUMMARY[language], table(head, lines))])


if __name__ == "__main__":
    fill("faults", block)
