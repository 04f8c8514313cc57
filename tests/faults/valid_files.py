"""One valid example of every kind of file that is read, and what reads it."""

import csv
import gzip
import importlib.util
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from exgra_med.captions.batch import read_batches
from exgra_med.captions.judgements import (
    JudgementFile,
    judgement_counts,
    judgement_rows,
    text_digest,
    write_export,
)
from exgra_med.captions.merge import merge_captions
from exgra_med.captions.output import finished_ids
from exgra_med.captions.records import RecordFile
from exgra_med.data.download.archives import tar_members, unpack
from exgra_med.data.images import ImageFolder
from exgra_med.data.inspect.check import check_prepared
from exgra_med.data.inspect.describe import describe_manifest, describe_record
from exgra_med.data.prepare import prepare
from exgra_med.data.records import Record, Turn, iterate_records, json_line, open_prepared
from exgra_med.data.sources import custom, shards
from exgra_med.data.sources.pathvqa import read_plain_pickle
from exgra_med.data.sources.source import PrepareOptions
from exgra_med.evaluation.answers import pair, read_candidates, read_predictions, read_reference
from exgra_med.evaluation.cards import model_card
from exgra_med.evaluation.report.page import read_log as read_curves
from exgra_med.evaluation.results import read_results
from exgra_med.lab.base_models.settings import load_parts
from exgra_med.lab.studies.folder import read_attempt
from exgra_med.lab.studies.report import read_study_results
from exgra_med.lab.studies.schema import load_study, study_yaml
from exgra_med.llm.cache import AnswerCache
from exgra_med.llm.endpoint import environment_with_file
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import open_run, recipe_yaml
from exgra_med.training.log import read_log
from families import make

MAX_PIXELS = 250_000
TALK = [{"role": "user", "text": "Is it a CT?"}, {"role": "assistant", "text": "Yes."}]
RECORD = {"id": "a/1", "image": "a.png", "turns": TALK, "answer_type": "CLOSED", "meta": {"n": 1}}
ROWS = [
    {"image": "a.png", "question": "Is it a CT?", "answer": "yes", "options": "yes|no", "id": "1"},
    {"image": "a.png", "question": "What, is it?", "answer": 'a "mass"', "options": "", "id": "2"},
]


@dataclass(frozen=True)
class Kind:
    """A file below a folder of its own, and what is read of it."""

    file: str
    read: Callable[[Path], Any]
    """Gets the folder."""
    form: str = ""
    """`json`, `lines`, `yaml` or `safetensors`, where values can be replaced; else bytes."""


def _picture(ending: str) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, ending)
    return stream.getvalue()


def _table(separator: str) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return stream.getvalue().encode()


def _parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), stream)
    return stream.getvalue()


