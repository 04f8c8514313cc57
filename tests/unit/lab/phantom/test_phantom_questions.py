"""Questions about phantoms: true of their scene, balanced, and no use without the picture."""

import re
from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise

import pytest

from exgra_med.captions.faults import find_faults
from exgra_med.data.records import Record
from exgra_med.evaluation.answers import Prediction, question_of
from exgra_med.evaluation.score import score_vqa
from exgra_med.evaluation.tasks.vqa import score_baselines
from exgra_med.lab.phantom.make import PhantomSettings, split_records
from exgra_med.lab.phantom.questions import FAMILIES, Questioner
from exgra_med.lab.phantom.scene import ORGANS, SHAPES, Lesion, Scene, held_out_pairs, sample_scene
from exgra_med.lab.phantom.text import EXTENDED, WORDINGS

SETTINGS = PhantomSettings(
    num_images=850, num_test=300, num_test_composition=200, num_language=120, num_vision=10
)
RECORDS = {split: list(split_records(SETTINGS, split)) for split in SETTINGS.num_scenes}
QUESTIONS = [record for split in RECORDS for record in RECORDS[split] if record.answer_type]
ASKED = [record for split in ("train", "test") for record in RECORDS[split]]
NUMBERS = ("zero", "one", "two", "three")
ADJECTIVES = {name: f"{name}-shaped" for name in SHAPES.values()} | {"round": "round"}


@cache
def _scene(split: str, number: int) -> Scene:
    return sample_scene(0, split, number)


def scene_of(record: Record) -> Scene:
    return _scene(record.meta["split"], record.meta["scene"])


def read_scene(record: Record) -> str:
    """The answer of somebody who has the scene and the words of the question, nothing else."""
    scene, text = scene_of(record), record.question
    if record.meta["split"] == "language":
        text = text.rpartition(". ")[2]
    return READERS[record.meta["question_type"]](scene, text)


def _there(scene: Scene, text: str) -> list[Lesion]:
    """Lesions in the places that a question names, in its order."""
    found = []
    pattern = r"(?:(left|right) )?(?:half of the )?\b(" + "|".join(ORGANS) + ")"
    for side, organ in re.findall(pattern, text):
        [lesion] = [
            each
            for each in scene.lesions
            if each.organ == organ and each.side in (side or each.side)
        ]
        found.append(lesion)
    return found


def _shaped(scene: Scene, text: str) -> Lesion:
    [lesion] = [each for each in scene.lesions if f"{ADJECTIVES[each.shape]} lesion" in text]
    return lesion


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _organ_side(scene: Scene, text: str) -> str:
    [organ] = [each for each in scene.organs if each.name in text]
    return "left" if organ.x < 0.5 else "right"


def _place(scene: Scene, text: str) -> str:
    lesion = _shaped(scene, text)
    return lesion.organ if lesion.organ in ("liver", "stomach") else f"{lesion.side} {lesion.organ}"


def _larger(scene: Scene, text: str) -> str:
    first, second = _there(scene, text)
    return _yes(first.radius > second.radius)


READERS = {
    "modality": lambda scene, text: scene.modality,
    "modality_check": lambda scene, text: _yes(scene.modality in text),
    "region": lambda scene, text: scene.region,
    "laterality": _organ_side,
    "count": lambda scene, text: NUMBERS[len(scene.lesions)],
    "lesion_present": lambda scene, text: _yes(len(scene.lesions) > 0),
    "lesion_in_organ": lambda scene, text: _yes(any(each.organ in text for each in scene.lesions)),
    "organ": lambda scene, text: _shaped(scene, text).organ,
    "place": _place,
    "side": lambda scene, text: "left" if _shaped(scene, text).x < 0.5 else "right",
    "shape": lambda scene, text: _there(scene, text)[0].shape,
    "shape_check": lambda scene, text: _yes(ADJECTIVES[_there(scene, text)[0].shape] in text),
    "kind": lambda scene, text: _there(scene, text)[0].kind,
    "size": lambda scene, text: _there(scene, text)[0].size,
    "contrast": lambda scene, text: _there(scene, text)[0].contrast,
    "comparison": _larger,
    "device_present": lambda scene, text: _yes(scene.device is not None),
    "device": lambda scene, text: scene.device.kind if scene.device else "",
}


