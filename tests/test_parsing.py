"""Each rule fires on what it is for, in order, and on nothing that a good task may contain."""

import subprocess
import sys
import threading
import time
import unicodedata

import pytest

from course_utils import REPO, korean
from course_utils.parsing import RULES, check_task
from course_utils.tasks import Task

LONG = "다음 문장을 " * 51


@pytest.mark.parametrize(("instruction", "input", "output", "reason"), [
    ("", "밥", "답", "missing field"),
    ("이것을 요약하세요.", "밥", " \n", "missing field"),
    ("요약하세요.", "", "답", "too short"),
    (LONG, "", "답", "too long"),
    ("Summarize the following text.", "", "답", "not Korean"),
    ("次の文を 要約してください。", "", "답", "not Korean"),
    ("3 + 4 = ?", "", "7", "not Korean"),
    ("서울 지도를 보여 주세요.", "", "답", "needs another medium"),
    ("이 그림의 분위기를 설명하세요.", "", "답", "needs another medium"),
    ("아래 사진을 묘사해 주세요.", "", "답", "needs another medium"),
    ("동영상을 보고 요약하세요.", "", "답", "needs another medium"),
    ("신나는 음악을 재생해 주세요.", "", "답", "needs another medium"),
    ("매출을 그래프로 나타내세요.", "", "답", "needs another medium"),
    ("첨부 파일을 읽고 답하세요.", "", "답", "needs another medium"),
    ("다음 링크의 글을 요약하세요.", "", "답", "needs another medium"),
    ("고양이를 한 마리 그려 주세요.", "", "답", "needs another medium"),
    ("- 다음 글을 요약하세요.", "", "답", "leading punctuation"),
    ("(다음 글을 요약하세요.", "", "답", "leading punctuation"),
    ("★ 다음 글을 요약하세요.", "", "답", "leading punctuation"),
    ("봄에 대해 쓰세요.", "", "봄에 대해 쓰세요", "repeats the instruction"),
    ("춘천은 어느 도에 있나요?", "", "춘천은 어느 도에 있나요? 강원도입니다.",
     "repeats the instruction"),
    *[("이 글을 요약하세요.", empty, "답", "placeholder input") for empty in (
        "<입력>", "(없음)", "없음", "N/A", "n/a.", "-", "...", "[텍스트]", "<기사 본문>",
        "(여기에 글을 입력하세요)", "<텍스트를 붙여 넣어 주세요>", "<noinput>", "〈본문 내용〉")],
])
def test_a_bad_task_is_rejected_under_its_reason(instruction, input, output, reason):
    assert check_task(Task(instruction, input, output)) == reason


@pytest.mark.parametrize(("instruction", "input", "output"), [
    ("춘천은 어느 도에 있나요?", "", "춘천은 강원특별자치도에 있습니다."),
    ("두 수를 더하세요.", "3, 4", "7"),
    ("반대말을 쓰세요.", "내용", "형식"),
    ("원소의 이름을 쓰세요.", "Na", "나트륨"),
    ("훌륭한 지도자의 덕목은 무엇인가요?", "", "경청입니다."),
    ("학생을 잘 지도하는 방법은 무엇인가요?", "", "칭찬입니다."),
    ("그림자가 생기는 까닭을 설명하세요.", "", "빛이 막히기 때문입니다."),
    ("그림책의 제목을 지어 주세요.", "", "달님 안녕"),
    ("파일럿이 하는 일을 설명하세요.", "", "비행기를 조종합니다."),
    ("고향을 그리워하는 글을 쓰세요.", "", "내 고향은 남쪽입니다."),
    ("그리고와 그러나의 차이를 쓰세요.", "", "순접과 역접입니다."),
    ("음악이 정서에 미치는 영향을 쓰세요.", "", "마음을 가라앉힙니다."),
    ("'사과'의 두 가지 뜻을 쓰세요.", "", "과일과 용서를 비는 일입니다."),
    ("“가는 날이 장날”의 뜻은 무엇인가요?", "", "뜻밖의 일과 마주친다는 뜻입니다."),
    ("한국의 수도", "", "한국의 수도는 서울입니다."),
    ("SQL에서 LEFT JOIN과 INNER JOIN을 비교하세요.", "", "왼쪽 행을 모두 남기는지가 다릅니다."),
    ("목록을 뒤집으세요.", "[1, 2, 3]", "[3, 2, 1]"),
    ("무엇을 만드는 코드인가요?", "<p>안녕</p>", "문단입니다."),
    ("업종을 쓰세요.", "(주)한빛식품", "식품"),
])
def test_a_good_task_passes(instruction, input, output):
    assert check_task(Task(instruction, input, output)) is None


def test_decomposed_hangul_is_korean_too():
    task = Task(*(unicodedata.normalize("NFD", part) for part in (
        "서울 지도를 보여 주세요.", "", "네.")))
    assert check_task(task) == "needs another medium"


def test_rules_have_names_and_descriptions_and_an_order():
    assert list(RULES)[0] == "missing field"
    assert all(rule.description.endswith(".") for rule in RULES.values())
    both = Task("- Draw 지도 please now", "", "네.")
    assert check_task(both) == "not Korean"  # earlier than the medium and the punctuation


def test_the_analyser_is_not_loaded_before_it_is_needed():
    program = ("import sys\n"
               "from course_utils.parsing import check_task\n"
               "from course_utils.tasks import Task\n"
               "assert check_task(Task('춘천은 어느 도에 있나요?', '', '강원')) is None\n"
               "assert 'kiwipiepy' not in sys.modules\n")
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPO)


def test_the_analyser_is_made_once_whoever_comes_first(monkeypatch):
    import kiwipiepy

    made = []

    class Slow:
        def __init__(self):
            made.append(self)
            time.sleep(0.05)

        def tokenize(self, texts):
            return [[] for _ in texts]

    monkeypatch.setattr(kiwipiepy, "Kiwi", Slow)
    monkeypatch.setattr(korean, "_kiwi", None)
    threads = [threading.Thread(target=korean.tokens, args=("지도",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
