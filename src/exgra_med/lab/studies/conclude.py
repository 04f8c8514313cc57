"""What follows from a study's numbers, in plain words, whatever it is."""

from collections.abc import Mapping
from typing import Any

from exgra_med.evaluation.published import published_curve
from exgra_med.lab.studies.compare import LEVEL, told_apart
from exgra_med.lab.studies.schema import Study


def conclude(
    study: Study,
    statistics: dict[str, Any],
    missing: list[str],
    baseline: float | None = None,
    unanswered: Mapping[str, int] | None = None,
    outcomes: Mapping[str, dict[str, Any]] | None = None,
) -> list[str]:
    """Sentences, the answer first.

    Args:
        study: what was asked.
        statistics: of `compare_arms`.
        missing: runs that are not finished.
        baseline: percentage of the strongest baseline that sees no picture.
        unanswered: arms whose runs left questions without an answer, with how many; nothing is
            concluded of these.
        outcomes: statistics of the further outcomes, by name.
    """
    if not statistics["arms"]:
        return ["No run is finished, so there is nothing to conclude."]
    titles = {arm: each["title"] for arm, each in statistics["arms"].items()}
    lacking = dict(unanswered or {})
    sentences = [
        f"{number} questions have no answer in runs of {titles[arm]}, over all tests and kinds of "
        "pictures: no verdict on it until they are answered."
        for arm, number in lacking.items()
    ]
    if study.baseline in lacking:
        return sentences
    others = outcomes or {}
    every = [statistics, *others.values()]
    num_tests = sum(len(each["comparisons"]) for each in every)
    for arm in [each for each in titles if each not in lacking]:
        rows = [row for row in statistics["comparisons"] if row["arm"] == arm]
        sentences += _about(study, arm, rows, titles, num_tests)
        for name, outcome in others.items():
            own = [row for row in outcome["comparisons"] if row["arm"] == arm]
            sentences += [f"{name}: {each}" for each in _sentences(own, titles, num_tests)]
    if not statistics["comparisons"]:
        sentences.append(f"There is nothing to compare with {titles.get(study.baseline, '')} yet.")
    sentences += _efficiency(statistics["efficiency"], titles, lacking)
    sentences += _rise(statistics.get("rise"), titles)
    sentences += _changed(statistics.get("differing"), study.baseline, titles, lacking)
    sentences += _above_baseline(statistics, baseline)
    sentences += _seeds(statistics)
    if missing:
        sentences.append(
            f"{len(missing)} runs of the study are not finished; all this may change with them."
        )
    return sentences


def percent(fraction: float) -> str:
    """`10 %`, `2.5 %`."""
    return f"{100 * fraction:g} %"


def _about(
    study: Study, arm: str, rows: list[dict[str, Any]], titles: dict[str, str], num_tests: int
) -> list[str]:
    """An arm against the baseline: overall first, then fraction by fraction."""
    sentences = _sentences(rows, titles, num_tests)
    method = arm.partition("+")[0]
    for row in rows:
        gain = _published_gain(study, method, row["fraction"]) if arm == method else None
        if row["same_scores"] or gain is None:
            continue
        if row["p_holm"] >= LEVEL and row["detectable"] > abs(gain):
            sentences.append(
                f"At {percent(row['fraction'])} this study is too small to find the paper's gain "
                f"of {abs(gain):.1f} points (it could find {row['detectable']:.1f})."
            )
    return sentences


def _sentences(rows: list[dict[str, Any]], titles: dict[str, str], num_tests: int) -> list[str]:
    """An arm against the baseline, over all fractions first; what was not found is one sentence."""
    said, nothing = [], []
    for row in sorted(rows, key=lambda row: row["fraction"] is not None):
        if _is_nothing(row):
            nothing.append(f"{_where(row)} {_numbers(row)}")
        else:
            said.append(_sentence(row, titles, num_tests))
    if nothing:
        names = " and ".join(titles[rows[0][each]] for each in ("arm", "baseline"))
        said.append(f"No difference was found between {names} {', '.join(nothing)}.")
    return said


def _where(row: dict[str, Any]) -> str:
    return "over all fractions" if row["fraction"] is None else f"at {percent(row['fraction'])}"


def _numbers(row: dict[str, Any]) -> str:
    bounds = row["interval"]
    size = f", the interval is {_points(bounds[0])} to {_points(bounds[1])}" if bounds else ""
    return f"({_points(row['value'])} points{size}; {_one_seed(row)}p = {row['p_holm']:.2g})"


def _one_seed(row: dict[str, Any]) -> str:
    """What interval and test rest on, where it is less than the reader expects."""
    return "one seed, " if len(row["seeds"]) == 1 else ""


def _is_nothing(row: dict[str, Any]) -> bool:
    """Whether neither the test alone nor the interval tells the two apart."""
    bounds = row["interval"]
    holds_0 = bounds is not None and bounds[0] <= 0 <= bounds[1]
    return not row["same_scores"] and not told_apart(row) and (row["p"] >= LEVEL or holds_0)


