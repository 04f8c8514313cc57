"""The published evaluation protocols as tables: from the registry that computes them."""

from exgra_med.evaluation.protocols import protocols
from exgra_med.evaluation.protocols.judging import judges_of
from exgra_med.evaluation.protocols.protocol import (
    ALL_COUNT,
    EVERYTHING,
    OVER_QUESTIONS,
    Number,
    Protocol,
    Reading,
)
from exgra_med.evaluation.tables import IN_OUR_WORDS


def protocol_page() -> str:
    """Markdown: one table of all protocols, then one section each with its numbers."""
    rows = ["| protocol | data sets | split | judge | source |", "| --- | --- | --- | --- | --- |"]
    rows += [_row(each) for each in protocols()]
    return "\n".join([*rows, "", *(_section(each) for each in protocols())])


def _row(protocol: Protocol) -> str:
    judges = {each.model for each in judges_of([protocol])}
    cells = (
        f"[{protocol.title}](#protocol-{protocol.name})",
        ", ".join(protocol.datasets),
        protocol.split,
        ", ".join(sorted(judges)) or "none",
        protocol.source.text,
    )
    return f"| {' | '.join(map(_cell, cells))} |"


def _section(protocol: Protocol) -> str:
    numbers = protocol.numbers
    follows = "code" if protocol.is_exact else "words; no code that scores is published"
    asked = {each.asked.words for each in numbers if each.asked is not EVERYTHING}
    lines = [
        f"(protocol-{protocol.name})=",
        f"## {protocol.title}",
        "",
        f"* Name: `{protocol.name}`, for {', '.join(protocol.datasets)}",
        f"* Source, which is {follows}: {protocol.source.text}",
        f"* Prompt: {protocol.prompt}",
        *(f"* Asked: {words}" for words in sorted(asked)),
        *(f"* Types: {words}" for words in sorted({each.typing.words for each in numbers})),
        *(
            f"* Judge: {each.model}. Its published request is in {each.published}; "
            f"[whose words it is asked in](#whose-words-a-judge-is-asked-in)"
            for each in judges_of([protocol])
        ),
        *([f"* To know: {protocol.notes}"] if protocol.notes else []),
        "",
        "| number | what it is | of questions | answer reading |",
        "| --- | --- | --- | --- |",
        *(_number(each) for each in numbers),
        "",
    ]
    return "\n".join(lines)


def _number(number: Number) -> str:
    counted = [number.of]
    counted += [number.dropping.words] if number.dropping is not ALL_COUNT else []
    counted += [number.mean.words] if number.mean is not OVER_QUESTIONS else []
    read = "; ".join(_words(each) for each in number.readings)
    if number.of == "all" and len(number.readings) > 1:
        read = f"closed: {_words(number.closed)}; open: {_words(number.reading('open'))}"
    is_judged = any(each.judge for each in number.readings)
    label = f"{number.label} ({IN_OUR_WORDS})" if is_judged else number.label
    cells = (f"`{number.name}`", label, "; ".join(counted), read)
    return f"| {' | '.join(map(_cell, cells))} |"


def _words(reading: Reading) -> str:
    return f"{reading.words} (needs known answers)" if reading.needs_candidates else reading.words


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
