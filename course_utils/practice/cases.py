# ruff: noqa: E501 - a hint is one line a sentence, in two languages
"""The exercises of the notebooks: for each one its inputs, the right results, and hints.

The functions here are named as the student's; each yields its inputs, easy ones first, so that the
first that goes wrong is a small one. Right results come from the course's own code where it has
the function, from a few lines otherwise. `practice.check` asks them.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator

from course_utils.practice.checks import Case, Hint

Cases = Iterator[Case]
EXERCISES: dict[str, Callable[[], Cases]] = {}


def exercise(number: str) -> Callable[[Callable[[], Cases]], Callable[[], Cases]]:
    """Register the inputs of an exercise under its number, "01.2"."""

    def register(cases: Callable[[], Cases]) -> Callable[[], Cases]:
        EXERCISES[number] = cases
        return cases

    return register


# ---------------------------------------------------------------- 01 preprocess


@exercise("01.1")
def read_item() -> Cases:
    from course_utils.parsing import read_fields

    def case(text: str, ko: str, en: str) -> Case:
        return Case((text,), read_fields(text), Hint(ko, en))

    whole = "4. 지시문: 뜻을 설명해 주세요.\n4. 입력: 전세\n4. 출력: 집을 빌리는 방식입니다."
    yield case(whole, "이름표는 '4. 지시문:'처럼 줄의 맨 앞에 있습니다. 값의 앞뒤 공백은 지웁니다.",
               "A label such as '4. 지시문:' begins a line; values have no space around them.")
    yield case("5. 지시문: 인사말을 써 주세요.\n5. 입력: <noinput>\n5. 출력: 안녕하세요.",
               "<noinput>은 '입력이 없다'는 말입니다. 값은 빈 문자열입니다.",
               "<noinput> says that there is no input: the value is an empty string.")
    missing = ("빠진 칸은 빈 문자열이 아니라 아예 없는 키입니다. '없다'와 '적지 않았다'는 다릅니다.",
               "A field that is missing has no key at all: not the same as an empty one.")
    yield case("6. 지시문: 글을 요약해 주세요.\n6. 출력: 요약할 글이 없습니다.", *missing)
    yield case("7. 지시문: 세 문장으로 자기소개를", *missing)
    yield case("", *missing)
    yield case("8. 지시문: 시를 써 주세요.\n8. 입력: <noinput>\n8. 출력: 봄이 오면\n꽃이 핀다",
               "값은 여러 줄일 수 있습니다. 다음 이름표가 나올 때까지가 값입니다.",
               "A value may have several lines: it ends where the next label begins.")
    yield case("9. 지시문: '출력: 3'이 무슨 뜻인지 알려 주세요.\n9. 입력: <noinput>\n9. 출력: 결과입니다.",
               "줄 가운데에 있는 '출력:'은 이름표가 아니라 글입니다.",
               "'출력:' in the middle of a line is text, not a label.")
    yield case("2. 지시문: 순서를 써 주세요.\n2. 입력: <noinput>\n2. 출력: 아래와 같습니다.\n1. 입력: 자료를 모읍니다.",
               "이름표의 번호는 그 과제의 번호와 같아야 합니다. 다른 번호가 붙은 줄은 값의 일부입니다.",
               "A label has the number of its item; a line with another number is part of a value.")
    yield case("3. 지시문: '3. 출력:' 다음에는 무엇을 쓰나요?\n3. 입력: <noinput>\n3. 출력: 답을 씁니다.",
               "번호까지 같아도 줄 가운데에 있으면 이름표가 아닙니다.",
               "Even with its number, what is in the middle of a line is no label.")
    yield case("4. 지시문: <noinput>이 무슨 뜻인지 설명해 주세요.\n4. 입력: <noinput>\n4. 출력: 입력이 없다는 뜻입니다.",
               "값이 통째로 <noinput>일 때만 빈 문자열입니다. 글 속에 들어 있는 것은 그대로 둡니다.",
               "Only a value that is <noinput> and nothing else becomes empty; within a text it stays.")
    draw = random.Random(1)
    for number in range(10, 25):
        values = {"지시문": "다음 글을 고쳐 주세요.", "입력": draw.choice(["<noinput>", "밥 먹었어?"]),
                  "출력": draw.choice(["네.", "식사하셨어요?\n안녕하세요."])}  # fmt: skip
        there = draw.sample(list(values), draw.randint(1, 3))
        lines = [f"{number}. {name}: {values[name]}" for name in values if name in there]
        yield case("\n".join(lines), *missing)


@exercise("01.2")
def hangul_share() -> Cases:
    from course_utils.korean import hangul_share as share

    def case(text: str, ko: str, en: str) -> Case:
        return Case((text,), share(text), Hint(ko, en))

    letters = ("글자만 셉니다. 공백과 숫자와 문장 부호는 나누는 수에도 들어가지 않습니다.",
               "Count letters alone: spaces, digits and marks are not in the divisor either.")
    yield case("안녕하세요", *letters)
    yield case("Python 설치", *letters)
    yield case("오늘은 3월 2일!", *letters)
    for text in ("", "12 + 30 = ?"):
        yield case(text, "글자가 하나도 없으면 나눌 수 없습니다. 그때는 0.0입니다.",
                   "Without a letter there is nothing to divide by: 0.0 then.")
    for text in ("ㅋㅋ 네", "ㅠㅠ 네"):
        yield case(text, "'ㅋ'이나 'ㅠ' 같은 낱자도 한글입니다. 가~힣 밖에, ㄱ부터 ㆎ까지 있습니다.",
                   "A letter by itself such as ㅋ or ㅠ is Hangul, too: outside 가 to 힣, from ㄱ to ㆎ.")
    yield case("漢字와 한글", "한자도 글자입니다. str.isalpha가 무엇을 글자로 치는지 보세요.",
               "Chinese characters are letters: look at what str.isalpha takes for one.")
    draw = random.Random(2)
    for length in range(1, 16):
        yield case("".join(draw.choices("가나ㄱab 1.漢", k=length)), *letters)


@exercise("01.3")
def sort_out() -> Cases:
    from course_utils.parsing import RULES
    from course_utils.tasks import Task

    names = ("missing field", "too short", "not Korean", "leading punctuation")
    rules = {name: RULES[name].test for name in names}

    def case(tasks: list[Task], rules: dict, ko: str, en: str) -> Case:
        reasons = [next((n for n, test in rules.items() if test(task)), None) for task in tasks]
        kept = [task for task, reason in zip(tasks, reasons, strict=True) if reason is None]
        counts = dict(Counter(reason for reason in reasons if reason))
        return Case((tasks, rules), (kept, counts), Hint(ko, en))

    good = Task("속담의 뜻을 풀어 주세요.", "", "네.")
    short, english = Task("요약", "", "네."), Task("Please explain this", "", "네.")
    empty, mark = Task("", "", "네."), Task("- 이 글을 요약해 주세요.", "", "네.")
    both = Task("Explain", "", "네.")  # too short, and not Korean
    each = ("과제 하나하나가 남거나, 이유 하나로 한 번 세어져야 합니다.",
            "Every task is kept, or counted once under one reason.")
    yield case([], rules, *each)
    yield case([good], rules, *each)
    yield case([good, short, english], rules, *each)
    yield case([both], rules, "두 규칙에 걸리면 먼저 물어본 규칙만 이유가 됩니다. 거기서 멈추세요.",
               "Where two rules fire, only the first that was asked is the reason. Stop there.")
    yield case([both], dict(reversed(rules.items())), "이유는 건네받은 규칙의 순서를 따릅니다.",
               "The reason follows the order of the rules that were passed in.")
    yield case([empty, good], rules, "걸린 뒤에도 다음 규칙을 물으면, 빈 지시문에서 오류가 날 수 있습니다.",
               "Asking on after a rule has fired can raise an error on an empty instruction.")
    yield case([short, short, both, mark, good, good], rules,
               "목록을 돌면서 그 목록에서 지우면 다음 과제를 건너뜁니다.",
               "Removing from a list while going through it skips the next task.")
    draw = random.Random(3)
    for length in range(3, 9):
        yield case(draw.choices([good, short, english, empty, mark, both], k=length), rules, *each)


@exercise("01.4")
def may_exceed() -> Cases:
    def case(a: str, b: str, threshold: float, ko: str, en: str) -> Case:
        a, b = a.split(), b.split()
        shared = sum((Counter(a) & Counter(b)).values())
        return Case((a, b, threshold), 2 * shared > threshold * (len(a) + len(b)), Hint(ko, en))

    bound = ("F1 = 2·LCS/(m+n)이고 LCS는 함께 가진 토큰의 수를 넘지 못합니다. 같을 때는 '넘는' 것이 아닙니다.",
             "F1 = 2·LCS/(m+n), and an LCS cannot be longer than the tokens shared. Equal is not above.")
    yield case("나 는 간다", "너 는 온다", 0.5, *bound)
    yield case("나 는 간다", "나 는 온다", 0.5, *bound)
    yield case("가 나 다 라", "가 나 마 바", 0.5, *bound)
    yield case("나 는 간다", "간다 는 나", 0.75,
               "순서가 달라 점수는 낮지만 이 상한만으로는 뺄 수 없습니다. 순서를 보지 않는 값이기 때문입니다.",
               "The order differs, so the score is low, but this bound ignores order: no ruling out.")
    yield case("네 네 네 네", "네 네 네 아니요", 0.5, "같은 토큰이 여러 번 나오면 그만큼 셉니다. 집합은 한 번만 셉니다.",
               "A token that occurs several times counts as often; a set counts it once.")
    yield case("네 네 네 네", "네", 0.5, "한쪽에 한 번뿐인 토큰은 한 번만 겹칩니다.",
               "A token that one side has once is shared once.")
    for a, b in (("", ""), ("", "나 는")):
        yield case(a, b, 0.5, "토큰이 없으면 함께 가진 것도 없으니 넘을 수 없습니다.",
                   "Without tokens nothing is shared, so nothing can be above.")
    draw = random.Random(4)
    for length in range(2, 22):
        a, b = (" ".join(draw.choices("가나다라마", k=draw.randint(1, length))) for _ in "ab")
        yield case(a, b, draw.choice([0.25, 0.5, 0.75]), *bound)


@exercise("01.5")
def dollars() -> Cases:
    def case(n: int, kept: int, asked: int, answered: int, price, batch: bool, ko, en) -> Case:
        cost = math.ceil(n / kept) * (asked * price[0] + answered * price[1]) / 1e6
        return Case((n, kept, asked, answered, price, batch), cost / (2 if batch else 1), Hint(ko, en))

    mini = (0.15, 0.60)
    yield case(10, 10, 1_000_000, 0, mini, False, "가격은 토큰 백만 개의 값이고, 첫째는 프롬프트의 값입니다. 10개씩 남으면 10개에 요청 한 번입니다.",
               "A price is for a million tokens, the first for the prompt's. At 10 each, 10 tasks take one request.")
    yield case(10, 10, 0, 1_000_000, mini, False, "가격의 둘째는 응답 토큰의 값입니다.",
               "The second price is that of completion tokens.")
    yield case(21, 20, 700, 2500, mini, False, "요청은 반 번 할 수 없습니다. 21개를 얻으려면 몇 번인가요? 값은 반올림하지 않습니다.",
               "There is no half request: how many does it take to get 21? Do not round the dollars.")
    yield case(41, 20, 700, 2500, mini, True, "배치로 받으면 절반 값입니다. 요청의 수가 주는 것이 아닙니다.",
               "In a batch it is half the price; the number of requests stays.")
    whole = ("요청의 수에 요청 하나의 값을 곱합니다. 값을 치르는 것은 남은 과제가 아니라 주고받은 토큰입니다.",
             "Requests times the price of one. You pay for tokens, not for tasks that are kept.")
    yield case(52_000, 9, 700, 2500, mini, False, *whole)
    yield case(52_000, 9, 700, 2500, mini, True, "배치로 받으면 절반 값입니다.",
               "In a batch it is half the price.")
    yield case(52_000, 4, 700, 2500, (2.5, 10.0), False, *whole)


# ---------------------------------------------------------------- 02 train


@exercise("02.1")
def mask_turns() -> Cases:
    def case(turns: list[tuple[str, list[int]]], ko: str, en: str) -> Case:
        ids = [i for _, turn in turns for i in turn]
        labels = [i if role == "model" else -100 for role, turn in turns for i in turn]
        nothing = all(label == -100 for label in labels)
        row = None if nothing else {"input_ids": ids, "labels": labels}
        return Case((turns,), row, Hint(ko, en))

    plain = ("정답은 조각의 주인을 따라갑니다. model의 토큰은 그대로, 나머지는 -100입니다.",
             "Labels follow whose segment it is: model's tokens as they are, -100 for the rest.")
    yield case([("user", [5, 6]), ("model", [7, 1])], *plain)
    yield case([("system", [9]), ("user", [5]), ("model", [7, 1])], *plain)
    yield case([("user", [5]), ("model", [7, 1]), ("user", [8]), ("model", [4, 1])],
               "응답은 여럿일 수 있습니다. 마지막 것만이 아니라 모두 가르칩니다.",
               "There may be several responses: all of them are trained, not the last alone.")
    yield case([("user", [5, 7, 1]), ("model", [7, 1])],
               "같은 번호가 질문에도 나옵니다. 번호로 찾지 말고 조각으로 나누세요.",
               "The same ids occur in the question: do not search for ids, go by segments.")
    yield case([("user", [5]), ("model", [0])], "0도 토큰의 번호입니다. 가르치지 않는 자리는 -100뿐입니다.",
               "0 is the id of a token, too: only -100 is left out.")
    for turns in ([("user", [5, 6])], [], [("user", [5]), ("model", [])]):
        yield case(turns, "가르칠 토큰이 하나도 없는 행은 조용히 남기지 말고 None으로 알립니다.",
                   "A row with nothing to train must not slip through: return None.")
    draw = random.Random(5)
    for length in range(2, 10):
        roles = draw.choices(["user", "model"], k=length)
        yield case([(role, draw.choices(range(9), k=draw.randint(1, 3))) for role in roles], *plain)


@exercise("02.2")
def trained_pieces() -> Cases:
    def case(pieces: list[str], prompt: str, ko: str, en: str) -> Case:
        ends = [len("".join(pieces[: i + 1])) for i in range(len(pieces))]
        return Case((pieces, prompt), [end > len(prompt) for end in ends], Hint(ko, en))

    merged = ("경계를 넘은 토큰에는 응답의 문자가 들어 있습니다. 이 토큰을 가리면 응답을 시작하는 법을 못 배웁니다.",
              "A token across the border holds characters of the response: masked, it is never learnt.")
    plain = ("토큰의 길이를 더해 가면 그 토큰이 몇째 문자에서 끝나는지 알 수 있습니다.",
             "Add up the lengths of the tokens, and you know at which character each one ends.")
    yield case(["답변:", " 네", "."], "답변:", *plain)
    yield case(["답변:", " 네", "."], "답변: ", *merged)
    yield case(["답", "변: 안", "녕"], "답변: ", *merged)
    yield case(["네", "네"], "네", "글자가 같아도 앞의 것은 프롬프트입니다. 글이 아니라 위치를 보세요.",
               "Equal letters, but the first are the prompt's: go by position, not by text.")
    yield case(["답변:"], "답변:", "응답이 없으면 가르칠 토큰도 없습니다.",
               "Without a response no token is trained.")
    yield case(["안", "녕"], "", "프롬프트가 비었으면 모두 응답입니다.",
               "With an empty prompt everything is the response.")
    draw = random.Random(6)
    for _ in range(12):
        pieces = ["".join(draw.choices("가나 :", k=draw.randint(1, 3))) for _ in range(4)]
        text = "".join(pieces)
        yield case(pieces, text[: draw.randint(0, len(text))], *merged)


@exercise("02.3")
def pad_left() -> Cases:
    def case(prompts: list[list[int]], pad: int, ko: str, en: str) -> Case:
        width = max(map(len, prompts))
        gaps = [width - len(ids) for ids in prompts]
        batch = {
            "input_ids": [[pad] * gap + ids for gap, ids in zip(gaps, prompts, strict=True)],
            "attention_mask": [[0] * gap + [1] * (width - gap) for gap in gaps],
            "position_ids": [[0] * gap + list(range(width - gap)) for gap in gaps],
        }
        return Case((prompts, pad), batch, Hint(ko, en))

    side = ("패딩은 왼쪽에 놓입니다. 위치는 진짜 첫 토큰이 0이고, 패딩 자리도 0입니다.",
            "Padding goes to the left. Positions begin with 0 at the first real token and are 0 in the padding.")
    yield case([[5, 6]], 0, *side)
    yield case([[5, 6, 7], [8]], 0, *side)
    yield case([[5, 1, 6], [8]], 1, "pad와 같은 번호가 프롬프트 안에도 있습니다. 번호가 아니라 길이로 가리세요.",
               "The id of pad occurs within a prompt, too: mask by length, not by id.")
    yield case([[1, 5], [1, 6, 7]], 1, "BOS와 EOS와 pad가 한 번호인 모델도 있습니다. 맨 앞의 1은 진짜 토큰입니다.",
               "In some models BOS, EOS and pad are one id: the 1 in front is a real token.")
    yield case([[2, 3, 4, 5], [6], [7, 8]], 0, "위치는 진짜 첫 토큰에서 0으로 시작합니다. 패딩 자리는 0으로 둡니다.",
               "Positions begin with 0 at the first real token; where there is padding, put 0.")
    draw = random.Random(7)
    for rows in range(2, 8):
        prompts = [draw.choices(range(5), k=draw.randint(1, 5)) for _ in range(rows)]
        yield case(prompts, draw.randint(0, 4), *side)


@exercise("02.4")
def window_loss() -> Cases:
    def case(steps: list[list[float]], ko: str, en: str) -> Case:
        losses = [loss for step in steps for loss in step]
        return Case((steps,), sum(losses) / len(losses) if losses else None, Hint(ko, en))

    tokens = ("평균의 평균은 짧은 배치의 토큰을 더 무겁게 칩니다. 합을 모아 한 번만 나누세요.",
              "A mean of means gives tokens of short steps more weight. Add up, divide once.")
    yield case([[2.0, 4.0]], *tokens)
    yield case([[1.0, 1.0], [3.0, 3.0]], *tokens)
    yield case([[4.0], [1.0, 1.0, 1.0]], *tokens)
    empty = ("가르치는 토큰이 없는 배치가 끼어도 창의 손실은 나머지 토큰의 평균입니다.",
             "A step without trained tokens leaves the loss to the tokens of the others.")
    yield case([[], [2.0, 4.0]], *empty)
    yield case([[0.0], [0.0, 0.0]], "손실이 0인 것과 손실이 없는 것은 다릅니다. 합이 아니라 토큰의 수를 보세요.",
               "A loss of 0 is not the same as no loss: look at the number of tokens, not at the sum.")
    for steps in ([[], []], []):
        yield case(steps, "창 전체에 토큰이 없으면 손실은 없습니다. 0이라고 적으면 완벽한 학습처럼 보입니다.",
                   "Without a token there is no loss; written down as 0 it would look perfect.")
    draw = random.Random(8)
    for length in range(2, 8):
        yield case([[draw.randint(0, 40) / 10 for _ in range(draw.randint(0, 4))]
                    for _ in range(length)], *tokens)  # fmt: skip


@exercise("02.5")
def lora_size() -> Cases:
    from course_utils.recipe import load_recipe
    from course_utils.scale.memory import trained_parameters

    recipe = load_recipe("gemma-2b-l4")
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "head_dim")  # fmt: skip

    def case(sizes: tuple[int, ...], r: int, ko: str, en: str) -> Case:
        config = dict(zip(names, sizes, strict=True))
        whole = {"model_type": "gemma", "vocab_size": 256, **config}
        sized = recipe.replace("architecture", whole).replace("train.lora_r", r)
        return Case((config, r), trained_parameters(sized), Hint(ko, en))

    count = ("층마다 행렬이 일곱 개이고, 행렬 하나에 r × (입력 + 출력)개가 붙습니다.",
             "Seven matrices in each layer, and r x (in + out) beside each.")
    yield case((8, 32, 1, 2, 2, 4), 1, *count)
    yield case((8, 32, 3, 2, 2, 4), 4, *count)
    yield case((2048, 16384, 18, 8, 1, 256), 4,
               "k와 v의 출력은 num_key_value_heads × head_dim입니다. 헤드가 하나뿐인 모델에서는 훨씬 작습니다.",
               "k and v have num_key_value_heads x head_dim outputs: far fewer with a single head.")
    yield case((3072, 24576, 28, 16, 16, 256), 8,
               "헤드 수 × head_dim이 hidden_size와 같다는 법은 없습니다. q의 출력과 o의 입력을 다시 보세요.",
               "Heads x head_dim need not be hidden_size: look again at q's outputs and o's inputs.")
    yield case((2304, 9216, 26, 8, 4, 256), 16, *count)


# ---------------------------------------------------------------- 03 evaluate


@exercise("03.1")
def question_score() -> Cases:
    from course_utils.stats import Game

    def case(one: str | None, two: str | None, ko: str, en: str) -> Case:
        first = {"A": "a", "B": "b", "C": "tie"}.get(one)
        second = {"A": "b", "B": "a", "C": "tie"}.get(two)
        return Case((one, two), Game("q", first, second, 0, 0).score, Hint(ko, en))

    places = ("둘째 판정에서는 b가 앞에 있었습니다. 거기서 'A'는 b를, 'B'는 a를 고른 것입니다.",
              "In the second verdict b stood first: there 'A' names b, and 'B' names a.")
    for one, two in (("A", "B"), ("B", "A"), ("C", "C"), ("A", "A"), ("B", "B")):
        yield case(one, two, *places)
    for one, two in (("A", "C"), ("C", "B"), ("B", "C"), ("C", "A")):
        yield case(one, two, "한 번은 골랐고 한 번은 비겼다면, 두 번 모두 고른 것이 아닙니다. 0.5입니다.",
                   "Named once and tied once is not named twice: 0.5.")
    valid = ("A", "B", "C")
    for one, two in (*((v, None) for v in valid), *((None, v) for v in valid), (None, None)):
        yield case(one, two, "무효는 무승부가 아닙니다. 하나라도 무효이면 점수가 없습니다.",
                   "Invalid is not a tie: with an invalid verdict there is no score.")


@exercise("03.2")
def read_verdict() -> Cases:
    from course_utils.judge import BATTLE_VERDICTS, GRADES, VerdictError, parse_verdict

    def case(text: str, allowed: tuple[str, ...], ko: str, en: str) -> Case:
        try:
            verdict = parse_verdict(text, allowed)
        except VerdictError:
            verdict = None
        return Case((text, list(allowed)), verdict, Hint(ko, en))

    plain = ("세 가지를 모두 지켜야 합니다. 한 가지 판정, 허락된 판정, 마지막 줄.",
             "All three must hold: one verdict, an allowed one, on the last line.")
    for text in ("B만 맞습니다.\n[[B]]", "둘 다 맞습니다.\n[[C]]\n\n", "**[[A]]**"):
        yield case(text, BATTLE_VERDICTS, *plain)
    for text in ("", "B가 더 낫습니다.", "B가 더 낫습니다.\n[B]"):
        yield case(text, BATTLE_VERDICTS, "이중 대괄호가 없으면 판정도 없습니다. 짐작하지 않습니다.",
                   "Without double brackets there is no verdict: do not guess.")
    yield case("[[A]]도 [[B]]도 좋습니다.\n[[B]]", BATTLE_VERDICTS,
               "서로 다른 판정이 둘이면 어느 쪽이 진심인지 알 수 없습니다.",
               "With two different verdicts nobody knows which one is meant.")
    for text in ("[[D]]라고 쓰려다가\n[[A]]", "[[A|B]] 가운데 고르라면\n[[A]]"):
        yield case(text, BATTLE_VERDICTS, "허락되지 않은 것도 이중 대괄호 안에 있으면 판정입니다. 두 가지이니 읽지 않습니다.",
                   "In double brackets, what is not allowed is a verdict as well: these are two.")
    yield case("[[A]]\n덧붙이면 B도 좋습니다.", BATTLE_VERDICTS, "판정은 마지막 줄에 있어야 합니다.",
               "The verdict has to stand on the last line.")
    for text in ("[[A]]로 하겠습니다.\n[[A]]", "[[A]], 다시 말해 [[A]]"):
        yield case(text, BATTLE_VERDICTS, "같은 판정을 두 번 쓴 것은 한 가지 판정입니다.",
                   "The same verdict twice is one verdict.")
    for text in ("둘 다 틀렸습니다.\n[[D]]", "[[AB]]", "[[a]]", "[[ A ]]"):
        yield case(text, BATTLE_VERDICTS, "허락된 판정과 글자 하나까지 같아야 합니다.",
                   "It has to equal an allowed verdict to the letter.")
    for text in ("정확합니다.\n[[10]]", "[[11]]", "[[7.5]]", "[[1]]은 지나칩니다.\n[[10]]"):
        yield case(text, GRADES, "판정은 한 글자가 아닐 수도 있습니다. 괄호 안을 통째로 읽으세요.",
                   "A verdict may have several characters: read all that is within the brackets.")
    draw = random.Random(9)
    for length in range(1, 16):
        lines = draw.choices(["[[A]]", "[[B]]", "A가 낫습니다.", "판정: [[A]]", ""], k=1 + length % 3)
        yield case("\n".join(lines), BATTLE_VERDICTS, *plain)


@exercise("03.3")
def kappa() -> Cases:
    from course_utils.stats import StatsError, cohen_kappa

    def case(a: list[str | None], b: list[str | None], ko: str, en: str) -> Case:
        pairs = [pair for pair in zip(a, b, strict=True) if None not in pair]
        try:
            found = cohen_kappa(*([pair[rater] for pair in pairs] for rater in (0, 1)))
        except StatsError:  # no pair, or one and the same label throughout
            found = None
        return Case((a, b), found, Hint(ko, en))

    chance = ("우연히 같을 확률은 판정마다 두 사람이 그 판정을 쓴 비율을 곱해 모두 더한 것입니다.",
              "Chance is, for every verdict, the product of both shares, all added up.")
    yield case(["a", "a", "b", "b"], ["a", "b", "b", "b"], *chance)
    yield case(["a", "b", "tie"], ["a", "b", "tie"], *chance)
    yield case(["a", "b"], ["b", "a"], "우연보다 못하면 카파는 음수입니다. 0으로 올리지 마세요.",
               "Worse than chance is a negative kappa: do not lift it to 0.")
    yield case(["a"] * 4 + ["a", "b"], ["a"] * 4 + ["b", "a"],
               "한 판정이 흔하면 우연도 큽니다. 판정의 가짓수로 나눈 값이 우연은 아닙니다.",
               "Where one verdict is common, chance is large: it is not 1 by the number of verdicts.")
    yield case(["a", "a"], ["b", "b"], "한 사람만 쓴 판정은 우연히도 같아지지 않습니다.",
               "A verdict that only one of the two uses is never equal by chance.")
    yield case(["a", None, "b", "b", "a"], ["a", "a", "b", None, "b"],
               "None은 판정이 아닙니다. 한쪽이라도 None인 쌍은 먼저 빼고 셉니다.",
               "None is no verdict: leave out each pair that has one before you count.")
    for a, b in ((["a", "a"], ["a", "a"]), ([], []), ([None, "a"], ["a", None])):
        yield case(a, b, "남은 쌍이 없거나 둘 다 한 가지 판정만 썼다면 카파는 없습니다. 1도 0도 아닙니다.",
                   "With no pair left, or one and the same verdict throughout, there is no kappa.")
    draw = random.Random(10)
    for length in range(3, 15):
        a, b = (draw.choices(["a", "a", "b", "tie", None], k=length) for _ in "ab")
        yield case(a, b, *chance)


@exercise("03.4")
def wilson() -> Cases:
    from statistics import NormalDist

    from course_utils.stats import wilson_interval

    def case(k: int, n: int, z: float, ko: str, en: str) -> Case:
        level = 2 * NormalDist().cdf(z) - 1
        return Case((k, n, z), wilson_interval(k, n, level) if n else None, Hint(ko, en))

    roots = ("오른쪽의 p는 k/n이 아니라 구하려는 값입니다. 제곱해 이차식으로 만든 뒤 두 근을 구하세요.",
             "The p on the right is what you look for, not k/n: square it, then find both roots.")
    yield case(5, 10, 1.96, *roots)
    yield case(8, 10, 1.96, *roots)
    for k, n in ((3, 3), (0, 20), (1, 1)):
        yield case(k, n, 1.96, "다 맞히거나 다 틀려도 폭은 0이 아닙니다. 끝은 0과 1을 넘지 않습니다.",
                   "All right or all wrong still leaves a width; no end lies beyond 0 or 1.")
    yield case(0, 0, 1.96, "문제가 하나도 없으면 구간도 없습니다.", "Without a question there is no interval.")
    yield case(8, 10, 1.0, "z는 1.96으로 정해진 것이 아니라 받은 값입니다.", "z is given; it is not always 1.96.")
    yield case(40, 60, 2.576, "z는 1.96으로 정해진 것이 아니라 받은 값입니다.", "z is given; it is not always 1.96.")
    draw = random.Random(11)
    for n in (4, 15, 60, 240):
        yield case(draw.randint(0, n), n, 1.96, *roots)


@exercise("03.5")
def win_rates() -> Cases:
    from course_utils.stats import Game, StatsError, summarize_battle, verdict_win_rate

    def rate(summarize: Callable, judged: list) -> float | None:
        try:
            return summarize(judged, allow_invalid=True).win_rate
        except StatsError:  # nothing valid is left
            return None

    def case(games: list[tuple[str | None, str | None]], ko: str, en: str) -> Case:
        both = [Game(f"q{i}", first, second, 0, 0) for i, (first, second) in enumerate(games)]
        one = rate(verdict_win_rate, [first for first, _ in games])
        return Case((games,), (one, rate(summarize_battle, both)), Hint(ko, en))

    unit = ("both에서는 질문 하나가 1, 1/2, 0 가운데 하나입니다. 판정을 따로따로 세지 않습니다.",
            "For both, a question is worth 1, 1/2 or 0: verdicts are not counted one by one.")
    yield case([("a", "a"), ("b", "b"), ("a", "a")], *unit)
    yield case([("a", "a"), ("a", "b")], "두 순서가 다른 모델을 가리키면 심사자는 자리를 고른 것입니다. 1/2입니다.",
               "Where the orders name different models, the judge chose a position: 1/2.")
    yield case([("a", "tie"), ("tie", "a")], "one에서 무승부는 1/2입니다. " + unit[0], "For one, a tie is 1/2. " + unit[1])
    yield case([("a", "a"), ("b", None)], "둘째 질문은 both에서는 무효라 빼지만, 첫 순서만 물은 사람은 그것을 모릅니다. one에서는 셉니다.",
               "The second question is invalid for both; who asked in the first order alone does not know, so one counts it.")
    invalid = ("무효는 무승부도 패배도 아닙니다. 빼고 셉니다.",
               "Invalid is neither a tie nor a loss: it is left out.")
    yield case([(None, "a"), ("b", "b")], *invalid)
    for games in ([("a", None)], [(None, "a")], []):
        yield case(games, "셀 것이 없는 쪽은 0도 0.5도 아니라 None입니다.",
                   "Where there is nothing to count it is None, not 0 and not 0.5.")
    draw = random.Random(12)
    for length in range(2, 14):
        verdicts = (draw.choices(["a", "a", "b", "tie", None], k=length) for _ in range(2))
        yield case(list(zip(*verdicts, strict=True)), *unit)


# ---------------------------------------------------------------- 04 scale up


@exercise("04.1")
def states_gib() -> Cases:
    from course_utils.recipe import load_recipe
    from course_utils.scale.memory import estimate_memory

    def case(name: str, full: bool, ko: str, en: str) -> Case:
        recipe = load_recipe(name).replace("train.gpus", 1).replace("train.parallel", "none")
        need = estimate_memory(recipe.replace("train.lora_r", 0) if full else recipe)
        held = need.weights + need.adapter + need.gradients + need.optimizer
        return Case((need.parameters, need.trained), held, Hint(ko, en))

    yield case("alpaca-7b-fsdp", True, "모두 학습하면 파라미터 하나에 4 + 4 + 8바이트입니다. 1GiB는 2의 30제곱 바이트입니다.",
               "Trained, each parameter takes 4 + 4 + 8 bytes. A GiB is 2 to the 30th.")
    lora = ("얼린 가중치는 2바이트, 어댑터는 그 곁에 따로 붙어 16바이트씩입니다.",
            "Frozen weights take 2 bytes; the adapter stands beside them, at 16 each.")
    yield case("gemma-2b-l4", False, *lora)
    yield case("koalpaca-12.8b-a100", False, *lora)
    yield case("koalpaca-12.8b-a100", True, "둘이 같으면 어댑터가 없는 전체 미세조정입니다.",
               "Where both are equal there is no adapter: all weights are trained.")


@exercise("04.2")
def fitting() -> Cases:
    from course_utils.recipe import load_recipe, recipe_names
    from course_utils.scale.memory import estimate_memory, fits

    recipes = {name: load_recipe(name) for name in recipe_names()}

    def case(gib: float, bfloat16: bool, ko: str, en: str) -> Case:
        names = [
            name
            for name, recipe in recipes.items()
            if recipe.train.gpus == 1
            and (bfloat16 or recipe.train.dtype != "bfloat16")
            and fits(estimate_memory(recipe), gib)
        ]
        return Case((gib, bfloat16), names, Hint(ko, en))

    one = ("GPU 한 장짜리 레시피만 셉니다. estimate_memory와 fits가 나머지를 해 줍니다.",
           "Recipes for one GPU only; estimate_memory and fits do the rest.")
    yield case(22, True, *one)
    yield case(79, True, *one)
    yield case(15, False, "T4에는 bfloat16이 없습니다. 메모리가 남아도 그 레시피는 돌지 않습니다.",
               "A T4 has no bfloat16: such a recipe does not run there, however much memory is left.")
    yield case(0.5, True, "들어가는 것이 없으면 빈 목록입니다.", "Where nothing fits, the list is empty.")


@exercise("04.3")
def shrink() -> Cases:
    def case(fixed: float, row: float, batch: int, times: int, gib: float, ko, en) -> Case:
        asked = (fixed, row, batch, times, gib)
        while fixed + row * batch > gib and batch % 2 == 0:
            batch, times = batch // 2, times * 2
        return Case(asked, (batch, times) if fixed + row * batch <= gib else None, Hint(ko, en))

    keep = ("배치를 반으로 줄일 때마다 누적을 두 배로 늘립니다. 곱은 그대로입니다.",
            "Whenever the batch is halved, accumulation doubles: the product stays.")
    yield case(10.0, 1.0, 8, 4, 22, "이미 들어가면 아무것도 바꾸지 않습니다.", "What fits already is not changed.")
    yield case(10.0, 2.0, 8, 4, 22, *keep)
    yield case(10.0, 4.0, 8, 16, 20, *keep)
    yield case(26.0, 1.0, 8, 4, 22, "한 행도 들어가지 않으면 None입니다. 배치 0은 학습이 아닙니다.",
               "Where not a single row fits, return None: a batch of 0 trains nothing.")
    yield case(10.0, 2.0, 12, 2, 13, "홀수인 배치는 반으로 나눌 수 없습니다. 곱을 지키려면 거기서 멈춥니다.",
               "An odd batch cannot be halved: stop there, or the product is lost.")
    yield case(10.0, 2.0, 12, 2, 16, "3행이면 꼭 16GiB입니다. 꼭 맞으면 들어간 것입니다.",
               "3 rows need exactly 16 GiB: to fill it exactly is to fit.")


@exercise("04.4")
def share_rows() -> Cases:
    from course_utils.recipe import TrainSpec
    from course_utils.scale.parallel import TrainError, batch_shape

    def case(effective: int, gpus: int, most: int, ko: str, en: str) -> Case:
        spec = TrainSpec(batch_size=most, gradient_accumulation=effective // most)
        try:
            shape = batch_shape(spec, gpus)
        except TrainError:
            shape = None
        return Case((effective, gpus, most), shape, Hint(ko, en))

    product = ("행 × 누적 × GPU가 꼭 effective와 같아야 합니다. 한 번에 읽는 행은 most를 넘지 못합니다.",
               "Rows x accumulation x GPUs is exactly effective, and rows are at most `most`.")
    yield case(128, 1, 4, *product)
    yield case(128, 8, 4, *product)
    yield case(128, 4, 4, *product)
    yield case(128, 64, 4, "most보다 적게 읽어도 됩니다. GPU가 많으면 한 장의 몫이 그만큼뿐입니다.",
               "Fewer rows than `most` are fine: with many GPUs there is no more for each.")
    yield case(128, 3, 4, "128행을 세 장이 똑같이 나눌 수 없습니다. 몇 행을 버리지 말고 None을 돌려주세요.",
               "Three GPUs cannot share 128 rows evenly: lose no rows, return None.")
    yield case(120, 8, 8, "한 장의 몫은 15행인데 8행씩은 나누어떨어지지 않습니다. 딱 떨어지는 가장 큰 배치를 찾으세요.",
               "Each has 15 rows, which 8 does not divide: find the largest batch that does.")
    for gpus in (2, 3, 4, 6, 12):
        yield case(96, gpus, 32, *product)


@exercise("04.5")
def own_rows() -> Cases:
    def case(rows: int, gpus: int, rank: int, ko: str, en: str) -> Case:
        size = math.ceil(rows / gpus)
        return Case((rows, gpus, rank), (min(rank * size, rows), min((rank + 1) * size, rows)),
                    Hint(ko, en))  # fmt: skip

    plain = ("조각의 크기는 모두 같습니다. 마지막에 남은 것만 작을 수 있습니다.",
             "All parts are of one size; only what is left at the end may be smaller.")
    yield case(8, 2, 0, *plain)
    yield case(8, 2, 1, *plain)
    for rank in range(3):
        yield case(7, 3, rank, "7행을 셋이 나누면 3, 3, 1입니다. 크기를 올림으로 구하면 빠지는 행이 없습니다.",
                   "Seven rows among three are 3, 3 and 1: round the size up, and no row is lost.")
    for rank in range(4):
        yield case(5, 4, rank, "올림한 크기로 나누면 뒤쪽 GPU의 몫이 비기도 합니다. 시작도 끝도 행의 수를 넘지 않게 하세요.",
                   "With the size rounded up, the last may get nothing: neither start nor stop goes beyond the rows.")


# ---------------------------------------------------------------- 05 demo


@exercise("05.1")
def softmax() -> Cases:
    def case(logits: list[float], temperature: float, ko: str, en: str) -> Case:
        highest = max(logits)
        if temperature == 0:
            shares = [float(i == logits.index(highest)) for i in range(len(logits))]
        else:
            weights = [math.exp((logit - highest) / temperature) for logit in logits]
            shares = [weight / sum(weights) for weight in weights]
        return Case((logits, temperature), shares, Hint(ko, en))

    divide = ("점수를 온도로 나눈 다음 지수를 취하고, 합이 1이 되도록 나눕니다.",
              "Divide the scores by the temperature, exponentiate, then divide so that they add up to 1.")
    for temperature in (1.0, 0.5, 2.0):
        yield case([2.0, 1.0], temperature, *divide)
    yield case([1.0, 3.0, 2.0], 0.0, "온도 0에서는 나누지 않습니다. 점수가 가장 높은 것이 1입니다.",
               "At temperature 0 nothing is divided: the highest score has 1.")
    yield case([1.0, 3.0, 3.0], 0.0, "가장 높은 것이 여럿이면 앞의 하나만 1입니다.",
               "Of several that are highest, only the first has 1.")
    large = ("지수가 너무 크면 넘치고, 너무 작으면 모두 0이 됩니다. 먼저 가장 높은 점수를 빼세요.",
             "Too large an exponent overflows, too small ones are all 0: take off the highest first.")
    for logits, temperature in (([1000.0, 999.0], 1.0), ([-1000.0, -1001.0], 1.0), ([30.0, 20.0], 0.01), ([1000.0, 0.0], 0.5)):
        yield case(logits, temperature, *large)
    draw = random.Random(13)
    for length in range(1, 9):
        logits = [draw.randint(-50, 50) / 10 for _ in range(length)]
        yield case(logits, draw.choice([0.3, 0.7, 1.5]), *divide)


@exercise("05.2")
def refuse() -> Cases:
    def case(instruction: str | None, tokens: int, length: int, window: int, ko, en) -> Case:
        over = tokens + length - window
        said = f"{over:,}토큰만큼 줄여 주세요." if over > 0 else None
        if not (instruction or "").strip():
            said = "지시문이 비어 있습니다."
        return Case((instruction, tokens, length, window), said, Hint(ko, en))

    text = "요약해 주세요."
    room = ("프롬프트와 답변이 window를 함께 씁니다. 꼭 맞으면 넘은 것이 아니라 None입니다. 글은 띄어쓰기와 마침표까지 같아야 합니다.",
            "Prompt and reply share the window; to fill it exactly is not too much: None. The sentence has to be the same to the full stop.")
    for tokens in (400, 500, 600, 448, 449):
        yield case(text, tokens, 64, 512, *room)
    yield case(text, 4000, 64, 512, "천 단위에는 쉼표를 넣습니다. f-문자열에서는 {n:,}입니다.",
               "A comma at thousands: in an f-string it is {n:,}.")
    blank = ("공백뿐이거나 None인 지시문도 비어 있는 것입니다. 길이보다 먼저 봅니다.",
             "Nothing but space, or None, is empty as well, and is looked at before the length.")
    for instruction, tokens in (("", 10), (" \n", 10), (None, 10), ("", 600)):
        yield case(instruction, tokens, 64, 512, *blank)
    draw = random.Random(14)
    for _ in range(6):
        yield case(text, draw.randint(100, 300), 8 * draw.randint(1, 16), 256, *room)


@exercise("05.3")
def last_turns() -> Cases:
    def case(turns: list[tuple[str, list[int]]], room: int, ko: str, en: str) -> Case:
        ends = [turns[i:] for i, (role, _) in enumerate(turns) if role == "user"]
        fitting = (end for end in ends if sum(len(ids) for _, ids in end) <= room)
        return Case((turns, room), next(fitting, None), Hint(ko, en))

    talk = [("user", [5, 6]), ("model", [7, 1]), ("user", [8])]
    yield case(talk, 10, "다 들어가면 그대로 돌려줍니다.", "What fits is returned as it is.")
    yield case(talk, 5, "한도와 꼭 같으면 들어간 것입니다.", "To fill the room exactly is to fit.")
    yield case(talk, 4, "남기는 것은 뒷부분입니다. 답으로 시작하면 그 답까지 빼세요.",
               "It is the end that stays; if it begins with a reply, leave that out, too.")
    yield case(talk, 1, "빼는 것은 가장 오래된 것부터입니다. 마지막 질문은 남아야 합니다.",
               "The oldest go first; the last question has to stay.")
    nothing = ("마지막 질문조차 들어가지 않으면 빈 목록이 아니라 None으로 알립니다.",
               "Where not even the last question fits, say so with None, not with an empty list.")
    yield case(talk, 0, *nothing)
    yield case([], 10, *nothing)
    yield case([("user", [1]), ("model", [2]), ("user", [3, 4, 5, 6]), ("model", [7]), ("user", [8])], 5,
               "긴 차례 하나를 건너뛰고 그 앞의 것을 넣으면 대화에 구멍이 납니다.",
               "To skip a long turn and keep what came before it leaves a hole in the conversation.")
    yield case([("model", [9]), ("user", [5])], 10, "다 들어가더라도 질문으로 시작해야 합니다.",
               "Even where all of it fits, it has to begin with a question.")
    yield case([("user", [1, 1]), ("user", [2]), ("model", [3]), ("user", [4])], 3,
               "질문과 답이 늘 번갈아 나오지는 않습니다. 둘씩 빼지 말고 하나씩 보세요.",
               "Questions and replies need not alternate: look at the turns one by one, not in pairs.")
    yield case([("user", [5]), ("model", [7, 1])], 2, "질문 없이 답만 남길 수는 없습니다.",
               "A reply without its question is nothing to keep.")
    draw = random.Random(15)
    for length in range(1, 13):
        roles = [("user", "model")[i % 2] for i in range(2 * (length % 4) + 1)]
        turns = [(role, draw.choices(range(9), k=draw.randint(1, 4))) for role in roles]
        yield case(turns, draw.randint(1, 14), "뒤에서부터 쌓되, 남기는 것은 질문으로 시작해야 합니다.",
                   "Build it up from the end; what stays has to begin with a question.")
