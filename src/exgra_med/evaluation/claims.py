"""A score beside what is claimed of the model: pass, fail, or cannot be told apart.

    claims:
      - dataset: vqa-rad
        protocol: legacy
        measure: average
        value: 75.20
        questions: 451
        source: arXiv 2410.02615v4

The rule, in this order:

1. Another data set, split, protocol or number of questions, or a question without an answer: the
   claim is *not compared*, and why is told. So is a fraction that would not fail as percent.
2. *pass*: the score, rounded to the decimals of the claim, is the claim.
3. *fail*: no number that rounds to the claim lies within the 95 % interval over pictures.
4. Else the two *cannot be told apart*: on as many other pictures the same model may reach it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from exgra_med.errors import CommandError, DataError
from exgra_med.evaluation.results import Score
from exgra_med.model.published import (
    PROVENANCE,
    PUBLISHED_CHECKPOINTS,
    PublishedScore,
    published_checkpoint,
)
from exgra_med.reading import read_object, read_yaml
from exgra_med.section import Section, explain

PASS, FAIL, OPEN, NOT_COMPARED = "pass", "fail", "cannot be told apart", "not compared"
CLAIM_RULE = (
    "Pass: the score rounds to the claim. Fail: nothing that rounds to the claim lies within the "
    "95 % interval over pictures. Else the two cannot be told apart."
)
MOST_PERCENT = 200
"""Percent. A claim above it is a slip, whatever was counted."""
_EDGE = 1e-9
"""Half a step is met with this tolerance, since scores are binary fractions."""


class _ClaimInFile(Section):
    """One claim of a user's file."""

    dataset: str
    protocol: str
    measure: str
    value: str
    """The digits that are written, which say how far it was rounded."""
    source: str
    split: str = "test"
    questions: int | None = Field(default=None, gt=0)

    @field_validator("value", mode="before")
    @classmethod
    def _is_number(cls, value: Any) -> str:
        digits = str(value).strip()
        # No exponent: `1e2` does not say how many of its digits were measured.
        if not re.fullmatch(r"[-+]?\d{1,9}(\.\d{1,12})?", digits, re.ASCII):
            raise ValueError(f"not a number such as 75.25: {value!r}")
        if abs(Decimal(digits)) > MOST_PERCENT:
            raise ValueError(f"{digits} is no score: scores are in percent")
        return digits


class _ClaimFile(Section):
    claims: list[_ClaimInFile] = Field(min_length=1)


def claims_of(expected: str) -> tuple[PublishedScore, ...]:
    """The claims of a published checkpoint, by its name, or of a YAML file.

    Raises:
        CommandError: it is neither, or the checkpoint has no known claim.
        DataError: the file cannot be read, or is none of claims.
    """
    path = Path(expected)
    if path.suffix.lower() in (".yaml", ".yml") or path.is_file():
        return _from_file(path)
    known = published_checkpoint(expected)
    with_claims = ", ".join(each.name for each in PUBLISHED_CHECKPOINTS if each.claims)
    if known is None:
        raise CommandError(
            f"--expect {expected}: neither a YAML file nor a published checkpoint.",
            f"Checkpoints with claims are {with_claims}.",
        )
    if not known.claims:
        raise CommandError(
            f"No claim of {known.name} is known. {known.no_claims}",
            "Write what is claimed into a YAML file, and name that.",
        )
    return known.claims


def _from_file(path: Path) -> tuple[PublishedScore, ...]:
    values = read_yaml(path, DataError, fractions_as_text=True)
    if not isinstance(values, dict):
        raise DataError(
            f"{path}: no list of claims.", "Write `claims:`, and below it one `-` each."
        )
    try:
        found = _ClaimFile.model_validate(values)
    except ValidationError as error:
        message, hint = explain(error, _ClaimFile)
        raise DataError(f"{path}: {message}.", hint) from error
    return tuple(PublishedScore(**each.model_dump()) for each in found.claims)


def claims_of_model(folder: Path | None, name: str | None = None) -> tuple[PublishedScore, ...]:
    """What is claimed of the published checkpoint that answered; nothing where it is another model.

    Args:
        folder: of the checkpoint, which says where it was imported from.
        name: of the model at its service.
    """
    if folder is not None and (folder / PROVENANCE).is_file():
        name = str(read_object(folder / PROVENANCE).get("source"))
    known = None if name is None else published_checkpoint(name)
    return () if known is None else known.claims


