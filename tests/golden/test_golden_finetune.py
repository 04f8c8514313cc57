"""Imported original -> trained here -> stock export -> plain transformers in another process."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_golden_export import run_as_a_stranger

from exgra_med.data.chat_template import encode_prompt
from exgra_med.data.records import Turn, open_prepared
from exgra_med.model.batch import Layout, StageDataset
from exgra_med.model.bundle import load_bundle
from exgra_med.model.convert.checkpoint import export_checkpoint, import_checkpoint
from exgra_med.model.generate import generate
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run
from exgra_med.recipe.schema import TextSettings
from exgra_med.terminal import Silent
from exgra_med.training.stages import train_run

QUESTION = "Which side is affected?"


@pytest.mark.slow
def test_a_fine_tuned_import_answers_the_same_in_plain_transformers(
    golden: Path, tmp_path: Path
) -> None:
    model, native = golden / "model", tmp_path / "native"
    import_checkpoint(str(model / "checkpoint_dci"), str(model / "clip_tiny"), native)
    settings = [
        f"model={{architecture: null, start: {native}}}",
        "stages={connector: null, vqa: null}",
        "stages.aligned={max_steps: 4, learning_rate: 1e-3, num_held_out_batches: 1}",
        "text.max_length=256",
    ]
    run = start_run(tmp_path / "run", load_recipe("debug/tiny", settings).recipe, resume=False)
    final = train_run(run, Silent())
    bundle = load_bundle(final)
    before = load_bundle(native).model.state_dict()
    moved = {n for n, each in bundle.model.state_dict().items() if not torch.equal(each, before[n])}
    assert any("language_model.layers" in name for name in moved)
    assert any("multi_modal_projector.linear_1" in name for name in moved)
    export_checkpoint(str(final), tmp_path / "export")

    prepared = open_prepared("bundled:vqa-rad-sample")
    text, layout = TextSettings(max_length=256), Layout(packed=False)
    images = prepared.image_folder(10**8)
    data = StageDataset(prepared.records("train")[:20:5], images, bundle, text, False, layout)
    batch = data.collate([data[number] for number in range(len(data))])
    rows = batch["calls"][0]
    inputs = {
        "input_ids": rows["input_ids"],
        "attention_mask": rows["attention_mask"],
        "images": batch["pixel_values"],
    }
    save_file(inputs, tmp_path / "inputs.safetensors")
    with torch.no_grad():
        ours = bundle.model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values=inputs["images"],
        ).logits
    picture = model / "images" / "square.png"
    answer = run_as_a_stranger(
        tmp_path / "export",
        tmp_path / "inputs.safetensors",
        tmp_path / "out.safetensors",
        picture,
        QUESTION,
    )
    theirs = load_file(tmp_path / "out.safetensors")["logits"]
    real = inputs["attention_mask"].bool()
    # Measured: 6.3e-6 of logits up to 5.8; the dense connector is folded.
    assert (theirs - ours)[real].abs().max() <= 2e-5
    prompt = encode_prompt(
        bundle.tokenizer, [Turn(role="user", text=QUESTION)], "exgra", bundle.num_image_tokens, 1
    )
    assert answer["prompt"] == prompt
    token_ids = generate(bundle, [prompt], [[Image.open(picture)]], 24)[0].token_ids
    assert answer["new"][: len(token_ids)] == token_ids
