"""Our labels equal those that TRL builds from the same examples. Taught in 02, section 4."""

from pathlib import Path

import pytest

from course_utils.collator import MaskingCollator, encode_tasks
from course_utils.inference import quiet
from course_utils.prompts import TEMPLATES, get_template
from course_utils.tasks import Task

TASKS = [
    Task("다음 문장을 존댓말로 바꾸세요.", "밥 먹었어?", "식사하셨어요?"),
    Task("전주는 어디에 있습니까?", "", "전주는 전북특별자치도에 있습니다."),
    Task("보증금의 뜻을 쓰세요.", "", "계약할 때 맡기는 돈입니다.\n월세와 다릅니다."),
    Task("漢字를 한글로 바꾸세요.", "全州 🍚", "전주"),
]
CONVERSATIONS = [
    [{"role": "user", "content": "\n\n".join(filter(None, (task.instruction, task.input)))},
     {"role": "assistant", "content": task.output}] for task in TASKS
]
MESSAGES = [{"messages": turns} for turns in CONVERSATIONS]
PROMPT_COMPLETION = [{"prompt": turns[:1], "completion": turns[1:]} for turns in CONVERSATIONS]


@pytest.fixture
def trl(tokenizer, tmp_path):
    """Make a trainer of examples; the model is there for form's sake, nothing is trained."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    def trainer(examples, tokenizer=tokenizer, **options):
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=1))
        with quiet():
            arguments = SFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none",
                                  **options)
            return SFTTrainer(model, args=arguments, processing_class=tokenizer,
                              train_dataset=datasets.Dataset.from_list(examples))

    return trainer


def columns(rows):
    return {name: rows[name][:] for name in ("input_ids", "labels")}


def ours(tokenizer, name="chat", tasks=TASKS, max_length=1024):
    return columns(encode_tasks(tokenizer, tasks, get_template(name, tokenizer), max_length)[0])


def texts(tokenizer, name):
    template = get_template(name, tokenizer)
    return [{"prompt": template.render(task), "completion": task.output + template.end}
            for task in TASKS]


def test_messages_with_assistant_only_loss_and_prompt_and_completion(tokenizer, trl):
    theirs = trl(MESSAGES, assistant_only_loss=True).train_dataset
    assert columns(theirs) == columns(trl(PROMPT_COMPLETION).train_dataset) == ours(tokenizer)


def test_gemmas_published_chat_template(tokenizer, trl):
    """It marks no response; TRL knows it by heart and puts one that does in its place."""
    import trl as library

    said = [turn["content"] for turns in CONVERSATIONS for turn in turns] * 9
    gemma = tokenizer.train_new_from_iterator(said, 400, show_progress=False)
    path = Path(library.__file__).parent / "chat_templates" / "gemma.jinja"
    gemma.chat_template = path.read_text(encoding="utf-8")
    assert "generation" not in gemma.chat_template.replace("add_generation_prompt", "")
    expected = ours(gemma)
    assert columns(trl(MESSAGES, gemma, assistant_only_loss=True).train_dataset) == expected
    assert columns(trl(PROMPT_COMPLETION, gemma).train_dataset) == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompt_and_completion_as_text(tokenizer, trl, name):
    """TRL appends the eos token itself, and this tokenizer, like Gemma's, the BOS."""
    theirs = columns(trl(texts(tokenizer, name)).train_dataset)
    assert theirs == ours(tokenizer, name)
    assert all(labels[-1] == tokenizer.eos_token_id for labels in theirs["labels"])


def test_rows_that_are_too_long(tokenizer, trl):
    """TRL cuts and drops the same rows as we do; the difference is that we count them."""
    limit = 36
    theirs = columns(trl(PROMPT_COMPLETION, max_length=limit).train_dataset)
    _, report = encode_tasks(tokenizer, TASKS, get_template("chat", tokenizer), limit)
    assert theirs == ours(tokenizer, max_length=limit)
    assert report.dropped == len(TASKS) - len(theirs["labels"]) > 0 < report.truncated


def test_a_batch(tokenizer, trl):
    trainer = trl(PROMPT_COMPLETION, pad_to_multiple_of=8)
    rows = [dict(zip(("input_ids", "labels"), row, strict=True))
            for row in zip(*ours(tokenizer).values(), strict=True)]
    theirs = trainer.data_collator(rows)
    batch = MaskingCollator(tokenizer.pad_token_id)(rows)
    assert theirs.keys() == batch.keys()
    for name, values in batch.items():
        assert values.equal(theirs[name]), name
