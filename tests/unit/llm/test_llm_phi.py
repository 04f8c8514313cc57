import json
from pathlib import Path

import pytest

from exgra_med.data.records import open_prepared
from exgra_med.llm.identifiers import find_identifiers


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Patient name: John Doe", "name"),
        ("PATIENT NAME Doe", "name"),
        ("Name: Müller, Anna", "name"),
        ("The scan of Mrs. Smith shows", "name"),
        ("DOB: 12/03/1956", "date of birth"),
        ("d.o.b. 1956-03-12", "date of birth"),
        ("born on 12 March 1956", "date of birth"),
        ("Date of birth: March 12, 1956", "date of birth"),
        ("MRN 00123456", "record number"),
        ("Medical record number: A-12345", "record number"),
        ("accession #AB123456", "record number"),
        ("patient id: 55512345", "record number"),
        ("123-45-6789", "social security number"),
        ("phone: +49 30 1234567", "telephone number"),
        ("write to a.b@clinic.example.org", "e-mail address"),
    ],
)
def test_what_names_a_patient_is_found(text: str, kind: str) -> None:
    assert kind in find_identifiers(text)


@pytest.mark.parametrize(
    "text",
    [
        "Hodgkin lymphoma, name the organ",
        "What is the name of the structure: the left ventricle?",
        "A 45-year-old patient with Crohn disease",
        "Figure 3, case 2: T1-weighted MRI at 3 T",
        "Patient: Left kidney is enlarged",
        "the study number is small; 2-3 cm, 120/80 mmHg",
        "Grade 3-4 in 12-15 cases from 1999-2004",
        "Miss the lesion and Mr imaging looks normal",
        "record a case of 12345 cells",
        "phone-like artefact",
    ],
)
def test_what_names_none_passes(text: str) -> None:
    assert find_identifiers(text) == []


def test_published_questions_pass() -> None:
    prepared = open_prepared("bundled:vqa-rad-sample")
    turns = [
        turn.text
        for split in prepared.splits
        for record in prepared.records(split)
        for turn in record.turns
    ]
    assert len(turns) > 100
    assert [text for text in turns if find_identifiers(text)] == []


def test_published_question_files_pass(shared: Path) -> None:
    texts = []
    for path in sorted((shared / "data").rglob("*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        for row in rows if isinstance(rows, list) else ():
            texts += [str(value) for key, value in row.items() if key in ("question", "answer")]
    assert len(texts) > 1000
    assert [text for text in texts if find_identifiers(text)] == []
