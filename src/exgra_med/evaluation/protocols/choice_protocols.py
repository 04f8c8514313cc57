"""Multiple-choice benchmarks as their authors, MedEvalKit, lmms-eval and VLMEvalKit score them."""

from exgra_med.evaluation.metrics import SCORER_VERSION
from exgra_med.evaluation.protocols import choice_readings, lmms_eval, medevalkit, vlmevalkit
from exgra_med.evaluation.protocols.protocol import (
    ALL_COUNT,
    EVERYTHING,
    ONLY_GIVEN,
    WITH_OPTIONS,
    Dropping,
    Number,
    Protocol,
    Reading,
    Source,
)

OMNIMEDVQA, PMC_VQA, MEDXPERTQA = "omnimedvqa", "pmc-vqa", "medxpertqa"
MMMU_MED, GMAI = "mmmu-med", "gmai-mmbench"

_PMC_VQA = ("xiaoman-zhang/PMC-VQA", "1678ec2c97f0b2bf84591ddccd2e84932630e450")
_MMMU = ("MMMU-Benchmark/MMMU", "bb0b95a945998d91dfef37e969e07d49d1139438")

_BY_LETTER = "Answer with the option's letter from the given choices directly."
_MMMU_SPLIT = (
    "validation, the five subjects of Health and Medicine: 150 questions, 5 of them without options"
)
_BLIND_NOTE = (
    "A letter drawn blindly counts with its expected value; one run of the published code lies "
    "around it."
)

_JUDGED = ("judged", "accuracy, judged where no rule reads the answer")
_JUDGE_NOTE = (
    "The judge is on unless exact matching is asked for. It is asked up to three times for a "
    "letter, and then one is drawn; here such an answer is wrong. Questions in Chinese have a "
    "Chinese request there."
)


def _accuracy(
    closed: Reading,
    open_: Reading | None = None,
    dropping: Dropping = ALL_COUNT,
    name: str = "accuracy",
    label: str = "accuracy",
) -> Number:
    """The share of right answers; of questions with options alone where `open_` is absent."""
    asked = WITH_OPTIONS if open_ is None else EVERYTHING
    return Number(
        name,
        label,
        "all",
        closed,
        open_,
        asked=asked,
        typing=choice_readings.BY_OPTIONS,
        dropping=dropping,
    )


CHOICES = (OMNIMEDVQA, PMC_VQA, MEDXPERTQA, MMMU_MED, GMAI)
"""Data sets with options to choose from."""

