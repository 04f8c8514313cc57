from hypothesis import given, settings
from hypothesis import strategies as st

from exgra_med.data.records import Record, Turn, json_line, parse_record
from exgra_med.data.sources.options import closed_options
from exgra_med.data.subset import images_for_share, nested_subset
from exgra_med.data.talks import strip_placeholder
from exgra_med.reading import decode_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
TURNS = [Turn(role="user", text="Q"), Turn(role="assistant", text="A")]


@given(TEXT, TEXT, TEXT, st.lists(TEXT, max_size=3))
def test_a_line_reads_back_as_its_record(name: str, question: str, answer: str, images) -> None:
    turns = [Turn(role="user", text=question), Turn(role="assistant", text=answer)]
    record = Record(id=name, image=images, turns=turns, extended=[answer], meta={"x": question})
    line = json_line(record.to_json())
    assert line.count(b"\n") == 1
    assert parse_record(decode_json(line.decode(), "x"), "x") == record


@given(TEXT)
def test_stripping_the_placeholder_is_final(text: str) -> None:
    once = strip_placeholder(f"<image>\n{text}\n<image>")
    assert strip_placeholder(once) == once
    assert once == once.strip()


@settings(max_examples=40)
@given(
    st.integers(1, 300),
    st.floats(0.001, 1.0),
    st.floats(0.001, 1.0),
    st.integers(0, 10**9),
)
def test_subsets_are_nested(count: int, one: float, other: float, seed: int) -> None:
    records = [Record(id=str(n), turns=TURNS) for n in range(count)]
    small, large = (
        {r.id for r in nested_subset(records, fraction, seed)} for fraction in sorted((one, other))
    )
    assert small <= large
    assert len(large) == max(1, round(count * max(one, other)))


@given(st.dictionaries(TEXT, st.integers(1, 20), min_size=2), st.floats(0.0, 1.0), st.integers())
def test_a_share_of_images_is_near_the_wish(counts, share: float, seed: int) -> None:
    total = sum(counts.values())
    held = sum(counts[name] for name in images_for_share(counts, share, seed, "test"))
    assert abs(held - share * total) <= max(counts.values())


@given(TEXT, TEXT)
def test_options_hold_the_answer_or_are_unknown(question: str, answer: str) -> None:
    options = closed_options(f"Is it {question} or {answer}?", answer)
    if options is not None:
        plain = [" ".join(option.lower().replace(",", " ").split()) for option in options]
        assert " ".join(answer.lower().replace(",", " ").split()) in plain
