"""The core alone imports everything, and a missing extra is one sentence with a hint."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import exgra_med

SOURCE = Path(exgra_med.__file__).parents[1]
PROJECT = Path(__file__).resolve().parents[2]
EXTRAS = {
    "report": ("matplotlib", "jinja2"),
    "llm": ("openai",),
    "vllm": ("vllm",),
    "vlm": ("torchvision", "num2words"),
    "lora": ("peft",),
    "web": ("gradio",),
    "serve": ("uvicorn",),
    "reports": ("radeval",),
    "optim": ("torchao",),
    "track": ("trackio",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "parquet": ("pyarrow",),
    "excel": ("openpyxl",),
    "dicom": ("pydicom", "nibabel", "gdcm", "pylibjpeg", "openjpeg"),
}
"""What each extra brings, as modules; the rest of these tests runs without any of them."""

WITHOUT = """
import importlib.machinery, sys
blocked = set({blocked!r})

class Filter(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Filter
"""
BUILT_ON_EXTRAS = ("exgra_med.web.page", "exgra_med.web.runs_tab")
"""Modules that are nothing without their extra: importing them says so in one sentence."""
IMPORT_ALL = f"""
import importlib, pkgutil, exgra_med
from exgra_med.errors import MissingExtraError
refused = []
for each in pkgutil.walk_packages(exgra_med.__path__, "exgra_med."):
    if not each.name.endswith("__main__"):
        try:
            importlib.import_module(each.name)
        except MissingExtraError:
            refused.append(each.name)
assert tuple(refused) == {BUILT_ON_EXTRAS}, refused
"""
ASK = """
import json, shutil, tempfile
from pathlib import Path
from exgra_med.errors import MissingExtraError

def report():
    from exgra_med.evaluation.report.page import template_environment
    template_environment(escape=True)

def figures():
    from exgra_med.evaluation.report.page import pyplot
    pyplot()

def service():
    from exgra_med.llm.openai_transport import OpenAITransport
    OpenAITransport(None)

def engine():
    from exgra_med.llm.vllm_transport import VllmTransport
    VllmTransport("model")

def adapters():
    from exgra_med.model.lora import check_adapters_possible
    from exgra_med.recipe.schema import LoraSettings
    check_adapters_possible(LoraSettings())

def processor():
    from exgra_med.model.bundle import load_processor
    folder = Path(tempfile.mkdtemp())
    kind = {"processor_class": "Lfm2VlProcessor", "image_processor_type": "Lfm2VlImageProcessor"}
    (folder / "config.json").write_text(json.dumps({"model_type": "lfm2_vl"}))
    (folder / "preprocessor_config.json").write_text(json.dumps(kind))
    try:
        load_processor(folder)
    finally:
        shutil.rmtree(folder)

def server():
    from exgra_med.model.serving import choose_server
    choose_server("transformers")

def parquet():
    from exgra_med.data.sources.parquet import iterate_rows
    list(iterate_rows([Path("x")], []))

def excel():
    from exgra_med.data.sources.spreadsheets import sheet_rows
    next(sheet_rows(Path("x.xlsx")))

def dicom():
    from exgra_med.data.dicom import read_dicom
    read_dicom(None, 10, "x.dcm", "x.dcm")

def nifti():
    from exgra_med.data.nifti import read_nifti
    read_nifti(None, 10, "x.nii#axis=0,slice=0", "x.nii")

def page():
    import exgra_med.web.page

asked = {}
for function in (page, report, figures, service, engine, adapters, processor, server,
                 parquet, excel, dicom, nifti):
    try:
        function()
        asked[function.__name__] = ["nothing was missing", ""]
    except MissingExtraError as error:
        asked[function.__name__] = [error.message, error.hint]
print(json.dumps(asked))
"""


def run(program: str) -> str:
    blocked = sorted(module for modules in EXTRAS.values() for module in modules)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(blocked=blocked) + program],
        capture_output=True,
        text=True,
        timeout=240,
        env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def test_every_module_imports_and_a_missing_extra_is_one_sentence() -> None:
    asked = json.loads(run(IMPORT_ALL + ASK))
    assert len(asked) == 12
    for name, (message, hint) in asked.items():
        found = re.fullmatch(r"[A-Z`][^.]+ needs the extra \[(\w+)\]\.", message)
        assert found, f"{name}: {message}"
        assert hint == f"pip install 'exgra-med[{found[1]}]'"
        assert found[1] in EXTRAS


def test_the_extras_of_the_package_are_those_that_are_tested() -> None:
    with (PROJECT / "pyproject.toml").open("rb") as stream:
        named = tomllib.load(stream)["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(named) - {"dev", "oracle", "docs", "release"}
