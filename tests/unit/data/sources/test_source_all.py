"""Each source reads files in its published layout; the texts here are invented.

Long because all sources are held against the same expectations in one place.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.data.prepare import prepare
from exgra_med.data.records import Prepared
from exgra_med.data.sources import SOURCES
from exgra_med.data.sources.exgra_med import split_suffix
from exgra_med.errors import DataError

GOLDEN = Path(__file__).parents[3] / "golden/data/preprocessing"


def picture(path: Path, colour: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (colour % 255, 60, 30)).save(path)


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(value))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in value), encoding="utf-8")
    else:
        path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def counts(prepared: Prepared) -> tuple[int, int, int]:
    return tuple(prepared.manifest["counts"][s] for s in ("train", "validation", "test"))


@pytest.mark.parametrize("name", SOURCES.names())
def test_every_registered_source_describes_itself(name: str) -> None:
    source = SOURCES.find(name)
    assert source.name == name and source.title and source.licence and source.variants


# --- SLAKE ---------------------------------------------------------------------------------------


def slake_row(qid: int, image: int, language: str = "en", **changes: Any) -> dict[str, Any]:
    return {
        "img_id": image,
        "img_name": f"xmlab{image}/source.jpg",
        "question": "Is it?" if language == "en" else "图中存在异常吗?",
        "answer": "Yes" if language == "en" else "存在",
        "q_lang": language,
        "location": "Lung",
        "modality": "CT",
        "answer_type": "CLOSED",
        "base_type": "vqa",
        "content_type": "Organ",
        "triple": ["vhead", "_", "_"],
        "qid": qid,
    } | changes


@pytest.fixture
def slake(tmp_path: Path) -> Path:
    folder = tmp_path / "slake"
    for image in range(4):
        picture(folder / f"imgs/xmlab{image}/source.jpg", image * 40)
    rows = [slake_row(1, 0), slake_row(2, 2, "zh"), slake_row(3, 0, answer="")]
    save(folder / "train.json", rows)
    save(folder / "validation.json", [slake_row(4, 1)])
    save(folder / "test.json", [slake_row(5, 2), slake_row(6, 3, "zh")])
    return folder


def test_slake_by_language(slake: Path, tmp_path: Path) -> None:
    english = prepare("slake", slake, tmp_path / "en")
    assert counts(english) == (1, 1, 1)
    assert english.manifest["dropped"] == [{"id": "slake/train/3", "reason": "empty answer"}]
    chinese = prepare("slake", slake, tmp_path / "zh", variant="zh")
    assert counts(chinese) == (1, 0, 1)
    [record] = chinese.records("train")
    assert record.question == "图中存在异常吗?" and record.meta["options"] == ["存在", "不存在"]
    assert record.meta["triple"] == ["vhead", "_", "_"] and record.meta["modality"] == "CT"


def test_slake_languages_together_say_or_mend_their_leak(slake: Path, tmp_path: Path) -> None:
    both = prepare("slake", slake, tmp_path / "both", variant="both")
    assert both.manifest["notes"]["test_images_in_train"] == 1 and counts(both) == (2, 1, 2)
    apart = prepare("slake", slake, tmp_path / "apart", variant="both-disjoint")
    assert counts(apart) == (1, 1, 2)
    assert "slake/train/2" in [item["id"] for item in apart.manifest["dropped"]]


def test_slake_without_twins_leaves_out_test_images_that_look_like_training_images(
    slake: Path, tmp_path: Path
) -> None:
    for image, seed in ((0, 5), (1, 6), (2, 7), (3, 5)):
        coarse = Image.effect_noise((6, 6), 90) if seed != 5 else Image.linear_gradient("L")
        coarse.resize((64 - image, 60)).save(slake / f"imgs/xmlab{image}/source.jpg")
    save(slake / "test.json", [slake_row(5, 2), slake_row(6, 3), slake_row(7, 3, "zh")])
    plain = prepare("slake", slake, tmp_path / "plain")
    apart = prepare("slake", slake, tmp_path / "apart", variant="en-without-twins")
    assert counts(plain) == (1, 1, 2) and counts(apart) == (1, 1, 1)
    assert [r.meta["published_id"] for r in apart.records("test")] == ["5"]
    twins = {"xmlab3/source.jpg": "xmlab0/source.jpg"}
    assert apart.manifest["notes"]["test_images_with_twin_in_train"] == twins
    assert "looks like one of train" in apart.manifest["dropped"][-1]["reason"]


def test_the_slake_subset_has_the_published_counts(shared: Path, tmp_path: Path) -> None:
    types = {
        "en": {"train": (48, 129), "validation": (19, 52), "test": (29, 72)},
        "zh": {"train": (67, 196), "validation": (16, 54), "test": (3, 13)},
    }
    for language, expected in types.items():
        out = prepare("slake", shared / "data/slake_subset", tmp_path / language, variant=language)
        for split, (closed, opened) in expected.items():
            assert out.manifest["counts_by_type"][split] == {"CLOSED": closed, "OPEN": opened}
    both = prepare("slake", shared / "data/slake_subset", tmp_path / "both", variant="both")
    assert counts(both) == (440, 141, 117)
    assert both.manifest["notes"]["test_images_in_train"] == 14


def test_slake_golden_rows_read_as_the_original_reads_them(tmp_path: Path) -> None:
    rows = json.loads((GOLDEN / "raw_slake.json").read_text(encoding="utf-8"))
    for row in rows:
        picture(tmp_path / "s/images" / row["img_name"])
    for name in ("train", "validate", "test"):
        save(tmp_path / f"s/{name}.json", rows if name == "train" else [])
    records = prepare("slake", tmp_path / "s", tmp_path / "out").records("train")
    assert [r.meta["published_id"] for r in records] == ["10000", "10002", "10003"]
    assert records[2].meta["options"] == ["transverse plane", "coronal plane"]


# --- OmniMedVQA ----------------------------------------------------------------------------------


def omni_row(name: str, **changes: Any) -> dict[str, Any]:
    row = {
        "dataset": "ACRIMA",
        "question_id": name,
        "question_type": "Modality Recognition",
        "question": "How was it made?",
        "gt_answer": "fundus imaging.",
        "image_path": "Images/ACRIMA/a b.png",
        "option_A": "PET scan",
        "option_B": "Fundus imaging",
        "modality_type": "Fundus Photography",
    } | changes
    return {key: value for key, value in row.items() if value is not None}


def test_omnimedvqa_reads_every_file_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "omni"
    picture(root / "Images/ACRIMA/a b.png")
    access = root / "QA_information/Open-access"
    odd = {"modality_type": None, "modality": "OCT (Optical Coherence Tomography"}
    magnetic = "MR (Mag-netic Resonance Imaging)"
    rows = [
        omni_row("A_0"),
        omni_row("A_1", option_C="MRI", option_D="CT", modality_type=magnetic),
        omni_row("A_2", **odd),
        omni_row("A_3", gt_answer="ultrasound"),
        omni_row("A_4", option_B=None),
    ]  # fmt: skip
    save(access / "Chest CT Scan.json", rows)
    save(access / "NLM- Malaria Data.json", [omni_row("N_0", gt_answer="PET scan")])
    save(root / "QA_information/Restricted-access/x.json", [omni_row("R_0")])
    prepared = prepare("omnimedvqa", root, tmp_path / "out")
    assert counts(prepared) == (0, 0, 4)
    records = {r.meta["published_id"]: r for r in prepared.records("test")}
    assert records["A_0"].meta["answer_index"] == 1
    assert records["A_0"].meta["options"] == ["PET scan", "Fundus imaging"]
    assert len(records["A_1"].meta["options"]) == 4 and records["A_1"].meta["modality"] == "MR"
    assert records["A_2"].meta["modality"] == "OCT"
    dropped = {item["id"]: item["reason"] for item in prepared.manifest["dropped"]}
    assert dropped == {
        "omnimedvqa/test/A_3": "the answer is none of the options",
        "omnimedvqa/test/A_4": "1 options",
    }
    assert counts(prepare("omnimedvqa", root, tmp_path / "all", variant="all")) == (0, 0, 5)


def test_the_items_in_omnimedvqa_style_have_their_counts(shared: Path, tmp_path: Path) -> None:
    prepared = prepare("omnimedvqa", shared / "data/medical_images", tmp_path / "out")
    assert counts(prepared) == (0, 0, 93)
    sizes = [len(r.meta["options"]) for r in prepared.records("test")]
    assert [sizes.count(n) for n in (4, 3, 2)] == [45, 24, 24]
    assert prepared.manifest["images"]["count"] == 45
    tally = prepared.manifest["notes"]["records_by_modality"]
    assert tally == {"Dermoscopy": 5, "Fundus Photography": 3, "Microscopy": 13, "Ultrasound": 72}


# --- PathVQA -------------------------------------------------------------------------------------


def path_root(tmp_path: Path) -> Path:
    root = tmp_path / "pvqa"
    for split in ("train", "val", "test"):
        picture(root / f"images/{split}/{split}_0422.jpg")
    return root


def vqa_row(split: str, **changes: Any) -> dict[str, Any]:
    return {
        "answer_type": "other",
        "img_id": f"{split}_0422",
        "label": {"in the canals": 1, "elsewhere": 0.3},
        "question_id": 100422000,
        "question_type": "where",
        "sent": "Where are they?",
    } | changes


def test_pathvqa_vqa_pickles(tmp_path: Path) -> None:
    root = path_root(tmp_path)
    for split in ("train", "val", "test"):
        closed = vqa_row(split, answer_type="yes/no", label={"yes": 1})
        number = vqa_row(split, answer_type="number", label={"2": 1})
        rows = [vqa_row(split), closed, number, vqa_row(split, label={})]
        save(root / f"qas/{split}_vqa.pkl", rows)
    prepared = prepare("pathvqa", root, tmp_path / "out")
    assert counts(prepared) == (3, 3, 3)
    records = prepared.records("train")
    assert [r.answer for r in records] == ["in the canals", "yes", "2"]
    assert [r.answer_type for r in records] == ["OPEN", "CLOSED", "OPEN"]
    assert len({r.id for r in records}) == 3 and records[0].image == "train/train_0422.jpg"
    assert prepared.manifest["dropped"][0] == {"id": "pathvqa/train/3", "reason": "empty answer"}


def test_pathvqa_qa_pickles_and_lxmert_json(tmp_path: Path) -> None:
    root = path_root(tmp_path)
    for split in ("train", "val", "test"):
        row = {"image": f"{split}_0422", "question": "Is it?", "answer": "Yes"}
        save(root / f"qas/{split}/{split}_qa.pkl", [row])
    assert counts(prepare("pathvqa", root, tmp_path / "qa")) == (1, 1, 1)
    root = path_root(tmp_path / "x")
    for split in ("train", "val", "test"):
        entry = {
            "img_id": f"{split}_0422",
            "labelf": {"pvqa": [{"carcinoid": 1}, {"no": 1}]},
            "sentf": {"pvqa": ["What?", "Is it?"]},
        }
        empty = {"img_id": "train_1", "labelf": {"pvqa": []}, "sentf": {"pvqa": []}}
        save(root / f"pvqa_{split}.json", [entry, empty])
    prepared = prepare("pathvqa", root, tmp_path / "lxmert")
    assert counts(prepared) == (2, 2, 2)
    assert [r.answer_type for r in prepared.records("test")] == ["OPEN", "CLOSED"]


def test_pathvqa_golden_pickle_reads_as_the_original_reads_it(tmp_path: Path) -> None:
    root = path_root(tmp_path)
    for name in ("train_0422", "train_0777", "train_0001"):
        picture(root / f"images/train/{name}.jpg")
    (root / "qas").mkdir()
    (root / "qas/train_vqa.pkl").write_bytes((GOLDEN / "raw_pvqa.pkl").read_bytes())
    for split in ("val", "test"):
        save(root / f"qas/{split}_vqa.pkl", [])
    records = prepare("pathvqa", root, tmp_path / "out").records("train")
    runs = json.loads((GOLDEN / "results.json").read_text(encoding="utf-8"))
    [run] = [v for v in runs.values() if v.get("output") and "pvqa" in str(v["args"])]
    assert [r.image for r in records] == [item["image"] for item in run["output"]]
    assert [r.answer_type for r in records] == [item["answer_type"] for item in run["output"]]
    talk = [item["conversations"][1]["value"] for item in run["output"]]
    assert [r.answer for r in records] == talk


def test_pathvqa_hub_parquet_streams_equal_images_once(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    picture(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    root = tmp_path / "hub/data"
    root.mkdir(parents=True)
    rows = [
        {"image": {"bytes": content, "path": None}, "question": f"Is it {n}?", "answer": "yes"}
        for n in range(3)
    ]
    for split in ("train", "validation", "test"):
        table = pyarrow.Table.from_pylist(rows)
        parquet.write_table(table, root / f"{split}-00000-of-00001.parquet")
    prepared = prepare("pathvqa", tmp_path / "hub", tmp_path / "out")
    assert counts(prepared) == (3, 3, 3) and prepared.manifest["images"]["count"] == 1


# --- LLaVA-Med, ExGra-Med, chat benchmark, custom ------------------------------------------------


def talk(question: str, answer: str, key: str = "conversations") -> dict[str, Any]:
    return {key: [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}


def test_llava_med_files_of_both_spellings(tmp_path: Path) -> None:
    root = tmp_path / "llava"
    items = []
    for n in range(40):
        picture(root / f"images/{n}_F1.jpg", n)
        key = "conversations" if n % 2 else "conversatons"
        item = {"id": f"{n}_F1", "image": f"{n}_F1.jpg", "domain": {"mri": True}}
        item |= talk("<image>\nDescribe.", "A scan.", key)
        item |= talk("<image>\nDescribe.", "A long scan.", f"{key}_long")
        items.append(item)
    items.append({"id": "empty", "image": "0_F1.jpg"} | talk("<image>\nDescribe.", ""))
    save(root / "alignment.json", items)
    prepared = prepare("llava-med", root, tmp_path / "out")
    assert counts(prepared) == (39, 1, 0)
    assert prepared.records("train")[0].extended == ["A long scan."]
    assert prepared.records("train")[0].meta["domain"] == {"mri": True}
    notes = prepared.manifest["notes"]
    assert notes["spellings_found"]["conversatons_long"] == 20
    assert notes["held_out_images"] == "1 of 40, in `validation`, never trained on"
    assert prepared.manifest["dropped"] == [
        {"id": "llava-med/alignment/empty", "reason": "an empty message"}
    ]


def test_exgra_med_files_give_their_options_back(tmp_path: Path) -> None:
    root = tmp_path / "prepared"
    picture(root / "images/synpic1.jpg")
    base = {"image": "synpic1.jpg", "answer_type": "CLOSED"}
    question = 'Left or right? (Answer with either "left" or "right").\n<image>'
    rows = [
        {"id": 1} | base | talk(question, "left", "conversatons"),
        {"id": 2} | base | {"answer_type": "OPEN"} | talk("What?\n<image>", "a mass"),
    ]
    save(root / "train_w_options_new.json", rows)
    prepared = prepare("exgra-med", root, tmp_path / "out")
    first, second = prepared.records("train")
    assert first.question == "Left or right?" and first.meta["options"] == ["left", "right"]
    assert second.question == "What?" and "options" not in second.meta


def test_the_original_conversion_and_ours_agree_on_closed_yes_no_questions() -> None:
    runs = json.loads((GOLDEN / "results.json").read_text(encoding="utf-8"))
    items = runs["rad_train_stdin_left_right"]["output"]
    found = [split_suffix(i["conversations"][0]["value"].split("\n<image>")[0]) for i in items]
    assert found[0] == ("Is there evidence of an aortic aneurysm?", ["Yes", "No"])
    assert found[2] == ("Is the mass on the left or right?", ["left", "right"])
    assert found[4] == ("What organ is shown?", [])


def test_the_chat_benchmark(tmp_path: Path) -> None:
    root = tmp_path / "chat"
    picture(root / "images/1_F3.jpg")
    row = {
        "question_id": 0,
        "image": "1_F3.jpg",
        "pair_id": "1_F3",
        "text": "What is the organ?\n<image>",
        "gpt4_answer": "A liver.",
        "fig_caption": "Liver.",
        "in_text_mention": [],
        "domain": {"chest_xray": False, "mri": True, "ct_scan": True},
        "type": "conversation",
        "fig_label": "Fig. 3",
    }
    save(root / "llava_med_eval_qa50_qa.jsonl", [row, row | {"question_id": 1, "gpt4_answer": ""}])
    prepared = prepare("chat-benchmark", root, tmp_path / "out")
    [record] = prepared.records("test")
    assert (record.question, record.answer) == ("What is the organ?", "A liver.")
    assert record.meta["domain"] == "mri" and record.meta["question_type"] == "conversation"
    assert prepared.manifest["dropped"][0]["reason"] == "empty answer"


def test_custom_csv_with_a_mapping_and_custom_json_lines(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    picture(root / "images/a.png")
    (root / "train.csv").write_text(
        'Bild,Frage,Antwort,answer_type,station\na.png,"Links, oder rechts?",Links,CLOSED,3\n',
        encoding="utf-8",
    )
    save(root / "test.jsonl", [{"Frage": "Wo?", "Antwort": "Hier", "extended": "Genau hier."}])
    mapping = {"image": "Bild", "question": "Frage", "answer": "Antwort"}
    prepared = prepare("custom", root, tmp_path / "out", mapping=mapping)
    [record] = prepared.records("train")
    assert record.image == "a.png" and record.meta["station"] == "3"
    [text_only] = prepared.records("test")
    assert text_only.image is None and text_only.extended == ["Genau hier."]
    guessed = prepare("custom", root, tmp_path / "other")
    assert guessed.records("train") == prepared.records("train")
    with pytest.raises(DataError, match="unknown field 'colour'"):
        prepare("custom", root, tmp_path / "other", mapping={"colour": "x"})
