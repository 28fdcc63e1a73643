"""The ways in which masks have gone wrong for others: a test for each, named after the incident.

Each first makes the mistake by hand and shows that it does harm here, so that the course's code is
tested against something that can happen. Taught in 02, sections 2 to 4 and 6.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.checkpoint import CheckpointStore
from course_utils.collator import (
    IGNORE_INDEX,
    MaskingCollator,
    encode,
    encode_prompts,
    encode_tasks,
)
from course_utils.inference import generate, load_base
from course_utils.prompts import TEMPLATES, Template, get_template
from course_utils.recipe import load_recipe
from course_utils.tasks import Task
from course_utils.train import train

TASKS = [
    Task("전주는 어디에 있습니까?", "", "전주는 전북특별자치도에 있습니다."),
    Task("다음 문장을 존댓말로 바꾸세요.", "밥 먹었어?", "식사하셨어요?"),
    Task("보증금의 뜻을 쓰세요.", "", "계약할 때 맡기는 돈입니다.\n월세와 다릅니다."),
    Task("몇 개입니까?", "사과, 배, 감", "모두 셋입니다."),
]
ALL = [*TEMPLATES, "chat"]


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def alpaca(tokenizer, prompt, response, **options):
    """Labels as Alpaca's train.py makes them: the prompt tokenised once more, for its length."""
    ids = tokenizer(prompt + response, **options)["input_ids"]
    length = len(tokenizer(prompt, **options)["input_ids"])
    return [IGNORE_INDEX] * length + ids[length:]


def trained(row):
    labels = row["labels"] if isinstance(row, dict) else row
    return [label for label in labels if label != IGNORE_INDEX]


def retrained(tokenizer, lines):
    """A tokenizer of the same kind whose merges come from these lines."""
    return tokenizer.train_new_from_iterator(lines, 400, show_progress=False)


def with_ends(tokenizer, single):
    """A copy that puts special tokens around every text by itself: "<bos> $A <eos>"."""
    from tokenizers import processors

    copy = retrained(tokenizer, [task.instruction + task.output for task in TASKS] * 9)
    names = [name for name in single.split() if name != "$A"]
    copy.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(n, copy.convert_tokens_to_ids(n)) for n in names])
    return copy


@pytest.mark.parametrize("border", ["### 응답:", "### 응답:\n", "답변: ", '존댓말 "'])
def test_1_a_token_merged_across_the_border_and_the_mask_hid_the_response(tokenizer, border):
    merging = retrained(tokenizer, [border + "전주에 있습니다."] * 9)
    ending = merging.eos_token
    hidden = alpaca(merging, border, "전주에 있습니다." + ending, add_special_tokens=False)
    assert merging.decode(trained(hidden)) != "전주에 있습니다." + ending  # it does happen here
    row = encode(merging, border, "전주에 있습니다.", 64)
    assert merging.decode(trained(row)) == "전주에 있습니다." + ending
    # What is trained goes on from exactly what the model will be asked with.
    (asked,) = encode_prompts(merging, [border])
    assert row["input_ids"][: len(asked)] == asked
    assert row["labels"][: len(asked)] == [IGNORE_INDEX] * len(asked)


def test_1_an_eos_after_the_prompt_shifted_the_mask_by_one(tokenizer):
    adds_eos = with_ends(tokenizer, "<bos> $A <eos>")
    prompt, response = "전주는 어디에 있습니까?\n", "전북"
    shifted = alpaca(adds_eos, prompt, response)
    assert len(trained(shifted)) == len(plain(adds_eos, response))  # first token lost, an eos won
    row = encode(adds_eos, prompt, response, 64)
    assert trained(row) == [*plain(adds_eos, response), adds_eos.eos_token_id]
    assert row["input_ids"].count(adds_eos.eos_token_id) == 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("single", ["<bos> $A", "$A", "$A <eos>"])
def test_2_bos_was_there_twice_or_not_at_all(tokenizer, name, single):
    one = with_ends(tokenizer, single)
    template = get_template(name, one)
    rows, _ = encode_tasks(one, TASKS, template, 2000)
    prompts = [template.render(task) for task in TASKS]
    for ids in [*rows["input_ids"][:], *encode_prompts(one, prompts)]:
        assert ids[0] == one.bos_token_id and ids.count(one.bos_token_id) == 1


def test_2_the_defaults_do_double_it(tokenizer):
    prompt = get_template("chat", tokenizer).render(TASKS[0])
    assert tokenizer(prompt)["input_ids"].count(tokenizer.bos_token_id) == 2