def _tar(compression: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as bundle:
        for name, content in (("d/a.png", _picture("png")), ("d/a.txt", b"A mass."), ("é", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            bundle.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("d/a.png", _picture("png"))
        bundle.writestr("d/b.txt", "text " * 99)
    return stream.getvalue()


def _dicom(folder: Path) -> None:
    import pydicom
    from pydicom.dataset import FileMetaDataset

    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.PatientName, dataset.Modality = "Mustermann^Erika", "CT"
    dataset.Rows, dataset.Columns = 3, 4
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation, dataset.WindowCenter, dataset.WindowWidth = 1, "40", "400"
    dataset.PixelData = np.arange(12, dtype="<i2").tobytes()
    dataset.save_as(folder / "a.dcm", enforce_file_format=True)


def _nifti(folder: Path) -> None:
    import nibabel

    volume = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    raw = nibabel.Nifti1Image(volume, np.eye(4)).to_bytes()
    (folder / "a.nii.gz").write_bytes(gzip.compress(raw))
    (folder / "a.nii").write_bytes(raw)


def write_checkpoint(folder: Path) -> None:
    """A checkpoint of this project, with its index of shards, in 200 kB."""
    from safetensors.torch import load_file, save_file

    from exgra_med.model.build import build_model
    from exgra_med.model.bundle import save_bundle
    from exgra_med.recipe.schema import (
        Architecture,
        LanguageArchitecture,
        TokenizerArchitecture,
        VisionArchitecture,
    )

    vision = VisionArchitecture(
        hidden_size=8, intermediate_size=8, num_layers=2, num_heads=1, image_size=28, patch_size=14
    )
    language = LanguageArchitecture(
        hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1, max_positions=256
    )
    tokenizer = TokenizerArchitecture(vocabulary_size=340)
    sizes = Architecture(vision=vision, language=language, tokenizer=tokenizer, connector="none")
    save_bundle(build_model(sizes, ["Is it a CT? Yes, of the chest."] * 3, 0), folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    save_file(weights, folder / "one.safetensors", metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, "one.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_all(folder: Path) -> None:
    """Write every example into `folder/NAME/FILE`."""
    text = {
        "recipe": recipe_yaml(load_recipe("debug/tiny").recipe),
        "extended recipe": "extends: demo\nseed: 3\nstages:\n  vqa: {max_steps: 2}\n",
        "study": "name: try\nrecipe: debug/tiny\nbaseline: a\nmethods:\n  a: {title: A}\n"
        "  b: {set: {stages.aligned.alignment: null}}\nfractions: [0.5, 1.0]\nseeds: [0, 1]\n"
        "scales: {smoke: {seeds: [0]}}\n",
        "parts": "seed: 1\nvision: {}\n",
        "records": json.dumps(RECORD) + "\n" + json.dumps(RECORD | {"id": "a/2"}) + "\n",
        "json": json.dumps(ROWS),
        "llava": json.dumps([{"id": "1", "image": "a.png", "conversations": [
            {"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": "Yes."}]}]),
        "answers": '{"id": "a/1", "text": "yes", "finish_reason": "stop", "num_tokens": 2}\n'
        '{"id": "a/2", "text": "no"}\n',
        "reference": json.dumps([{"id": 1, "image": "a.png", "answer_type": "OPEN", "conversations":
            [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "Yes."}]}]),
        "candidates": json.dumps({"0": ["a mass", "chest"]}),
        "captions": '{"id": "a/1", "extended": ["Yes, it is."]}\n'
        '{"id": "a/2", "extended": ["Yes."]}\n',
        "extended": '{"id": "a/1"}\n{ "id": "a/2" }\n',
        "judgements": "".join(json.dumps({"id": f"a/{n}", "turn": 0, "text": text_digest("Yes."),
            "verdict": "reject", "note": "", "rater": "ana", "time": "2026"}) + "\n"
            for n in (1, 2)),
        "batch": json.dumps({"custom_id": "k", "response": {"status_code": 200, "body": {
            "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1}}}}) + "\n",
        "log": '{"kind": "train", "stage": "a", "step": 1, "loss": 2.0}\n'
        '{"kind": "held_out", "stage": "a", "step": 1, "language_loss": 2.0, "chance": 0.5}\n',
        "attempt": '{"state": "failed", "started": "", "seconds": 1.0, "sentence": "x"}',
        "study results": '{"schema_version": 1, "study": "x", "cells": []}',
        "env": "A=1\nexport B='x'\n# c\n",
    }  # fmt: skip
    for name, content in text.items():
        _place(folder, name).write_text(content, encoding="utf-8")
    entry = {"dataset": "d", "split": "test", "task": "vqa", "engine": {"name": "checkpoint"}}
    entry |= {"scores": {"strict": {"average": {"value": 1.0, "interval": [0, 2], "count": 3}}}}
    results = {"schema_version": 2, "results": [entry]}
    _place(folder, "results").write_text(json.dumps(results))
    run = _place(folder, "record").parent
    run.mkdir(exist_ok=True)
    (run / "recipe.yaml").write_text(text["recipe"])
    (run / "record.json").write_text('{"created": "", "data": {"vqa": {"folder": "x"}}}')
    raw = {
        "csv": _table(","),
        "tsv": _table("\t"),
        "tar": _tar(""),
        "tar.gz": _tar("gz"),
        "tar.xz": _tar("xz"),
        "shard": _tar(""),
        "zip": _zip(),
        "png": _picture("png"),
        "jpeg": _picture("jpeg"),
        "tiff": _picture("tiff"),
        "pickle": pickle.dumps([{"sent": "x", "label": {"yes": 1}}]),
    }
    for name, content in raw.items():
        _place(folder, name).write_bytes(content)
    for name in ("csv", "tsv", "json", "llava"):
        images = folder / name / "images"
        images.mkdir(exist_ok=True)
        (images / "a.png").write_bytes(raw["png"])
    source = folder / "manifest" / "source"
    (source / "images").mkdir(parents=True)
    (source / "images" / "a.png").write_bytes(raw["png"])
    (source / "train.csv").write_bytes(raw["csv"])
    prepare("custom", source, folder / "manifest" / "data")
    cache = AnswerCache(_place(folder, "cache"))
    cache.remember("a", "b")
    cache.close()
    if has("pyarrow"):
        _place(folder, "parquet").write_bytes(_parquet())
    if has("pydicom"):
        _dicom(_place(folder, "dicom").parent)
    if has("nibabel"):
        _nifti(_place(folder, "nifti").parent)
        _nifti(_place(folder, "nifti.gz").parent)
    write_checkpoint(folder / "checkpoint")
    for part in make("llava_next"):
        part.save_pretrained(folder / "other")


def folder_of(name: str) -> str:
    """The folder of an example: several of them lie in a checkpoint."""
    if name in CHECKPOINT:
        return "other" if name.startswith("other ") else "checkpoint"
    return name


def has(package: str) -> bool:
    """Whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def _place(folder: Path, name: str) -> Path:
    path = folder / name / KINDS[name].file
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _records(folder: Path) -> None:
    for record in iterate_records(folder / "a.jsonl"):
        json_line(record.to_json())


def _rows(folder: Path) -> None:
    found = custom.collect(folder, PrepareOptions("given", 0, MAX_PIXELS))
    for records in found.splits.values():
        for record in records:
            json_line(record.to_json())


def _shard(folder: Path) -> None:
    found = shards.collect(folder, PrepareOptions("all", 0, MAX_PIXELS))
    for records in found.splits.values():
        list(records)


def _prepared(folder: Path) -> None:
    prepared = open_prepared(folder / "data")
    describe_manifest(prepared)
    check_prepared(prepared)
    for split in prepared.splits:
        for record in prepared.records(split):
            describe_record(prepared, record, "exgra")


def _answers(folder: Path) -> None:
    questions = read_reference(folder.parent / "records" / "a.jsonl").questions
    for each in pair(read_predictions(folder / "a.jsonl").predictions, questions).answers:
        (each or "").encode()


def _unpacked(name: str) -> Callable[[Path], None]:
    return lambda folder: unpack(folder / name, folder / "out" / "unpacked")


def _streamed(folder: Path) -> None:
    with (folder / "a.tar").open("rb") as stream:
        for member in tar_members(stream, "a.tar", max_bytes=10_000):
            member.content(5000)


def _opened(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        images = ImageFolder(folder, MAX_PIXELS)
        images.open(name)
        images.read_bytes(name)

    return read


def _cached(folder: Path) -> None:
    cache = AnswerCache(folder / "a.sqlite")
    try:
        cache.recall("a")
        cache.get("k")
        cache.spent()
    finally:
        cache.close()


def _batch(folder: Path) -> None:
    cache = AnswerCache(folder / "out" / "a.sqlite")
    try:
        read_batches([folder / "a.jsonl"], "m", cache, folder / "out" / "failures.jsonl")
    finally:
        cache.close()


def _merged(folder: Path) -> None:
    data = folder.parent / "records" / "a.jsonl"
    merge_captions(str(data), folder / "a.jsonl", folder / "out" / "a.jsonl", allow_missing=True)


def _judged(folder: Path) -> None:
    name = str(folder / "a.jsonl")
    talk = [Turn(role="user", text="Is it?"), Turn(role="assistant", text="Yes")]
    record = Record(id="a/1", turns=talk, extended=["Yes."])
    rows = list(judgement_rows(name, RecordFile(folder / "a.jsonl", 1, [record])))
    judgement_counts(name, rows)
    write_export(folder / "out" / "a.csv", [row.to_json() for row in rows])
    with JudgementFile(name, "ana") as file:
        file.add(("a/1", 0), "Yes.", "accept", "")


def _run(folder: Path) -> None:
    run = open_run(folder)
    run.record()
    run.add_to_record("x", 1)
    model_card(folder)


def checkpoint(folder: Path) -> None:
    """Load a checkpoint, say what it is, and let it answer."""
    from exgra_med.model.bundle import load_bundle
    from exgra_med.model.generate import generate
    from exgra_med.model.inspection import describe_checkpoint

    json.dumps(describe_checkpoint(folder))
    bundle = load_bundle(folder)
    picture = Image.new("RGB", (8, 6))
    prompt = bundle.prompt([Turn(role="user", text="Is it a CT?")], 1)
    generate(bundle, [prompt], [[picture]], 1)


KINDS = {
    "recipe": Kind("a.yaml", lambda f: recipe_yaml(load_recipe(f / "a.yaml").recipe), "yaml"),
    "extended recipe": Kind("a.yaml", lambda f: load_recipe(f / "a.yaml"), "yaml"),
    "study": Kind("a.yaml", lambda f: study_yaml(load_study(str(f / "a.yaml"), "smoke")), "yaml"),
    "parts": Kind("a.yaml", lambda f: load_parts(f / "a.yaml"), "yaml"),
    "records": Kind("a.jsonl", _records, "lines"),
    "json": Kind("train.json", _rows, "json"),
    "llava": Kind("train.json", _rows, "json"),
    "csv": Kind("train.csv", _rows),
    "tsv": Kind("train.tsv", _rows),
    "parquet": Kind("train.parquet", _rows),
    "manifest": Kind("data/manifest.json", _prepared, "json"),
    "answers": Kind("a.jsonl", _answers, "lines"),
    "reference": Kind("a.json", lambda f: read_reference(f / "a.json"), "json"),
    "candidates": Kind("a.json", lambda f: read_candidates(f / "a.json"), "json"),
    "results": Kind("results.json", lambda f: read_results(f), "json"),
    "record": Kind("record.json", _run, "json"),
    "captions": Kind("a.jsonl", _merged, "lines"),
    "judgements": Kind("a.judgements.ana.jsonl", _judged, "lines"),
    "extended": Kind("a.jsonl", lambda f: list(finished_ids(f / "a.jsonl")), "lines"),
    "batch": Kind("a.jsonl", _batch, "lines"),
    "log": Kind("log.jsonl", lambda f: (read_log(f / "log.jsonl"), read_curves(f / "log.jsonl")),
                "lines"),
    "attempt": Kind("logs/n.json", lambda f: read_attempt(f, "n"), "json"),
    "study results": Kind("results.json", lambda f: read_study_results(f), "json"),
    "env": Kind(".env", lambda f: environment_with_file({}, f)),
    "cache": Kind("a.sqlite", _cached),
    "tar": Kind("a.tar", _streamed),
    "tar.gz": Kind("a.tar.gz", _unpacked("a.tar.gz")),
    "tar.xz": Kind("a.tar.xz", _unpacked("a.tar.xz")),
    "zip": Kind("a.zip", _unpacked("a.zip")),
    "shard": Kind("a.tar", _shard),
    "pickle": Kind("a.pkl", lambda f: read_plain_pickle(f / "a.pkl")),
    "png": Kind("a.png", _opened("a.png")),
    "jpeg": Kind("a.jpg", _opened("a.jpg")),
    "tiff": Kind("a.tif", _opened("a.tif")),
    "dicom": Kind("a.dcm", _opened("a.dcm")),
    "nifti": Kind("a.nii", _opened("a.nii#plane=axial,slice=1")),
    "nifti.gz": Kind("a.nii.gz", _opened("a.nii.gz#plane=axial,slice=1")),
}  # fmt: skip
CHECKPOINT = {
    name: Kind(file, checkpoint, form)
    for name, file, form in (
        ("config", "config.json", "json"),
        ("processor", "processor_config.json", "json"),
        ("tokenizer config", "tokenizer_config.json", "json"),
        ("tokenizer", "tokenizer.json", "json"),
        ("index", "model.safetensors.index.json", "json"),
        ("weights", "one.safetensors", "safetensors"),
    )
}
CHECKPOINT |= {
    f"other {name}": CHECKPOINT[name] for name in ("config", "processor", "tokenizer config")
}
CHECKPOINT |= {
    "other template": Kind("chat_template.jinja", checkpoint),
    "other generation": Kind("generation_config.json", checkpoint, "json"),
}
NEEDS = {"parquet": "pyarrow", "dicom": "pydicom", "nifti": "nibabel", "nifti.gz": "nibabel"}
