"""A judge's section of `results.json` in sentences, for the terminal and the report."""

from typing import Any

from exgra_med.evaluation.wording import interval_text


def judged_sentences(section: dict[str, Any]) -> list[str]:
    """What was found, what the judge's habits are worth, what was left out, what it cost."""
    bounds = section["intervals"]
    sentences = [
        f"{section['judge']} graded {section['num']} answers on {section['num_images']} images.",
        f"Relative score: {_number(section['relative_score'])} % of the reference's "
        f"(95 %: {interval_text(bounds['relative_score'])}); with the reference always first, as "
        f"published, {_number(section['relative_score_published_order'])} %.",
    ]
    for title, groups in (("type", section["by_type"]), ("domain", section["by_domain"])):
        values = "; ".join(
            f"{name} {_number(each['relative_score'])} "
            f"({interval_text(each['intervals']['relative_score'])}, n = {each['num']})"
            for name, each in groups.items()
        )
        sentences.append(f"Relative score by {title}: {values}.")
    return sentences + habit_sentences(section)


def habit_sentences(section: dict[str, Any]) -> list[str]:
    """What length and order are worth to the judge, what was left out, and what it cost."""
    length, order = section["length"], section["order"]
    bounds = section["intervals"]
    sentences = [
        f"Win rate against the reference: {_number(section['win_rate'])} % "
        f"(95 %: {interval_text(bounds['win_rate'])}); at equal length "
        f"{_number(length['win_rate'])} % ({interval_text(length['interval'])}), answers have "
        f"{_number(length['mean_characters'])} characters on average and references "
        f"{_number(length['mean_reference_characters'])}."
    ]
    if length["extrapolated"]:
        sentences.append(
            "Every answer lies on the same side of its reference in length, so the win rate at "
            "equal length is extrapolated and says little."
        )
    if order["flip_rate"] is not None:
        sentences.append(
            f"Exchanging the two answers changes {order['flip_rate']:.1f} % of the verdicts and "
            f"turns {order['reversal_rate']:.1f} % round; the first place is worth "
            f"{order['first_place_bonus']:+.2f} grade points."
        )
    left_out = [
        (section["num_no_answer"], "have no answer and lose"),
        (section["num_unjudged"], "could not be graded and are left out"),
        (section["num_without_reference"], "have no reference and were not asked"),
    ]
    sentences += [f"{number} questions {what}." for number, what in left_out if number]
    usage = section["usage"]
    cost = "unknown" if usage["cost"] is None else f"${usage['cost']:.4f}"
    sentences.append(
        f"{usage['requests']} requests, {usage['from_cache']} from the cache, "
        f"{usage['prompt_tokens'] + usage['completion_tokens']:,} tokens, cost {cost}; "
        f"every reply is in {section['transcripts']}."
    )
    return sentences


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
