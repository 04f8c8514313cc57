"""From what a model wrote to the option, or the text, that it answers."""

import time

import pytest

from exgra_med.evaluation.metrics import Verdict, closed, open_overlap
from exgra_med.evaluation.reading import answer_text
from exgra_med.evaluation.tasks.multiple_choice import choose_by_version_1, choose_strictly

MODALITIES = ["CT", "MRI", "X-ray", "Ultrasound"]
GERMS = ["S. aureus", "C. difficile", "E. coli", "H. pylori", "C. albicans"]
VITAMINS = ["Vitamin C", "Vitamin A", "Vitamin D"]

SECOND = [
    "B", "b", "B.", "B)", "(B)", "[B]", "{B}", "b)", "Ｂ", "（Ｂ）", "Ⓑ", '"B"', "'B'", "“B”",
    "`B`", "**B**", "*B*", "__B__", "$B$", "\\(B\\)", "\\boxed{B}", "$\\boxed{\\text{B}}$",
    "The answer is $\\boxed{B}$.", "<answer>B</answer>", "<answer>(B) MRI</answer>",
    "```\nB\n```", '```json\n{"answer": "B"}\n```', '{"answer": "B", "reason": "CT is blurred"}',
    "{'answer': 'B'}", '{"choice": "MRI"}', '["B"]', '{"answer": "B. MRI"}',
    'Here it is: {"answer": "B"}', "Answer: B", "answer: b", "Answer = B", "Answer - B", "Ans: B",
    "Answer:\nB", "Final answer: B", "My answer: B", "**Answer:** B", "**Answer: B**",
    "### Answer\nB", "### Final Answer: B", "The answer is B.", "The answer is (B).",
    "The answer is **B**", "The answer is: B", "The correct answer is B",
    "Correct answer: (B) MRI",
    "The correct option is B", "The best answer is option B: MRI", "The answer is B, not A.",
    "The image shows fat. The answer is B.", "Reasoning: no CT.\nAnswer: B", "Option B",
    "option B.", "I choose B", "I would choose option B.", "B is correct",
    "B is the correct answer.",
    "It's B.", "Therefore, B.", "B: MRI", "B. MRI", "B) MRI", "B.MRI", "B - MRI", "B, MRI",
    "(b) mri", "**B. MRI**", "B because CT would be brighter", "B\nBecause CT shows less.",
    "B\n\nExplanation: unlike CT and X-ray, it shows water.", "MRI", "mri.", "It is MRI.",
    "MRI\nA CT would show bone.", "The correct answer is MRI because CT lacks contrast.",
    "CT shows bone and X-ray too.\n\nB", "Assistant: B", "<think>CT?</think>B", "CT? No.</think>B",
    "<think>A?</think>\n\n**Answer: B. MRI**", "<|begin_of_box|>B<|end_of_box|>",
    "答案：B", "答案是B", "正确答案是B。", "故选B", "选项B", "B选项",
]  # fmt: skip
UNREADABLE = [
    "", "A or B", "A and B", "Both A and B", "either A or B", "A, B", "A/B", "B. CT", "CT or MRI",
    "scan", "E", "not CT", "not B", "The answer is not B", "The answer is A. No, the answer is B.",
    "<think>B", "B</think>", "<answer>A</answer><answer>B</answer>", "\\boxed{A} or \\boxed{B}",
    '{"answer": null}', '{"answer": ["A", "B"]}', "The answer is E", "A. CT\nB. MRI\nC. X-ray",
    "A) CT B) MRI C) X-ray D) Ultrasound", "I don't know", "a scan", "?",
]  # fmt: skip


@pytest.mark.parametrize("answer", SECOND)
def test_the_second_option_in_many_forms(answer: str) -> None:
    assert choose_strictly(answer, MODALITIES) == 1
    read = closed(answer, "MRI", given=tuple(MODALITIES))
    assert read.verdict is Verdict.RIGHT and read.chosen == "mri"


@pytest.mark.parametrize("answer", UNREADABLE)
def test_what_is_ambiguous_is_unparsed(answer: str) -> None:
    assert choose_strictly(answer, MODALITIES) is None
    assert closed(answer, "MRI", given=tuple(MODALITIES)).chosen is None


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize(
    "form",
    [
        "{}", "{}.", "**{}**", "The answer is {}", "It is {}.", "<answer>{}</answer>",
        "{} is the most likely germ.", "\\boxed{{{}}}", "Answer: {}", '{{"answer": "{}"}}',
        "{}\nBecause of the stain.", "<think>E. coli?</think>{}", "The germ is {}, of the gut.",
    ],
)  # fmt: skip
def test_the_exact_text_of_an_option_is_no_letter(place: int, form: str) -> None:
    assert choose_strictly(form.format(GERMS[place]), GERMS) == place
    assert closed(form.format(GERMS[place]), GERMS[place], given=tuple(GERMS)).hit == 1