def _sentence(row: dict[str, Any], titles: dict[str, str], num_tests: int) -> str:
    arm, baseline, where = titles[row["arm"]], titles[row["baseline"]], _where(row)
    bounds = row["interval"]
    if row["same_scores"]:
        return (
            f"{arm} and {baseline} have the same score for every question {where}: this study can "
            "tell nothing about a difference there."
        )
    if not told_apart(row):
        return (
            f"The difference between {arm} and {baseline} {where} does not stand up to the "
            f"correction for {num_tests} comparisons {_numbers(row)}."
        )
    better = "better" if row["value"] > 0 else "worse"
    size = f"{abs(row['value']):.1f} points"
    if bounds is not None:
        low, high = sorted(abs(edge) for edge in bounds)
        size = f"{low:.1f} to {high:.1f} points"
    basis = f"{_one_seed(row)}p = {row['p_holm']:.2g}"
    return f"{arm} is {better} than {baseline} by {size} {where} ({basis})."


def _points(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _published_gain(study: Study, method: str, fraction: float | None) -> float | None:
    """What the paper reports for this method over the baseline at this fraction, in its scoring."""
    published = study.published
    if published is None or fraction is None:
        return None
    names = [published.methods.get(each) for each in (method, study.baseline)]
    if None in names:
        return None
    curves = [published_curve(published.dataset, str(name)) for name in names]
    if any(fraction not in curve for curve in curves):
        return None
    return curves[0][fraction] - curves[1][fraction]


def _efficiency(
    efficiency: dict[str, Any] | None, titles: dict[str, str], lacking: Mapping[str, int]
) -> list[str]:
    if efficiency is None:
        return []
    own = efficiency["arms"].get(efficiency["baseline"], {}).get("fraction")
    itself = "" if own is None else f"; {titles[efficiency['baseline']]} itself with {percent(own)}"
    goal = f"{titles[efficiency['baseline']]} at {percent(efficiency['goal_fraction'])}"
    sentences = []
    for arm, found in efficiency["arms"].items():
        if arm == efficiency["baseline"] or arm in lacking:
            continue
        if found["same_scores"]:
            sentences.append(
                f"{titles[arm]} with {percent(found['fraction'])} of the data has the very scores "
                f"of {goal}: this study can tell nothing about the data that it saves."
            )
            continue
        low, high = ("not reached" if edge is None else percent(edge) for edge in found["interval"])
        reached = (
            f"does not reach {goal} at any fraction"
            if found["fraction"] is None
            else f"reaches {goal} with {percent(found['fraction'])} of the data"
        )
        sentences.append(f"{titles[arm]} {reached} (95 % interval: {low} to {high}){itself}.")
    return sentences


def _changed(
    differing: dict[str, Any] | None,
    baseline: str,
    titles: dict[str, str],
    lacking: Mapping[str, int],
) -> list[str]:
    """How many answers an arm changes, beside what another seed changes."""
    if differing is None or differing["arm"] in lacking:
        return []
    own, other = titles[differing["arm"]], titles[baseline]
    both = differing["only_arm"] + differing["only_baseline"]
    also = ", which also train on other pictures," if differing["fraction"] < 1 else ""
    return [
        f"At {percent(differing['fraction'])}, in a pair of equal seed, "
        f"{differing['only_arm']:.0f} of {differing['num_questions']} questions are answered "
        f"rightly by {own} alone and {differing['only_baseline']:.0f} by {other} alone, together "
        f"{both:.0f}; between two seeds of {other}{also} {differing['other_seed']:.0f} change."
    ]


def _rise(rise: dict[str, Any] | None, titles: dict[str, str]) -> list[str]:
    """Whether more data helps the baseline at all; where it does not, there is nothing to save."""
    if rise is None or rise["interval"] is None:
        return []
    least, most = map(percent, rise["fractions"])
    low, high = rise["interval"]
    about = f"{titles[rise['arm']]} {{}} from {least} to {most} of the data"
    if low > 0:
        return [f"{about.format('rises')} by {low:.1f} to {high:.1f} points."]
    return [
        f"{about.format('does not surely rise')} ({_points(rise['value'])} points, the interval is "
        f"{_points(low)} to {_points(high)}): where more data does not help, this study cannot "
        "show that a method saves any."
    ]


def _above_baseline(statistics: dict[str, Any], baseline: float | None) -> list[str]:
    """Which arms answer no better than without images, as far as the intervals tell."""
    blind = [
        arm["title"]
        for arm in statistics["arms"].values()
        if baseline is not None
        and not any(p["interval"] and p["interval"][0] > baseline for p in arm["points"])
    ]
    if not blind:
        return []
    return [
        f"Not surely above the {baseline:.1f} % of the strongest baseline that sees no picture, at "
        f"any share of the data: {', '.join(blind)}."
    ]


def _seeds(statistics: dict[str, Any]) -> list[str]:
    counts = {
        len(point["seeds"]) for each in statistics["arms"].values() for point in each["points"]
    }
    if min(counts) > 1:
        return []
    return [
        "Some numbers rest on one seed: their intervals and tests say nothing about other seeds, "
        "which may differ by as much."
    ]