@pytest.mark.parametrize("name", ALL)
def test_3_the_end_of_the_turn_was_never_trained(tokenizer, name):
    template = get_template(name, tokenizer)
    stop = "<end_of_turn>" if name == "chat" else tokenizer.eos_token
    rows, _ = encode_tasks(tokenizer, TASKS, template, 2000)
    for row, task in zip(rows, TASKS, strict=True):
        said = tokenizer.decode(trained(row))
        assert said == task.output + (template.end or tokenizer.eos_token)
        assert trained(row).count(tokenizer.convert_tokens_to_ids(stop)) == 1
    # The seed course ends a turn in a line break and <eos>, so its model never closes a turn.
    seeds = Template("seed", "{instruction}", "{instruction}", "", end="\n<eos>")
    rows, _ = encode_tasks(tokenizer, TASKS, seeds, 2000)
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") not in rows[0]["labels"]


class Scripted:
    """Stands for a model that says the same to every prompt, and remembers how it was asked."""

    device = "cpu"

    def __init__(self, ids):
        self.ids = ids

    def generate(self, input_ids, attention_mask=None, generation_config=None, **_):
        import torch

        self.asked, self.mask, self.config = input_ids, attention_mask, generation_config
        return torch.cat([input_ids, torch.tensor([self.ids] * len(input_ids))], dim=1)


@pytest.mark.parametrize("stop", ["<end_of_turn>", "<eos>"])
def test_3_the_reply_went_on_after_the_other_stop(tokenizer, stop):
    model = Scripted(plain(tokenizer, f"전주입니다.{stop}\n사과 일곱 개"))
    (reply,) = generate(model, tokenizer, ["<bos>전주는 어디에 있습니까?"])
    assert (reply.text, reply.stopped) == ("전주입니다.", True)
    assert tokenizer.convert_tokens_to_ids(stop) in model.config.eos_token_id


def by_pad_id(batch, pad):
    """The popular mask: whatever is the padding token is not trained and not seen."""
    return batch | {"attention_mask": (batch["input_ids"] != pad).long(),
                    "labels": batch["labels"].masked_fill(batch["input_ids"] == pad, IGNORE_INDEX)}


def test_4_pad_was_eos_and_the_model_never_stopped(tokenizer):
    eos = tokenizer.eos_token_id
    rows, _ = encode_tasks(tokenizer, TASKS, get_template("koalpaca"), 2000)
    batch = MaskingCollator(pad_token_id=eos)(list(rows))
    assert (by_pad_id(batch, eos)["labels"] == eos).sum() == 0  # no end is left to learn from
    assert (batch["labels"] == eos).sum() == len(TASKS)
    assert batch["attention_mask"].sum() == sum(len(row["input_ids"]) for row in rows)


ids = st.lists(st.integers(0, 9), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ids, min_size=1, max_size=5), pad=st.integers(0, 9), data=st.data())
def test_4_no_mask_depends_on_the_padding_token(rows, pad, data):
    borders = [data.draw(st.integers(0, len(row) - 1)) for row in rows]
    rows = [{"input_ids": row, "labels": [IGNORE_INDEX] * n + row[n:]}
            for row, n in zip(rows, borders, strict=True)]
    batch, other = MaskingCollator(pad)(rows), MaskingCollator(99)(rows)
    assert batch["labels"].equal(other["labels"])
    assert batch["attention_mask"].equal(other["attention_mask"])
    for i, row in enumerate(rows):
        n = len(row["labels"])
        assert batch["labels"][i].tolist()[:n] == row["labels"]
        assert batch["input_ids"][i].tolist()[:n] == row["input_ids"]
        assert batch["attention_mask"][i].sum() == n


def test_5_a_batch_trained_nothing_and_its_loss_was_no_number(tokenizer, tiny_base):
    import torch

    model, _ = load_base(tiny_base)
    long = Task("전주는 " * 40, "", "전북")
    (ids,) = encode_prompts(tokenizer, [get_template("koalpaca").render(long)])
    nothing = {"input_ids": ids[:32], "labels": [IGNORE_INDEX] * 32}
    with torch.no_grad():
        assert model(**MaskingCollator(0)([nothing])).loss.isnan()  # and nothing would be raised
    rows, report = encode_tasks(tokenizer, [*TASKS, long], get_template("koalpaca"), 64)
    assert report.dropped == 1 and all(map(trained, rows))


@pytest.fixture(scope="module")
def recipe(tiny_base):
    recipe = load_recipe("offline").replace("base_model", str(tiny_base))
    return recipe.replace("train.threads", 1).replace("train.epochs", 1.0)


