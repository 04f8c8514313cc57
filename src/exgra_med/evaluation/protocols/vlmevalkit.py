"""VLMEvalKit on PathVQA: a judge for every question, and no number without one."""

from exgra_med.evaluation.protocols.protocol import Judge, Number, Protocol, Reading, Source
from exgra_med.evaluation.score import Case

# The words of the request are the protocol's own: other words give other verdicts.
_EXAMPLES = (
    (
        'Please tell me the name of the man in this image, in the format of "[First Name] '
        '[Given Name]".',
        "Franklin D. Roosevelt",
        "Franklin Roosevelt",
        "yes",
        "The model response basically align with the ground-truth answer, just omitted the middle "
        "name. Thus the response is correct.",
    ),
    (
        'Please tell me the name of the man in this image, in the format of "[First Name] '
        '[Given Name]".',
        "Usain Bolt",
        "Bolt",
        "no",
        "The question asks the model to output the ",
    ),
    (
        "Where did the text in this image originate from",
        "Ancient Egypt",
        "egypt",
        "yes",
        "The model response basically align with the ground-truth answer (egypt vs. Ancient "
        "Egypt). Thus the response is correct. ",
    ),
    (
        "Name this building",
        "St. Peter's Basilica Church",
        "st peters basilica",
        "yes",
        "The model response basically align with the ground-truth answer. Thus the response is "
        "correct.",
    ),
    (
        "Extract the text on the umbrella in the image",
        "keter",
        "ketter",
        "no",
        "The question requires the model to exactly extract the text on the umbrella. The model "
        "response does not contain the exact text on the umbrella (keter). Thus the response is "
        "incorrect. ",
    ),
)
_REQUEST = """
You are an AI assistant tasked with evaluating whether a model's response correctly answers a given visual-language question.

You will be provided with:
1. The question (text only)
2. The model's response
3. The ground truth answer

Your task is to determine whether the model's response conveys the same meaning as the ground truth. The response is considered **correct** if:
- It has the same meaning as the ground truth, even if phrased differently.
- It provides additional relevant details without altering the original meaning.

The response is considered **wrong** if:
- It contradicts the ground-truth
- It misses essential information or include additional incorrect information.

Your evaluation should include the following fields:
- **Correctness**: Either `"yes"` (if correct) or `"no"` (if incorrect).
- **Reason**: A brief explanation of your judgment.



Here are some examples:
{examples}

Now please complete the following task:

[Begin Question]{question}[End Question]
[Begin Ground-Truth]{reference}[End Ground-Truth]
[Begin Response]{answer}[End Response]
"""  # noqa: E501


def _example(number: int, fields: tuple[str, ...]) -> str:
    names = ("Question", "Ground-Truth", "Response", "Correctness", "Reason")
    lines = [f"[Begin {n}]{text}[End {n}]" for n, text in zip(names, fields, strict=True)]
    return "\n".join([f"Example {number}:", *lines, "", ""])


def request(case: Case) -> str:
    """What the judge is asked about an answer to an English question with one reference."""
    return _REQUEST.format(
        examples="".join(_example(n, each) for n, each in enumerate(_EXAMPLES, start=1)),
        question=case.question.text,
        reference=case.question.answer,
        answer=case.answer,
    )


def verdict(reply: str, _: Case | None = None) -> float | None:
    """1.0 for yes, 0.0 for no between the marks of correctness; None for neither or both.

    >>> verdict("[Begin Correctness]yes[End Correctness]"), verdict("Correct.")
    (1.0, None)
    """
    begin, end = "[Begin Correctness]", "[End Correctness]"
    if begin not in reply or end not in reply:
        return None
    said = reply.split(begin)[1].split(end)[0].lower()
    if ("yes" in said) == ("no" in said):
        return None
    return float("yes" in said)


JUDGED = Reading(
    "right where the judge says yes; where it says neither yes nor no, wrong",
    judge=Judge("vlmevalkit", "gpt-4o-mini", request, verdict),
)

VLMEVALKIT = Protocol(
    "vlmevalkit",
    "VLMEvalKit, PathVQA",
    Source(
        "open-compass/VLMEvalKit",
        "e8e78f05f3080fe28154f2130321f17951c3be94",
        ("vlmeval/dataset/image_shortqa.py", "vlmeval/dataset/utils/shortqa.py"),
    ),
    ("pathvqa",),
    (
        Number("overall", "accuracy, judged", "all", JUDGED),
        Number("closed", "closed accuracy, judged", "closed", JUDGED),
        Number("open", "open accuracy, judged", "open", JUDGED),
    ),
    split="PathVQA_TEST.tsv or PathVQA_VAL.tsv of Pfei111/PathVQA",
    prompt="the question, then “Please directly provide a short answer to the question. ”",
    notes="Published is the accuracy over all questions. A judge without a clear reply is asked up "
    "to three times; here once. Without a judge the published code stops.",
)