@pytest.mark.parametrize(
    ("answer", "options", "chosen"),
    [
        ("C", GERMS, 2),
        ("C. E. coli", GERMS, 2),
        ("B) C. difficile because it is not E. coli", GERMS, 1),
        ("E. difficile", GERMS, None),
        ("A. E. coli", GERMS, None),
        ("It is E. Coli", GERMS, 2),
        ("I would choose C. Difficile.", GERMS, 1),
        ("Answer: E. Coli\nReasoning: C. difficile is gram positive.", GERMS, 2),
        ("Let me see.\nReasoning: no CT.\nAnswer: B", MODALITIES, 1),
        # A letter that is an option is that option.
        ("A", ["B", "A", "C"], 1),
        ("A\nbecause of the antigen", ["B", "A", "C"], 1),
        ("AB", ["A", "B", "AB", "O"], 2),
        ("O", ["A", "B", "AB", "O"], 3),
        ("A+", ["A-", "A+"], 1),
        ("A", ["O+", "A+", "B+"], None),
        ("B", ["A+", "B+", "O+"], 1),
        # Words that begin with a letter.
        ("A-fib", ["V-fib", "A-fib", "A-flutter"], 1),
        ("A-fib is seen", ["V-fib", "A-fib"], 1),
        ("A. V-fib", ["V-fib", "A-fib"], 0),
        ("B cell", ["T cell", "B cell", "NK cell"], 1),
        ("B", ["B cell", "T cell"], None),
        ("D-dimer", ["Troponin", "CRP", "BNP", "D-dimer"], 3),
        ("Vitamin A", VITAMINS, 1),
        ("C", VITAMINS, None),
        ("B", VITAMINS, 1),
        ("A. Vitamin C", VITAMINS, 0),
        ("C", ["Vitamin A", "Vitamin B", "Vitamin C"], 2),
        ("Hepatitis A", ["Hepatitis B", "Hepatitis A"], 1),
        ("Hepatitis", ["Hepatitis B", "Hepatitis A"], None),
        # Signs and numbers.
        ("HER2 negative", ["HER2+", "HER2-"], 1),
        ("B. HER2-", ["HER2+", "HER2-"], 1),
        ("HER2", ["HER2+", "HER2-"], None),
        ("less than 5mm", [">5 mm", "<5 mm"], 1),
        ("5 mm", [">5 mm", "<5 mm"], None),
        ("5 D", ["+5 D", "-5 D"], None),
        ("grade 2", ["Grade I", "Grade II"], 1),
        ("II", ["I", "II", "III"], 1),
        ("2", ["1", "2", "3"], 1),
        ("B", ["1", "2", "3"], 1),
        # Sentences and articles.
        ("a benign mass", ["benign mass", "malignant mass"], 0),
        ("right lung, not left lung", ["left lung", "right lung"], 1),
        ("C. All of the above", ["CT", "MRI", "All of the above"], 2),
        ("Yes, no CT is needed", ["No", "Yes"], None),
        ("Option A: CT is wrong. Option B: MRI is right.", MODALITIES, None),
        ("A is wrong. B is right.", MODALITIES, 1),
        ("A. CT B. MRI C. X-ray D. Ultrasound", MODALITIES, None),
        ("A) B)", MODALITIES, None),
        ("MRI is unlikely", MODALITIES, None),
        ("CT is wrong, MRI is right", MODALITIES, 1),
        ("It is (B) MRI, not (A) CT", MODALITIES, 1),
        ("A. C. difficile", ["C. difficile", "E. coli", "S. aureus"], 0),
    ],
)
def test_the_options_decide_what_a_letter_is(
    answer: str, options: list[str], chosen: int | None
) -> None:
    assert choose_strictly(answer, options) == chosen


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("**Yes**", "yes", "right"),
        ("<answer>no</answer>", "no", "right"),
        ("Yes, there is no shift.", "yes", "right"),
        ("Yes\nThere is no effusion.", "yes", "right"),
        ('{"answer": true}', "yes", "right"),
        ("No. Yes.", "no", "several_options"),
        ("yes and no", "no", "several_options"),
        ("No? Let me look.</think>Yes", "yes", "right"),
        ("<think>Yes, it is", "yes", "unparsed"),
        ("The answer is no because yes would mean a mass.", "no", "right"),
        ("I cannot tell", "no", "abstained"),
    ],
)
def test_yes_and_no(answer: str, reference: str, verdict: str) -> None:
    assert closed(answer, reference).verdict == verdict
    assert closed(answer, reference, given=("Yes", "No")).verdict == verdict


@pytest.mark.parametrize(
    "answer",
    [
        "left upper lobe", "**left upper lobe**", "The answer is left upper lobe.",
        "Answer: left upper lobe", "<answer>left upper lobe</answer>", '"left upper lobe"',
        '{"answer": "left upper lobe"}', "right?</think> Left upper lobe",
        "Answer: left upper lobe\nExplanation: it is whiter than the right one.",
        "### Answer\nleft upper lobe", "```\nleft upper lobe\n```", "Assistant: left upper lobe",
    ],
)  # fmt: skip
def test_an_open_answer_without_what_is_wrapped_round_it(answer: str) -> None:
    assert open_overlap(answer, "left upper lobe").exact_match == 1.0