def test_every_family_has_a_reader_wordings_and_extended_answers() -> None:
    assert set(FAMILIES) == set(READERS) == set(WORDINGS)
    assert {name.partition(":")[0] for name in EXTENDED} == set(FAMILIES)
    assert {record.meta["question_type"] for record in ASKED} == set(FAMILIES)


def test_who_reads_the_scene_answers_everything() -> None:
    asked = QUESTIONS[::3]
    questions = [question_of(record) for record in asked]
    answers = [Prediction(record.id, read_scene(record)) for record in asked]
    scores = score_vqa(answers, questions, num_bootstrap_samples=0)["scores"]
    for name in ("open_recall", "open_exact_match", "closed_accuracy"):
        assert scores[name]["value"] == 100.0
    # A wrong reader is told apart: the strict scorer is not what makes this 100.
    wrong = [Prediction(answer.id, other.text) for answer, other in pairwise(answers)]
    scores = score_vqa(wrong, questions[:-1], num_bootstrap_samples=0)["scores"]
    assert scores["average"]["value"] < 40


@pytest.mark.parametrize("split", ["train", "test", "test_composition"])
def test_answers_are_level_in_every_family_and_wording(split: str) -> None:
    given: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    by_family: dict[str, Counter[str]] = defaultdict(Counter)
    for record in RECORDS[split]:
        name = record.meta["question_type"]
        by_family[name][record.answer] += 1
        if name in ("modality", "region", "count", "lesion_present", "device_present", "device"):
            given[name, record.question][record.answer] += 1
        if name in ("modality_check", "lesion_in_organ", "laterality", "side"):
            given[name, record.question][record.answer] += 1
    for (name, question), counts in given.items():
        counts.update(dict.fromkeys(FAMILIES[name].answers, 0))
        assert max(counts.values()) - min(counts.values()) <= 2, question
    for name, counts in by_family.items():
        assert set(counts) <= set(FAMILIES[name].answers)
        num_cells = len(WORDINGS[name]) * (5 if FAMILIES[name].balanced_words else 1)
        assert max(counts.values()) - min(counts.values()) <= 2 * num_cells, name


def test_closed_questions_are_balanced_and_say_their_options() -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in ASKED:
        if record.answer_type == "CLOSED":
            assert record.answer in record.meta["options"]
            counts[record.meta["question_type"]][record.answer] += 1
        else:
            assert len(FAMILIES[record.meta["question_type"]].answers) >= 4
    for name, found in counts.items():
        share = max(found.values()) / found.total()
        assert len(found) == 2 and share < 0.55, name


@pytest.mark.parametrize("split", ["test", "test_composition"])
def test_text_alone_is_worth_little(split: str) -> None:
    train = [question_of(record) for record in RECORDS["train"]]
    test = [question_of(record) for record in RECORDS[split]]
    assert len(train) >= 4000
    baselines = score_baselines(train, test, num_bootstrap_samples=0)
    assert set(baselines) == {"majority", "text_nearest"}
    for name, baseline in baselines.items():
        for scorer in ("strict", "legacy"):
            assert baseline["scores"][scorer]["average"]["value"] <= 45, (name, scorer)
    # Stronger than both: it knows families, and the commonest answer to the very same words.
    exact, family = defaultdict(Counter), defaultdict(Counter)
    for each in train:
        exact[each.text][each.answer] += 1
        family[each.meta["question_type"]][each.answer] += 1
    for by_text in (True, False):
        guesses = []
        for each in test:
            known = (by_text and exact[each.text]) or family[each.meta["question_type"]]
            guesses.append(Prediction(each.id, known.most_common(1)[0][0]))
        average = score_vqa(guesses, test, num_bootstrap_samples=0)["scores"]["average"]["value"]
        assert average <= 45


