"""Questions about one image become conversations, and shares are shares of these."""

from typing import Any

import pytest

from exgra_med.data.conversation import (
    choose_conversations,
    join_by_image,
    with_extended_answers,
)
from exgra_med.data.records import Record, Turn


def question(number: int, image: str | None, **more: Any) -> Record:
    turns = [
        Turn(role="user", text=f"question {number}?"),
        Turn(role="assistant", text=f"answer {number}"),
    ]
    return Record(id=f"q{number}", image=image, turns=turns, **more)


def many(num_images: int, each: int) -> list[Record]:
    numbers = range(num_images * each)
    return [question(number, f"{number // each}.png") for number in numbers]


def test_questions_of_one_image_join_in_their_order_up_to_the_limit() -> None:
    records = [question(n, image) for n, image in enumerate(["a.png", "b.png", "a.png", "a.png"])]
    first, second, third = join_by_image(records, 2)
    assert [each.id for each in (first, second, third)] == ["q0+1", "q1", "q3"]
    assert [turn.text for turn in first.turns] == [
        "question 0?", "answer 0", "question 2?", "answer 2",
    ]  # fmt: skip
    assert first.image == "a.png" and third is records[3]
    assert join_by_image(records, 1) == records


def test_records_without_an_image_stay_alone() -> None:
    records = [question(0, None), question(1, None)]
    assert list(join_by_image(records, 5)) == records


@pytest.mark.parametrize("complete", [True, False])
def test_extended_answers_are_kept_where_all_have_them(complete: bool) -> None:
    last: dict[str, Any] = {"extended": ["longer 1"]} if complete else {}
    records = [question(0, "a.png", extended=["longer 0"]), question(1, "a.png", **last)]
    (joined,) = join_by_image(records, 5)
    assert joined.extended == (["longer 0", "longer 1"] if complete else None)
    assert joined.answer_type is None
    if complete:
        answers = with_extended_answers(joined).answers
        assert answers == ["longer 0", "longer 1"]


def test_a_share_is_of_images_and_not_of_the_questions_about_each() -> None:
    records = many(50, 4)
    tenth = choose_conversations(records, 4, 0.1, seed=3)
    assert len(tenth) == 5 and all(len(each.answers) == 4 for each in tenth)
    more = choose_conversations(records, 4, 0.4, seed=3)
    assert len(more) == 20 and {each.id for each in tenth} < {each.id for each in more}
    assert list(choose_conversations(records, 4, 1.0, seed=3)) == list(join_by_image(records, 4))
    # One by one it is the same as it always was.
    assert len(choose_conversations(records, 1, 0.1, seed=3)) == 20
