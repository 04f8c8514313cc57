import pytest

from exgra_med.data.sources.options import closed_options


@pytest.mark.parametrize(
    "question, answer, options",
    [
        ("Is it normal?", "YES ", ["Yes", "No"]),
        ("Is this an MRI or a CT scan?", "MRI", ["MRI", "CT"]),
        ("Is the lesion on the left or right?", "Right", ["left", "right"]),
        ("Is it in the left or right kidney?", "Left kidney", ["left kidney", "right kidney"]),
        ("Are the areas grey or white matter?", "White matter", ["grey matter", "white matter"]),
        ("Is this the small bowel or colon?", "Small bowel", ["small bowel", "colon"]),
        ("Is this a pneumonia vs. pleural effusion?", "pleural effusion",
         ["pneumonia", "pleural effusion"]),
        ("Do you suspect a physical injury or a medical process?", "Medical process",
         ["physical injury", "medical process"]),
        ("Is this a T1 weighted, T2 weighted, or FLAIR image?", "FLAIR",
         ["T1 weighted", "T2 weighted", "FLAIR"]),
        ("Which organ is abnormal, heart or lung?", "Lung", ["heart", "lung"]),
        ("Is this a transverse plane or coronal plane?", "Transverse Plane",
         ["transverse plane", "coronal plane"]),
    ],
)  # fmt: skip
def test_options_come_from_the_question(question: str, answer: str, options: list[str]) -> None:
    assert closed_options(question, answer) == options


@pytest.mark.parametrize(
    "question, answer",
    [
        ("Which side is bigger?", "Right"),
        ("Do you suspect vascular process or a genetic process?", "genetic"),
        ("Which organ is abnormal, heart or lung?", "Both"),
        ("Is it on the patient's left or the right side?", "Right side"),
        ("Does this image use contrast or not?", "contrast"),
        ("Or?", "Maybe"),
        ("", "left"),
    ],
)
def test_what_the_question_does_not_say_is_not_guessed(question: str, answer: str) -> None:
    assert closed_options(question, answer) is None
