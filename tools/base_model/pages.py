"""Pages of exercises: a cue, something to work on, a line of signs, and what comes of it.

In the documents before these, an answer follows its question closely. An instruction stands far
from its answer, with other sentences and the marks of a chat between them. So the second half of
pretraining reads exercises: after some unrelated talk a short cue names one of several things that
can be done with the material, signs of any kind follow, and then the outcome. The cues are words
that no instruction uses, the outcomes end otherwise than answers do, and copying the material is
always among the things to do: nothing here can be answered without reading the cue. The cues and
outcomes are in pages.yaml.
"""

import random
from pathlib import Path

import yaml

from course_utils.offline import world
from course_utils.offline.world import facts, fill
from tools.base_model import documents

Exercise = tuple[str, str, str]
"""What to do, what to do it with, and the outcome."""

WORDINGS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SIGNS = "!@#$%^&*-=+~|/:;.,()[]{}"


def exercises(rng: random.Random) -> str:
    """One page: one to three exercises of any kind, all laid out alike."""
    layout = _layout(rng)
    kinds = rng.choices(KINDS, k=rng.choice([1, 1, 2, 3]))
    return "\n\n".join(layout(kind(rng)) for kind in kinds)


def _layout(rng: random.Random) -> documents.Writer:
    """A way to set exercises, with signs of its own between question and outcome."""
    signs = "".join(rng.choices(SIGNS, k=rng.randint(1, 5)))
    asks, tells = rng.sample(WORDINGS["speakers"], 2)
    shape = rng.randrange(5)

    def lay(exercise: Exercise) -> str:
        cue, material, outcome = exercise
        talk = " ".join(rng.sample(facts()["sayings"], rng.choice([0, 1, 1, 2])))
        question = f"{talk} {cue}".strip()
        return [
            f"{asks}\n{question}\n\n{material}{signs}\n{signs}{tells}\n{outcome}{signs}",
            f"{question}\n{material}\n{signs}\n{outcome}",
            f"{question} {signs} {material} {signs} {outcome}",
            f"{asks}: {question}\n\n{material}\n{tells}: {outcome}",
            f"{signs}{asks}\n{material}\n{question}{signs}\n{signs}{tells}\n{outcome}{signs}",
        ][shape]

    return lay


def _pick(rng: random.Random, material: str, kind: str, slots: dict) -> Exercise:
    """One of several things to do with the material, the kind's first way twice as often."""
    ways = WORDINGS[kind]
    cues, outcomes = rng.choice([*ways, ways[0], (WORDINGS["copy"], ["{material}"])])
    cue = fill(rng.choice(cues), slots)
    outcome = fill(rng.choice(outcomes), {**slots, "material": material})
    return cue, "" if material in cue else material, outcome


def _list(rng: random.Random) -> Exercise:
    things = documents.train_list(rng, rng.choice(["reversal", "counting"]), 3, 8)
    text = ", ".join(things)
    if world.is_heldout("reversal", text) or world.is_heldout("counting", text):
        return _list(rng)
    return _pick(rng, text, "list", {"back": ", ".join(things[::-1]), "n": len(things),
                                     "first": things[0], "last": things[-1]})  # fmt: skip


def _speech(rng: random.Random) -> Exercise:
    said = world.casual(documents.train_event(rng, "politeness"), rng)
    return _pick(rng, said, "speech", {"high": world.polite(said)})


def _english(rng: random.Random) -> Exercise:
    event = documents.train_event(rng, "translation")
    return _pick(rng, event.plain(), "english", {**vars(event), "en": event.english()})


def _story(rng: random.Random) -> Exercise:
    text, slots = documents.train_story(rng)
    return _pick(rng, text, "story", slots)


def _review(rng: random.Random) -> Exercise:
    good = rng.random() < 0.5
    kind = "good review" if good else "bad review"
    return _pick(rng, documents.train_review(rng, good), kind, {})


def _town(rng: random.Random) -> Exercise:
    slots = documents.draw_town(rng)
    return _pick(rng, slots["town"], "town", slots)


def _term(rng: random.Random) -> Exercise:
    slots = documents.draw_term(rng)
    return _pick(rng, slots["term"], "term", slots)


def _ad(rng: random.Random) -> Exercise:
    ad, text = documents.train_ad(rng)
    field = rng.choice(world.FIELDS)
    cues, outcomes = WORDINGS["ad"]
    slots = {"field": field, "value": ad[field]}
    return fill(rng.choice(cues), slots), text, fill(rng.choice(outcomes), slots)


def _sum(rng: random.Random) -> Exercise:
    a, b, sign = documents.train_sum(rng)
    slots = {"a": a, "b": b, "c": a + sign * b, "thing": rng.choice(facts()["countable"])}
    cues, outcomes = WORDINGS["sum"]
    cue, text = rng.choice(cues), rng.choice(WORDINGS["plus" if sign > 0 else "minus"])
    return cue, fill(text, slots), fill(rng.choice(outcomes), slots)


def _deposits(rng: random.Random) -> Exercise:
    slots = documents.train_deposits(rng)
    text = fill(rng.choice(WORDINGS["deposits read"]), slots)
    return _pick(rng, text, "deposits", slots)


KINDS = [_list, _list, _speech, _english, _story, _review, _town, _town, _term, _ad, _ad, _sum,
         _sum, _deposits]  # fmt: skip