def test_an_answer_that_says_two_things_stays_whole() -> None:
    said = "The answer is left. No, the answer is right."
    assert answer_text(said) == said
    assert open_overlap("<think>left lung", "left lung").recall == 0.0


@pytest.mark.parametrize(
    "reply",
    ["!" * 20_000, "a" + "\n" * 20_000 + "b", " ( " * 9_000, "A " * 9_000, "most likely " * 3_000,
     "<" * 20_000, "answer is " * 3_000, "<think>" * 3_000, "\\boxed{" * 2_000, '"' * 9_000],
)  # fmt: skip
def test_a_reply_that_lost_its_way_is_read_at_once(reply: str) -> None:
    """Linear in its length: a pattern that wanders would take minutes here."""
    begun = time.process_time()
    assert choose_strictly(reply, ["CT", "MRI"]) in (None, 0)
    assert closed(reply, "yes").hit == 0 and open_overlap(reply, "yes").recall == 0.0
    assert time.process_time() - begun < 5


def test_the_older_rule_explains_older_scores() -> None:
    """What version 1 chose, its faults included, stays known."""
    assert choose_by_version_1("E. coli", GERMS) is None
    assert choose_by_version_1("HER2-", ["HER2+", "HER2-"]) == 0
    assert choose_by_version_1("**B**", MODALITIES) is None
    assert closed("HER2-", "HER2+", version="1").hit == 1
    assert open_overlap("<5 mm", ">5 mm", "1").exact_match == 1.0
    assert open_overlap("<think>left lung", "left lung", "1").recall == 1.0


@pytest.mark.parametrize(
    ("reply", "options", "right"),
    [
        # A heading of four signs is no next turn.
        ("### Steps\nFat is bright.\n#### The closest answer is:\n\nAnswer: B", MODALITIES, 1),
        # Letters inside the option's own text are no rivals.
        ("C. Graft A: 5 mm; graft B: 7 mm", ["one", "two", "Graft A: 5 mm; graft B: 7 mm"], 2),
        ("The answer is (B) B/(B+D).", ["A/(A+C)", "B/(B+D)", "C/(A+C)", "D/(B+D)"], 1),
        ("The answer is I - A, II - B.", ["I - B, II - A", "I - A, II - B"], 1),
        # TeX round a stated answer, and a box that holds no option.
        ("So it is:\n\\[\n\\boxed{\\text{Answer: } B}\n\\]", MODALITIES, 1),
        ("The correct answer is:\n\\[ \\text{Answer: B} \\]", MODALITIES, 1),
        ("The width is \\boxed{9332}.\n\nAnswer: B", MODALITIES, 1),
        # What is said of an option in passing gives way to a stated answer.
        ("A is most likely a plate.\nC is correct for bone.\n\nAnswer: B", MODALITIES, 1),
        # An option in brackets that ends a sentence, with others named behind it.
        (
            "The most likely diagnosis is (C) Placenta accreta, which bleeds. Abruptio placenta "
            "and twin placenta are rare.",
            ["Abruptio placenta", "Twin placenta", "Placenta accreta"],
            2,
        ),
        (
            "The knee is worn, which is most likely option (A). Gout and rheumatoid arthritis are "
            "other diseases of it.",
            ["Osteoarthritis", "Gout", "Rheumatoid arthritis"],
            0,
        ),
        ("The findings are (A) and (B).", MODALITIES, None),
        ("The first is (A) CT. The second is (B) MRI.", MODALITIES, None),
    ],
)
def test_the_option_of_a_long_reply(reply: str, options: list[str], right: int | None) -> None:
    assert choose_strictly(reply, options) == right


def test_options_that_differ_in_signs_alone_keep_their_letters() -> None:
    options = ["N = 3 r", "N = -3 r", "(N) = 3 r", "N = r"]
    assert [choose_strictly(letter, options) for letter in "ABCD"] == [0, 1, 2, 3]
    listed = [f"{letter}. {text}" for letter, text in zip("ABCD", options, strict=True)]
    assert [choose_strictly(each, options) for each in listed] == [0, 1, 2, 3]
    assert choose_strictly("N = -3 r", options) == 1
    assert choose_strictly("(N) = 3 r", options) == 2
    # By words it is the first or the third.
    assert choose_strictly("It is n = 3 r.", options) is None


@pytest.mark.parametrize(
    "reply",
    [
        "{{1}}",
        "{[1]: 2}",
        "{{'a': 1}: 2}",
        "{'answer': {'a': {1, 2}}}",
        "{'answer': {(1, 2): 3}}",
        '{"answer":' * 450 + '"B"' + "}" * 450,
        "[" * 400 + '"B"' + "]" * 400,
    ],
)
def test_no_text_in_braces_is_an_error(reply: str) -> None:
    assert isinstance(answer_text(reply), str)
    choose_strictly(reply, MODALITIES)