STRICT_CHOICES = Protocol(
    "strict-choices",
    "this project, multiple choice",
    Source(
        "exgra-med",
        f"scorer version {SCORER_VERSION}",
        ("evaluation/tasks/multiple_choice.py", "evaluation/reading.py"),
    ),
    CHOICES,
    (_accuracy(choice_readings.STRICT),),
    split="the split that was prepared",
    prompt="of the recipe, or of the call",
    notes="Thoughts are no part of an answer. No answer, or several options, is wrong.",
)
OMNIMEDVQA_AUTHORS = Protocol(
    "omnimedvqa",
    "OmniMedVQA, question-answering score",
    Source(
        "OpenGVLab/Multi-Modality-Arena",
        "bd2999a3be2bf4539a7e071cf2cfab5822f66417",
        ("MedicalEval/Question-answering_Score/utils/medicalqa.py",),
    ),
    (OMNIMEDVQA,),
    (
        _accuracy(choice_readings.SIMILAR_TEXT, dropping=ONLY_GIVEN),
        Number(
            "by_dataset",
            "mean accuracy of the data sets",
            "all",
            choice_readings.SIMILAR_TEXT,
            asked=WITH_OPTIONS,
            typing=choice_readings.BY_OPTIONS,
            dropping=ONLY_GIVEN,
            mean=choice_readings.OVER_DATASETS,
        ),
    ),
    split="one JSON file a data set, open access: 42 of them, 88,996 questions",
    prompt="{question}Here are {n} candidate answers:{list}, and then that only the right one of "
    "them is to be returned",
    notes="The code prints one score a data set and no mean of them. A question whose answering "
    "fails leaves the denominator. The original ExGra-Med scores by the same rule.",
)
OMNIMEDVQA_MEDEVALKIT = Protocol(
    "medevalkit-omnimedvqa",
    "MedEvalKit, OmniMedVQA",
    Source(*medevalkit.REPOSITORY, ("utils/OmniMedVQA/OmniMedVQA.py", "utils/utils.py")),
    (OMNIMEDVQA,),
    (_accuracy(choice_readings.MEDEVALKIT_OMNIMEDVQA),),
    split="every file of QA_information/Open-access",
    prompt=f"Question: {{question}}, “Options:”, a line “A. text” for each, {_BY_LETTER}",
    notes="An empty answer counts as option A. A reference that differs from its option in case or "
    "full stop has no letter, so that only its own text is right.",
)
PMC_VQA_TD = Protocol(
    "pmc-vqa-td",
    "PMC-VQA, script of MedVInT-TD",
    Source(*_PMC_VQA, ("src/MedVInT_TD/test.py", "src/MedVInT_TD/Dataset/PMC_QA_Dataset.py")),
    (PMC_VQA,),
    (_accuracy(choice_readings.LAST_CHARACTER),),
    split="a test file that the user names (final_test.csv); the data set has test and test_clean",
    prompt="Question: {question}Choices: A:… B:… C:… D:…The Answer is:",
    notes="Made for a model that writes a single letter behind the question. A capital “B” is most "
    "like the shortest option that holds one, which need not be option B.",
)
PMC_VQA_TE = Protocol(
    "pmc-vqa-te",
    "PMC-VQA, script of MedVInT-TE",
    Source(*_PMC_VQA, ("src/MedVInT_TE/test.py", "src/MedVInT_TE/dataset/dataset.py")),
    (PMC_VQA,),
    (_accuracy(choice_readings.SIMILAR_LETTER),),
    split="test_clean.csv",
    prompt="Question: {question}The choices are: A:… B:… C:… D:…The Answer is: ",
    notes="“CT, because” is read as C, and any sentence with a capital A as A.",
)
PMC_VQA_MEDEVALKIT = Protocol(
    "medevalkit-pmc-vqa",
    "MedEvalKit, PMC_VQA",
    Source(*medevalkit.REPOSITORY, ("utils/PMC_VQA/PMC_VQA.py", "utils/utils.py")),
    (PMC_VQA,),
    (_accuracy(choice_readings.MEDEVALKIT_AS_LISTED),),
    split="test_2.csv, every row",
    prompt=f"Question: {{question}}, “Options:”, a line for each as in the file, {_BY_LETTER}",
    notes="An empty answer counts as option A.",
)
MEDXPERTQA_AUTHORS = Protocol(
    "medxpertqa",
    "MedXpertQA, zero-shot",
    Source(
        "TsinghuaC3I/MedXpertQA",
        "f21247d3ccf3b14826ff2aa7fa06e1a46d64058c",
        ("eval/utils.py", "eval/main.py", "eval/config/prompt_templates.py"),
    ),
    (MEDXPERTQA,),
    (_accuracy(choice_readings.FIRST_LETTER),),
    split="MM test: 2,000 questions",
    prompt="“You are a helpful medical assistant.”; then “Q: {question}\\nAnswer Choices: (A) … "
    "(B) …\\nA: Let's think step by step.”; then, in the same talk, “Therefore, among A through E, "
    "the answer is”: the second reply is scored",
    notes="QVQ and deepseek-reasoner are read by rules of their own, o1 and o3 on a sample; these "
    "are not here.",
)
MEDXPERTQA_MEDEVALKIT = Protocol(
    "medevalkit-medxpertqa",
    "MedEvalKit, MedXpertQA-MM",
    Source(*medevalkit.REPOSITORY, ("utils/MedXpertQA/MedXpertQA.py", "utils/utils.py")),
    (MEDXPERTQA,),
    (_accuracy(choice_readings.MEDEVALKIT_TAGGED),),
    split="MM test: 2,000 questions",
    prompt=f"Question: {{question}}, “Options:”, a line “A. text” for each, {_BY_LETTER}",
    notes="The published question lists the options too, so they are there twice. An empty answer "
    "counts as option A.",
)
MMMU_AUTHORS = Protocol(
    "mmmu",
    "MMMU",
    Source(*_MMMU, ("mmmu/utils/eval_utils.py", "mmmu/main_parse_and_eval.py")),
    (MMMU_MED,),
    (_accuracy(choice_readings.MMMU_LETTERS, choice_readings.MMMU_OPEN, ONLY_GIVEN),),
    split=_MMMU_SPLIT,
    prompt=f"{{question}}, a line “(A) text” for each option, {_BY_LETTER}",
    notes=_BLIND_NOTE,
)
MMMU_LMMS_EVAL = Protocol(
    "lmms-eval-mmmu",
    "lmms-eval, mmmu_val",
    Source(
        *lmms_eval.REPOSITORY,
        ("lmms_eval/tasks/mmmu/utils.py", "lmms_eval/tasks/_task_utils/mmmu_mcq_utils.py"),
    ),
    (MMMU_MED,),
    (_accuracy(choice_readings.LMMS_EVAL_LETTERS, choice_readings.NEVER_RIGHT),),
    split=_MMMU_SPLIT,
    prompt=f"{{question}}, a line “A. text” for each option, an empty line, {_BY_LETTER}",
    notes=f"128 new tokens. “DNA ” is read as A. {_BLIND_NOTE}",
)
MMMU_MEDEVALKIT = Protocol(
    "medevalkit-mmmu",
    "MedEvalKit, MMMU-Medical-val",
    Source(*medevalkit.REPOSITORY, ("utils/MMMU/eval_val.py", "utils/MMMU/eval_utils.py")),
    (MMMU_MED,),
    (_accuracy(choice_readings.MEDEVALKIT_MMMU, choice_readings.NEVER_RIGHT),),
    split=_MMMU_SPLIT,
    prompt=f"{{question}}, a line “(A) text” for each option, {_BY_LETTER}",
    notes=f"The first picture alone is shown. MMMU-Medical-test stops with an error. {_BLIND_NOTE}",
)
MMMU_VLMEVALKIT = Protocol(
    "vlmevalkit-mmmu",
    "VLMEvalKit, MMMU_DEV_VAL",
    Source(
        *vlmevalkit.REPOSITORY,
        ("vlmeval/utils/matching_util.py", "vlmeval/dataset/utils/multiple_choice.py"),
    ),
    (MMMU_MED,),
    (
        _accuracy(choice_readings.VLMEVALKIT_LETTER, choice_readings.VLMEVALKIT_OPEN, ONLY_GIVEN),
        _accuracy(
            choice_readings.VLMEVALKIT_JUDGED,
            choice_readings.VLMEVALKIT_OPEN_JUDGED,
            ONLY_GIVEN,
            *_JUDGED,
        ),
    ),
    split=_MMMU_SPLIT,
    prompt="Question: {question}, “Options:”, a line “A. text” for each, Please select the correct "
    "answer from the options above.",
    notes=f"An open question whose reference is one capital letter other than A and B is never "
    f"right. {_JUDGE_NOTE}",
)
CHOICES_VLMEVALKIT = Protocol(
    "vlmevalkit-choices",
    "VLMEvalKit, OmniMedVQA, MedXpertQA_MM_test, GMAI-MMBench_VAL",
    Source(
        *vlmevalkit.REPOSITORY, ("vlmeval/utils/matching_util.py", "vlmeval/dataset/image_mcq.py")
    ),
    (OMNIMEDVQA, MEDXPERTQA, GMAI),
    (
        _accuracy(choice_readings.VLMEVALKIT_LETTER, None, ONLY_GIVEN),
        _accuracy(choice_readings.VLMEVALKIT_JUDGED, None, ONLY_GIVEN, *_JUDGED),
    ),
    split="of OmniMedVQA 14 of the 30 parts that it lists; of MedXpertQA-MM the test split; of "
    "GMAI-MMBench the validation split, since the answers of the test split are not public",
    prompt="Question: {question}, “Options:”, a line “A. text” for each, Please select the correct "
    "answer from the options above.",
    notes=_JUDGE_NOTE,
)
