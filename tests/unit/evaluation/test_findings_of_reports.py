"""What a report states, denies and leaves open, read by rules."""

import pytest

from exgra_med.evaluation.findings import FINDINGS, findings_of

P, A, U = "present", "absent", "uncertain"
CASES: list[tuple[str, dict[str, str]]] = [
    # A "no" and its absence.
    ("No pneumothorax.", {"Pneumothorax": A}),
    ("Pneumothorax.", {"Pneumothorax": P}),
    ("no PNEUMOTHORAX", {"Pneumothorax": A}),
    ("There isn't any pneumothorax.", {"Pneumothorax": A}),
    ("The heart is not enlarged.", {"Cardiomegaly": A}),
    ("The heart is mildly enlarged.", {"Cardiomegaly": P}),
    ("Pneumothorax: none", {"Pneumothorax": A}),
    ("The pneumothorax is no longer seen.", {"Pneumothorax": A}),
    ("Pneumothorax cannot be seen.", {"Pneumothorax": A}),
    ("The effusion has resolved.", {"Pleural effusion": A}),
    ("Interval removal of the endotracheal tube.", {"Support devices": A}),
    # Lists, and where they end.
    *[
        (text, {"Pneumothorax": A, "Pleural effusion": A, "Consolidation": A})
        for text in (
            "No effusion, pneumothorax or consolidation.",
            "No effusion, pneumothorax, or consolidation is seen.",
            "There is no large effusion, pneumothorax, or focal consolidation identified.",
            "Neither effusion nor pneumothorax. Lungs are free of consolidation.",
            "No pneumothorax, large effusion or consolidation.",
        )
    ],
    ("No pneumothorax, but small effusion.", {"Pneumothorax": A, "Pleural effusion": P}),
    ("No pneumothorax, small effusion.", {"Pneumothorax": A, "Pleural effusion": P}),
    ("No pneumothorax with small effusion.", {"Pneumothorax": A, "Pleural effusion": P}),
    ("No effusion, the heart is enlarged.", {"Cardiomegaly": P, "Pleural effusion": A}),
    ("No effusion and the heart is enlarged.", {"Cardiomegaly": P, "Pleural effusion": A}),
    (
        "No pneumothorax or effusion is seen, cardiomegaly is present.",
        {"Cardiomegaly": P, "Pneumothorax": A, "Pleural effusion": A},
    ),
    (
        "Pneumothorax is not seen and effusion is small.",
        {"Pneumothorax": A, "Pleural effusion": P},
    ),
    ("Bilateral effusions without pneumothorax.", {"Pneumothorax": A, "Pleural effusion": P}),
    *[
        (text, {"Pneumothorax": A, "Pleural effusion": P})
        for text in (
            "Effusion is present and pneumothorax is not seen.",
            "Effusion is stable, pneumothorax not seen.",
            "No pneumothorax is seen and effusion is stable.",
            "No pneumothorax is seen, effusion unchanged.",
        )
    ],
    ("No effusion, and cardiomegaly is present.", {"Cardiomegaly": P, "Pleural effusion": A}),
    ("Effusion and pneumothorax are not seen.", {"Pneumothorax": A, "Pleural effusion": A}),
    ("Effusion, pneumothorax, and edema have resolved.", {
        "Edema": A, "Pneumothorax": A, "Pleural effusion": A,
    }),
    ("No effusion\nPneumothorax", {"Pneumothorax": P, "Pleural effusion": A}),
    ("There is no\npneumothorax", {"Pneumothorax": A}),
    # Two negations are none, and a "no" may deny something else.
    ("The pneumothorax is not absent.", {"Pneumothorax": P}),
    ("The chest is not without effusion.", {"Pleural effusion": P}),
    ("The effusion has not resolved.", {"Pleural effusion": P}),
    ("No change in the right pleural effusion.", {"Pleural effusion": P}),
    ("No significant interval change in cardiomegaly.", {"Cardiomegaly": P}),
    ("The effusion is not significantly changed.", {"Pleural effusion": P}),
    # Left open.
    ("Pneumonia cannot be excluded.", {"Pneumonia": U}),
    ("We cannot exclude pneumonia or effusion.", {"Pneumonia": U, "Pleural effusion": U}),
    ("It is not possible to exclude pneumonia.", {"Pneumonia": U}),
    ("No edema, effusion cannot be ruled out.", {"Edema": A, "Pleural effusion": U}),
    ("Atelectasis versus pneumonia.", {"Pneumonia": U, "Atelectasis": U}),
    ("Opacity at the left base, which is atelectasis versus pneumonia.", {
        "Lung opacity": P, "Pneumonia": U, "Atelectasis": U,
    }),
    ("Left opacity, not seen on prior films.", {"Lung opacity": P}),
    ("No lesion.There is an opacity.", {"Lung opacity": P, "Lung lesion": A}),
    ("Opacity may represent atelectasis.", {"Lung opacity": P, "Atelectasis": U}),
    ("Opacity suspicious for pneumonia.", {"Lung opacity": P, "Pneumonia": U}),
    ("No consolidation to suggest pneumonia.", {"Consolidation": A, "Pneumonia": A}),
    # Of several mentions the one that says most.
    ("No right pneumothorax. Small left pneumothorax.", {"Pneumothorax": P}),
    ("The lungs are clear but for a right lower opacity. No edema.", {
        "Lung opacity": P, "Edema": A, "Consolidation": A, "Pneumonia": A,
    }),
    # Denied without a name.
    ("Heart size normal.", {"Cardiomegaly": A}),
    ("Heart size is not normal.", {}),
    ("The lungs are not clear.", {}),
    (
        "Heart size and mediastinal contours are within normal limits.",
        {"Enlarged cardiomediastinum": A, "Cardiomegaly": A},
    ),
    # What is no finding of the picture.
    ("Indication: pneumonia.\nFindings: no effusion", {"Pleural effusion": A}),
    ("No pericardial effusion. Soft tissue edema.", {}),
    ("Normal chest.", {}),
    ("", {}),
    ("A 1.5 cm nodule. No fracture.", {"Lung lesion": P, "Fracture": A}),
]  # fmt: skip


@pytest.mark.parametrize(("report", "expected"), CASES, ids=[text[:40] for text, _ in CASES])
def test_findings_of_a_report(report: str, expected: dict[str, str]) -> None:
    assert findings_of(report) == expected


def test_every_finding_is_read_and_denied_by_its_own_name() -> None:
    names = {
        "Enlarged cardiomediastinum": "widened mediastinum", "Lung opacity": "opacities",
        "Lung lesion": "mass", "Pleural other": "pleural thickening",
        "Support devices": "endotracheal tube",
    }  # fmt: skip
    for finding in FINDINGS:
        name = names.get(finding, finding.lower())
        assert findings_of(f"There is {name}.") == {finding: "present"}
        assert findings_of(f"No evidence of {name}.") == {finding: "absent"}


def test_a_long_report_is_read_in_a_moment() -> None:
    # Rules with look-aheads must not take quadratic time in what a model may write.
    text = "no effusion, and the heart is small, or " * 2000
    assert findings_of(text)["Pleural effusion"] == "absent"
