"""The published PathVQA score (run_eval_pvqa), which forgets wrong yes/no answers.

Only there so that published PathVQA numbers can be explained: two right and three wrong answers
give 100 %. Open answers are scored as in `legacy`.
"""

from exgra_med.evaluation.metrics.legacy_words import clean


def closed_hit(prediction: str, reference: str) -> int | None:
    """1 for a hit, 0 where neither "yes" nor "no" stands in the prediction, None where dropped.

    A prediction that holds "yes" or "no" anywhere but not the reference is wrong; the published
    script appends nothing for it, so it leaves the denominator.
    """
    answer = clean(prediction)
    if "yes" not in answer and "no" not in answer:
        return 0
    return 1 if clean(reference) in answer else None