def test_composition_asks_about_pairs_that_are_never_trained() -> None:
    pairs = {"/".join(pair) for pair in held_out_pairs()}
    assert {record.meta["pair"] for record in RECORDS["test_composition"]} == pairs
    assert all(record.meta["composition"] for record in RECORDS["test_composition"])
    for split in ("train", "validation", "test", "language"):
        found = {record.meta.get("pair") for record in RECORDS[split]}
        assert found.isdisjoint(pairs)
        assert not any(record.meta.get("composition") for record in RECORDS[split])
    # No text names one either, not even to deny it.
    for record in [*RECORDS["train"], *RECORDS["language"], *RECORDS["vision"]]:
        for organ, kind in held_out_pairs():
            shape = ADJECTIVES[SHAPES[kind]]
            assert not re.search(rf"lesion in [^?.]*\b{organ} (?:look )?{shape}\?", record.question)
            for text in [*record.answers, *(record.extended or [])]:
                assert not re.search(
                    rf"{shape} {kind} in the (?:[a-z]+ )?(half of the )?{organ}", text
                )


def test_an_extended_answer_restates_the_finding() -> None:
    for record in QUESTIONS[::4]:
        [extended] = record.extended or []
        scene = scene_of(record)
        wrong_in = {fault.kind for fault in find_faults(record.question, record.answer, extended)}
        # Sides and "no lesion" come from the scene, not from the short answer.
        assert wrong_in <= {"side invented", "negation added"}, record
        assert extended[0].isupper() and extended.endswith(".") and "{" not in extended
        if record.answer_type == "CLOSED" and record.answer in ("yes", "no"):
            assert extended.lower().startswith(f"{record.answer}, ")
        lesions = [
            lesion
            for lesion in scene.lesions
            if f"{lesion.organ}/{lesion.kind}" == record.meta.get("pair")
        ]
        said = [
            all(
                word in extended
                for word in (lesion.organ, lesion.side, lesion.size, lesion.kind, lesion.contrast)
            )
            and ADJECTIVES[lesion.shape] in extended
            for lesion in lesions
        ]
        assert not lesions or any(said), record


def test_a_longer_split_begins_with_the_shorter_one() -> None:
    few = list(split_records(PhantomSettings(num_images=40), "train"))
    assert len(few) > 150
    assert few == RECORDS["train"][: len(few)]


def test_language_can_be_answered_from_its_description() -> None:
    for record in RECORDS["language"]:
        scene = scene_of(record)
        assert record.image is None
        description = record.question
        assert scene.modality in description and scene.region in description
        for lesion in scene.lesions:
            assert (
                f"{lesion.size} {lesion.contrast} {ADJECTIVES[lesion.shape]} {lesion.kind}"
                in description
            )
        assert ("no medical device" in description.lower()) == (scene.device is None)
        if scene.region == "abdomen":
            assert "the stomach lies on the" in description
    texts = [record.question for record in RECORDS["language"]]
    assert len(set(texts)) == len(texts)


def test_vision_has_captions_and_no_questions() -> None:
    assert len(RECORDS["vision"]) == SETTINGS.num_vision
    for record in RECORDS["vision"]:
        assert record.image and record.answer_type is None and record.extended is None
        assert record.meta["modality"] in record.answer


def test_an_image_has_as_many_questions_as_wanted_and_none_twice() -> None:
    for number in (1, 3, 8):
        questioner = Questioner(0, "test", number)
        for scene in (sample_scene(0, "test", place) for place in range(30)):
            asked = questioner.ask(scene)
            assert len({each.family for each in asked}) == len(asked) <= number
            assert asked
