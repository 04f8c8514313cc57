"""What must hold for every text, in any script."""

import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from exgra_med.evaluation import metrics, reading
from exgra_med.evaluation.answers import Prediction, Question, pair
from exgra_med.evaluation.metrics import published_words, sentence_bleu
from exgra_med.evaluation.reading import words
from exgra_med.evaluation.statistics import holm, mcnemar, wilson
from exgra_med.evaluation.tasks.multiple_choice import choose_by_similarity, choose_strictly

ANY = st.text(max_size=40)
ANSWER = st.lists(
    st.sampled_from(
        "yes no left right not both lung the 左 右 没有 是 ct mri x-ray , . a 2".split()
    ),
    max_size=8,
).map(" ".join)
TEXT = ANY | ANSWER


@given(TEXT)
@example("0'0")
def test_words_are_stable(text: str) -> None:
    found = words(text)
    assert all(found) and words(f" {text}\n") == found


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30))
def test_full_width_characters_are_their_plain_ones(text: str) -> None:
    assert words("".join(chr(ord(each) + 0xFEE0) for each in text)) == words(text)


_WORDS = "a left x ray xray rays noncontrast pos neg plus minus more less than grade".split()
_PARTS = st.sampled_from(
    [*_WORDS, "X-ray", "T2 star", "II", "é", "ß", "左", "it's", ".", ", ", ";", "! ", "\n"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_PARTS, st.text("abno '.,é", max_size=4)), max_size=8))
def test_texts_of_letters_alone_need_no_other_pattern(parts: list[str]) -> None:
    text = " ".join(parts).casefold()
    slow = text
    for pattern, by in reading._REWRITES:
        slow = pattern.sub(by, slow)
    if reading._LETTERS_ONLY.fullmatch(text):
        assert reading._rewritten(text) == slow


@given(TEXT, TEXT)
def test_overlaps_lie_between_zero_and_one(prediction: str, reference: str) -> None:
    for overlap in (
        metrics.open_overlap(prediction, reference),
        metrics.published_overlap(prediction, reference),
    ):
        assert all(0.0 <= value <= 1.0 for value in overlap)
    assert all(
        0.0 <= value <= 1.0 for value in metrics.published_bleu(prediction, reference).values()
    )
    assert metrics.published_closed_hit(prediction, reference) in (0, 1)
    assert metrics.published_closed_hit_pathvqa(prediction, reference) in (0, 1, None)


@given(TEXT)
def test_the_reference_is_right(reference: str) -> None:
    assert metrics.published_closed_hit(reference, reference) == 1
    if words(reference):
        assert metrics.closed(reference, reference).hit == 1
        assert metrics.open_overlap(reference, reference) == (1.0, 1.0, 1.0, 1.0)


@given(TEXT, TEXT, ANY)
def test_a_closed_reading_is_consistent(prediction: str, reference: str, question: str) -> None:
    reading = metrics.closed(prediction, reference, question)
    assert reading.hit == (reading.verdict is metrics.Verdict.RIGHT)
    assert (reading.chosen is None) == (
        reading.verdict in ("several_options", "abstained", "unparsed")
    )
    if reading.hit:
        assert reading.chosen == reading.expected


@given(ANSWER)
def test_repeating_an_answer_gains_nothing(prediction: str) -> None:
    once = metrics.open_overlap(prediction, "left lung").recall
    assert metrics.open_overlap(f"{prediction} {prediction}", "left lung").recall == once


@given(ANY)
def test_published_cleaning_never_fails(text: str) -> None:
    assert published_words(text) == " ".join(published_words(text).split())


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_bleu_of_equal_texts_is_highest(reference: list[str], hypothesis: list[str]) -> None:
    ours = sentence_bleu(reference, hypothesis)["bleu_1"]
    assert ours <= sentence_bleu(reference, reference)["bleu_1"] or not reference


@given(TEXT, st.lists(ANSWER.filter(bool), min_size=1, max_size=4))
def test_a_choice_is_an_option(answer: str, options: list[str]) -> None:
    for choose in (choose_strictly, choose_by_similarity):
        chosen = choose(answer, options)
        assert chosen is None or 0 <= chosen < len(options)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["yes", "no", ""])), max_size=8))
def test_every_question_gets_one_answer_or_none(rows: list[tuple[str, str]]) -> None:
    questions = [Question(name, "?", "yes", "CLOSED") for name in "ab"]
    predictions = [Prediction(name, text) for name, text in rows]
    if not {name for name, _ in rows} & {"a", "b"}:
        return
    pairing = pair(predictions, questions)
    answered = sum(answer is not None for answer in pairing.answers)
    assert answered + pairing.counts["missing"] + pairing.counts["contradictory"] == 2


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(new >= old and new <= 1 for new, old in zip(adjusted, values, strict=True))


@settings(max_examples=50)
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_a_symmetric_probability(first: int, second: int) -> None:
    assert 0 < mcnemar(first, second) <= 1
    assert math.isclose(mcnemar(first, second), mcnemar(second, first), rel_tol=1e-9)
    bounds = wilson(first, first + second)
    if bounds is not None:
        assert bounds[0] <= first / (first + second) + 1e-12
        assert bounds[1] >= first / (first + second) - 1e-12
