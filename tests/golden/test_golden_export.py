"""native -> stock export -> plain transformers, in a process that does not know this package."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

from exgra_med.data.chat_template import encode_prompt
from exgra_med.data.records import Turn
from exgra_med.model.bundle import load_bundle
from exgra_med.model.convert.checkpoint import export_checkpoint, import_checkpoint
from exgra_med.model.generate import generate
from exgra_med.model.verification import verify_checkpoint

STRANGER = """
import importlib.util, json, sys, torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor
assert importlib.util.find_spec("exgra_med") is None
folder, inputs, outputs, image, question = sys.argv[1:]
model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
assert type(model).__module__.startswith("transformers.models.llava.")
processor = AutoProcessor.from_pretrained(folder)
data = load_file(inputs)
with torch.no_grad():
    logits = model(input_ids=data["input_ids"], attention_mask=data["attention_mask"],
                   pixel_values=data["images"]).logits
save_file({"logits": logits}, outputs)
content = [{"type": "image"}, {"type": "text", "text": question}]
text = processor.apply_chat_template([{"role": "user", "content": content}],
                                     add_generation_prompt=True)
ready = processor(images=[Image.open(image)], text=text, add_special_tokens=False,
                  return_tensors="pt")
new = model.generate(**ready, max_new_tokens=24)[0, ready["input_ids"].shape[1]:]
print(json.dumps({"prompt": ready["input_ids"][0].tolist(), "new": new.tolist(),
                  "eos": model.generation_config.eos_token_id}))
"""


def run_as_a_stranger(*arguments: Path | str) -> dict[str, Any]:
    """What `STRANGER` prints, in the first argument's parent folder."""
    packages = os.pathsep.join(path for path in sys.path if "site-packages" in path)
    done = subprocess.run(
        # -S leaves out .pth files, by which an editable installation would be found.
        [sys.executable, "-S", "-c", STRANGER, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(arguments[0]).parent,
        env={"HF_HUB_OFFLINE": "1", "PATH": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": packages},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("connector", ["none", "dci"])
def test_a_stranger_gets_the_same_logits_and_answers(
    golden: Path, tmp_path: Path, connector: str
) -> None:
    folder = golden / "model"
    native = tmp_path / "native"
    import_checkpoint(str(folder / f"checkpoint_{connector}"), str(folder / "clip_tiny"), native)
    export_checkpoint(str(native), tmp_path / "export")
    bundle = load_bundle(native)
    picture = folder / "images" / "square.png"
    question = "Which side is affected?"
    inputs = folder / f"forward_{connector}.safetensors"
    theirs = run_as_a_stranger(
        tmp_path / "export", inputs, tmp_path / "out.safetensors", picture, question
    )
    golden_logits = load_file(inputs)["logits"]
    difference = load_file(tmp_path / "out.safetensors")["logits"] - golden_logits
    assert difference.abs().max() <= 2e-5
    prompt = encode_prompt(bundle.tokenizer, [Turn(role="user", text=question)], "exgra", 16, 1)
    assert theirs["prompt"] == prompt
    ours = generate(bundle, [prompt], [[Image.open(picture)]], 24)[0].token_ids
    assert theirs["new"][: len(ours)] == ours
    assert {2, 313, 334} <= set(theirs["eos"])  # </s>, ### after a newline, ### after a blank

    for checkpoint in (native, tmp_path / "export"):
        findings = verify_checkpoint(checkpoint)
        assert len(findings) == 4 and all(finding.passed for finding in findings)
    again = load_bundle(tmp_path / "export")
    assert generate(again, [prompt], [[Image.open(picture)]], 24)[0].token_ids == ours
