"""Every number of a published protocol equals that of the protocol's own public code.

The same 451 invented answers to the test questions of VQA-RAD were scored by the scripts of the
other projects, at the commits that our protocols name. What they printed stands here; none of their
code does. What they import and do not need for a score was replaced (pictures, services, progress
bars). Two of them stop at some answers, and were helped over it:

* MedEvalKit: its overlap of n-grams refuses an empty answer and was left out (it is no number of
  ours); the F1 of an empty answer, a lone 0, cannot be unpacked into three scores: it became zeros.
* LLaVA-Med's script for PathVQA calls a function of three arguments with two; it got the third.

The judge is invented: which of its replies it gives is the SHA-1 of question, reference and answer
as they come to it, joined by line breaks, modulo 4. The published functions that write the request
(MedEvalKit's get_compare_messages, VLMEvalKit's ShortQA_prompt) were wrapped, so that these three
are kept beside each request, and what asks the service (generate_outputs of MedEvalKit's judger,
generate of VLMEvalKit's model) looked them up. So the numbers depend on what a judge is told and
on how its reply is read, and not on the words around it.

The original ExGra-Med is compared in tests/golden too, question by question. MedGemma publishes no
code that scores; tests/unit/evaluation/protocols has cases by hand.
"""

import hashlib
from pathlib import Path

import pytest

import invented_answers as invented
from exgra_med.evaluation.answers import pair
from exgra_med.evaluation.measures import Candidates
from exgra_med.evaluation.protocols import PROTOCOLS
from exgra_med.evaluation.protocols.judging import judges_of
from exgra_med.evaluation.protocols.protocol import Answered, Protocol, count

_OPEN_OF_LLAVA_MED = {
    "open_exact_match": 41.35282160421826,
    "open_f1": 49.43546813576391,
    "open_precision": 44.94420229057101,
    "open_recall": 67.27653631284916,
    "open_accuracy": 21.22905027932961,
}
_WITHOUT_A_JUDGE = {
    "total": 100 * 187 / 451,
    "closed": 100 * 141 / 251,
    "open": 23.0,
    "open_precision": 48.07821955821958,
    "open_recall": 46.916865079365094,
    "open_f1": 58.19444444444445,
    # Its "acc" of open questions is divided by their number twice; right and total were printed.
    "open_judged": 100 * 138 / 200,
}
THEIRS = {
    # The original's script is LLaVA-Med's but for the closed rule; its closed hits were counted
    # with LLaVA-Med's cleaning, and the average is that of both numbers.
    "exgra-med": {
        "average": (67.27653631284916 + 100 * 196 / 272) / 2,
        "closed": 100 * 196 / 272,
        **_OPEN_OF_LLAVA_MED,
    },
    "llava-med": {"closed": 67.64705882352942, **_OPEN_OF_LLAVA_MED},
    "llava-med-pathvqa": {"closed": 78.63247863247864, **_OPEN_OF_LLAVA_MED},
    "medevalkit": {**_WITHOUT_A_JUDGE, "total_judged": 100 * 279 / 451},
    "medevalkit-pathvqa": {**_WITHOUT_A_JUDGE, "total_judged": 100 * 138 / 451},
    "medevalkit-slake": {
        "total": 33.03769401330377,
        "closed": 40.441176470588236,
        "open": 21.787709497206703,
        "open_precision": 48.121447763905884,
        "open_recall": 47.048638822381855,
        "open_f1": 58.31781502172564,
        "open_judged": 100 * 132 / 179,
        "closed_judged": 100 * 308 / 272,
        "total_judged": 100 * 440 / 451,
    },
    "lmms-eval": {
        "accuracy": 24.611973392461198,
        "closed": 23.529411764705882,
        "open": 26.256983240223464,
    },
    "vlmevalkit": {
        "overall": 24.611973392461198,
        "closed": 24.26470588235294,
        "open": 25.139664804469275,
    },
}
"""Protocol -> number -> percent that its own code gave for the invented answers."""
REPLIES = {
    "medevalkit": (
        "<think>a</think>\n<judge>0</judge>",
        "<judge>1</judge>",
        "<judge> 0 </judge>",
        "0",
    ),
    "vlmevalkit": (
        "[Begin Correctness]yes[End Correctness]\n[Begin Reason]r[End Reason]",
        "[Begin Correctness] No [End Correctness]",
        "[Begin Correctness]yes or no[End Correctness]",
        "Correct",
    ),
}
"""Of the invented judge, by its name; which one is the digest of what it is told."""


@pytest.fixture(scope="module")
def answered(shared: Path) -> Answered:
    file = shared / "data" / "vqa_rad" / "VQA_RAD Dataset Public.json"
    questions = invented.questions(file)
    found = Answered.of(
        pair(invented.answers(questions), questions), Candidates.of(invented.candidates(file))
    )
    verdicts: dict[str, dict[str, float | None]] = {}
    for judge in judges_of([PROTOCOLS.find(name) for name in THEIRS]):
        replies = REPLIES[judge.name.partition("-")[0]]
        said = verdicts[judge.name] = {}
        for case in filter(None, found.cases):
            told = judge.told(case)
            text = "\n".join(told[name] for name in ("question", "reference", "answer"))
            place = int(hashlib.sha1(text.encode()).hexdigest(), 16) % 4
            said[case.question.id] = judge.verdict(replies[place], case)
    return Answered(found.cases, found.questions, found.clusters, found.candidates, verdicts)


@pytest.mark.parametrize("name", THEIRS)
def test_a_number_equals_that_of_the_public_code(answered: Answered, name: str) -> None:
    protocol: Protocol = PROTOCOLS.find(name)
    ours = {each.name: 100 * count(each, answered).value for each in protocol.numbers}
    assert ours == pytest.approx(THEIRS[name], abs=1e-9)


def test_the_denominators_are_those_of_the_public_code(answered: Answered) -> None:
    def asked(protocol: str, number: str) -> int:
        return count(PROTOCOLS.find(protocol).number(number), answered).num_questions

    assert (asked("llava-med", "closed"), asked("llava-med", "open_recall")) == (272, 179)
    assert (asked("medevalkit", "closed"), asked("medevalkit", "open")) == (251, 200)
    assert asked("llava-med-pathvqa", "closed") == 234