@pytest.fixture(scope="module")
def window(tokenizer):
    """Four rows that train 1, 2, 6 and 24 tokens."""
    prompt = plain(tokenizer, "<bos>질문: 어디 가? 답변: ")
    answer = plain(tokenizer, "".join(task.output for task in TASKS))
    assert len(answer) > 24
    return [{"input_ids": prompt + answer[:n], "labels": [IGNORE_INDEX] * len(prompt) + answer[:n]}
            for n in (1, 2, 6, 24)]


@pytest.fixture(scope="module")
def alone(tiny_base, window):
    """The loss of each row by itself, without padding or company: a sum over its tokens."""
    import torch

    model, _ = load_base(tiny_base)
    losses = []
    for row in window:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item())
    return losses


def test_6_packed_rows_without_position_resets_read_their_neighbours(tiny_base, window, alone):
    import torch

    model, _ = load_base(tiny_base)
    flat = torch.tensor([[token for row in window for token in row["input_ids"]]])
    labels = torch.tensor([[label for row in window for label in row["labels"]]])
    reset = torch.cat([torch.arange(len(row["labels"])) for row in window])[None]
    count = sum(len(trained(row)) for row in window)
    with torch.no_grad():
        naive = model(input_ids=flat, labels=labels).loss.item()
        packed = model(input_ids=flat, labels=labels, position_ids=reset,
                       use_cache=False).loss.item()
        batch = model(**MaskingCollator(0)(window)).loss.item()
    assert abs(naive - sum(alone) / count) > 1e-3  # the neighbours do change it
    assert packed == pytest.approx(sum(alone) / count, rel=1e-5)
    assert batch == pytest.approx(sum(alone) / count, rel=1e-5)


@pytest.mark.parametrize("batch_size, accumulation", [(4, 1), (2, 2), (1, 4)])
def test_7_accumulated_steps_weighed_short_rows_more(
        recipe, window, alone, tmp_path, batch_size, accumulation):
    """The first loss of a real training equals that of the rows by themselves, by all tokens."""
    counts = [len(trained(row)) for row in window]
    expected = sum(alone) / sum(counts)
    mean_of_means = sum(loss / n for loss, n in zip(alone, counts, strict=True)) / 4
    assert abs(mean_of_means - expected) > 0.01  # what dividing step by step would give for 1 x 4
    recipe = recipe.replace("train.batch_size", batch_size)
    recipe = recipe.replace("train.gradient_accumulation", accumulation)
    result = train(recipe, CheckpointStore.open("run", tmp_path), rows=window, progress=False)
    assert result.steps == 1 and result.first_loss == pytest.approx(expected, rel=1e-4)


def test_8_padding_stood_between_the_prompt_and_its_reply(tokenizer):
    prompts = [get_template("chat", tokenizer).render(task) for task in TASKS]
    rows, _ = encode_tasks(tokenizer, TASKS, get_template("chat", tokenizer), 2000)
    to_train = MaskingCollator(tokenizer.pad_token_id)(list(rows))
    assert to_train["attention_mask"][:, 0].all() and not to_train["attention_mask"][:, -1].all()
    model = Scripted(plain(tokenizer, "네"))
    generate(model, tokenizer, prompts)
    assert len({len(prompt) for prompt in encode_prompts(tokenizer, prompts)}) > 1
    assert model.mask[:, -1].all() and not model.mask[:, 0].all()
    assert (model.asked[:, -1] == plain(tokenizer, "\n")[0]).all()  # as every chat prompt ends


def test_9_the_reply_was_cut_at_the_word_model(tokenizer):
    said = "user와 model은 <start_of_turn>model이 아닙니다."
    prompts = [get_template("chat", tokenizer).render(Task("model의 뜻을 쓰세요.", "model user"))]
    assert (prompts[0] + said).split("model")[-1] != said
    (reply,) = generate(Scripted(plain(tokenizer, said)), tokenizer, prompts)
    assert not reply.stopped  # it may have had more to say
    special = said.replace("<start_of_turn>", "")  # skipped when decoding, as every special token
    assert reply.text == special


def test_a_tokenizer_that_was_left_truncating_does_not_truncate_here(tokenizer):
    copy = with_ends(tokenizer, "$A")
    before = encode(copy, "전주는 어디에 있습니까?", "전북특별자치도에 있습니다.", 64)
    copy(["전주는 어디에 있습니까?"], truncation=True, max_length=1, padding="max_length")
    after = encode(copy, "전주는 어디에 있습니까?", "전북특별자치도에 있습니다.", 64)
    assert after == before and len(before["labels"]) - len(trained(before)) > 2


def test_every_template_leaves_the_border_to_the_prompt(tokenizer):
    """A prompt that ends in a space invites the merge of pitfall 1; none of ours does."""
    for name in ALL:
        template = get_template(name, tokenizer)
        assert not any(template.render(task).endswith(" ") for task in TASKS)