def judge_claims(
    claims: Iterable[PublishedScore],
    scores: Mapping[str, Mapping[str, Any]],
    *,
    dataset: str | None,
    split: str | None,
    num_unanswered: int = 0,
) -> list[dict[str, Any]]:
    """Each claim with its verdict.

    Args:
        claims: what is expected.
        scores: protocol -> measure -> score, as an entry of `results.json` has them.
        dataset: what was asked; None where a reference does not say it, and is taken at its word.
        split: the same.
        num_unanswered: questions without an answer.

    Returns:
        JSON-ready: the claim, `measured`, `interval`, `verdict` and `why`.
    """
    return [_judged(each, scores, (dataset, split), num_unanswered) for each in claims]


def _judged(
    claim: PublishedScore,
    scores: Mapping[str, Mapping[str, Any]],
    asked: tuple[str | None, str | None],
    num_unanswered: int,
) -> dict[str, Any]:
    found = (scores.get(claim.protocol) or {}).get(claim.measure)
    score = Score.model_validate(found) if found is not None else Score(value=None)
    verdict, why = _verdict(claim, scores, score, asked, num_unanswered)
    return {
        "dataset": claim.dataset,
        "split": claim.split,
        "protocol": claim.protocol,
        "measure": claim.measure,
        "claimed": claim.value,
        "source": claim.source,
        "measured": score.value,
        "interval": score.interval,
        "verdict": verdict,
        "why": why,
    }


def _verdict(
    claim: PublishedScore,
    scores: Mapping[str, Mapping[str, Any]],
    score: Score,
    asked: tuple[str | None, str | None],
    num_unanswered: int,
) -> tuple[str, str]:
    claimed, told = (claim.dataset, claim.split), asked
    if any(there not in (None, here) for here, there in zip(claimed, told, strict=True)):
        shown = "/".join(part or "unnamed" for part in told)
        return NOT_COMPARED, f"claimed on {'/'.join(claimed)}, asked on {shown}"
    if claim.protocol not in scores:
        return NOT_COMPARED, (
            f"claimed under {claim.protocol}, scored under {', '.join(scores) or 'nothing'}"
        )
    if claim.measure not in scores[claim.protocol]:
        return NOT_COMPARED, f"{claim.protocol} has no measure {claim.measure}"
    if score.value is None:
        return NOT_COMPARED, f"{claim.measure} has no value here"
    if claim.questions not in (None, score.count):
        return NOT_COMPARED, f"claimed of {claim.questions} questions, scored {score.count}"
    if num_unanswered:
        return NOT_COMPARED, f"{num_unanswered} questions have no answer"
    claimed_digits = Decimal(claim.value)
    if rounds_to(score.value, claimed_digits):
        return PASS, ""
    if score.interval is None:
        return NOT_COMPARED, "too few pictures for an interval"
    if not _is_outside(claimed_digits, score.interval):
        return OPEN, ""
    as_percent = claimed_digits.scaleb(2)
    if 0 < claimed_digits <= 1 and not _is_outside(as_percent, score.interval):
        return NOT_COMPARED, f"{claim.value} reads as a fraction; in percent it is {as_percent:f}"
    return FAIL, ""


def _is_outside(digits: Decimal, interval: Sequence[float]) -> bool:
    low, high = rounding_range(digits)
    return high < interval[0] or interval[1] < low


def rounding_range(digits: Decimal) -> tuple[float, float]:
    """From which number to which one a number of so many digits may have been rounded.

    >>> rounding_range(Decimal("75.2")), rounding_range(Decimal("75.20"))
    ((75.15, 75.25), (75.195, 75.205))
    """
    half = Decimal(1).scaleb(int(digits.as_tuple().exponent)) / 2
    return float(digits - half), float(digits + half)


def rounds_to(value: float, digits: Decimal) -> bool:
    """Whether a score becomes that number by rounding; half a step counts to either side, whichever
    way its authors rounded."""
    low, high = rounding_range(digits)
    return low - _EDGE <= value <= high + _EDGE


def claim_sentences(judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence a claim, with the number behind it; and the rule, where one was compared."""
    sentences = []
    for each in judged:
        what = (
            f"Claimed: {each['measure'].replace('_', ' ')} {each['claimed']} ({each['protocol']}, "
            f"{each['dataset']}/{each['split']}; {each['source']})"
        )
        if each["verdict"] == NOT_COMPARED:
            sentences.append(f"{what}. Not compared: {each['why']}.")
            continue
        bounds = each["interval"]
        within = f" ({bounds[0]:.1f} to {bounds[1]:.1f})" if bounds else ""
        # As many decimals as the claim has, so that both can be compared by eye.
        digits = max(0, -int(Decimal(each["claimed"]).as_tuple().exponent))
        measured = f"{each['measured']:.{digits}f}{within}"
        sentences.append(f"{what}. Measured: {measured}. {each['verdict'].capitalize()}.")
    if any(each["verdict"] != NOT_COMPARED for each in judged):
        sentences.append(CLAIM_RULE)
    return sentences
