"""A run that starts from a model of another family: planned, and refused before it is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image
from test_training_estimate import FACTOR, make_stage, saved_bytes
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.records import Prepared, open_prepared
from exgra_med.errors import CheckpointError, MissingExtraError, RecipeError
from exgra_med.model import bundle as bundles
from exgra_med.model import hub
from exgra_med.model.any_model import AnyBundle, Facts
from exgra_med.model.batch import Layout, StageDataset, num_supervised, num_tokens
from exgra_med.model.bundle import load_processor
from exgra_med.model.image_budget import image_cost
from exgra_med.model.lora import adapted_layers
from exgra_med.model.sizes import meta_model, model_config, part_of
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.schema import LoraSettings, ModelSettings, Recipe, TextSettings
from exgra_med.terminal import Silent
from exgra_med.training import estimate
from exgra_med.training.estimate import PlannedModel, estimate_run
from exgra_med.training.memory import activation_bytes, count_parameters, shape_of
from exgra_med.training.objective import TOKENS_PER_CHUNK, Objective
from exgra_med.training.preflight import check_before_training, check_plan, check_start, start_notes
from exgra_med.training.stages import begin_run, train_run
from exgra_med.training.trainable import set_trainable
from families import FAMILIES, NEEDS_TORCHVISION, make

DATA = "data.folder=bundled:vqa-rad-sample"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def saved(name: str, folder: Path) -> Path:
    if name in NEEDS_TORCHVISION:
        pytest.importorskip("torchvision")
    model, processor = make(name)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("gemma3", tmp_path_factory.mktemp("models") / "gemma3")


def recipe_of(start: str | Path, name: str = "finetune/vqa-rad", *more: str) -> Recipe:
    return load_recipe(name, [f"model={{start: {start}, parts: null}}", DATA, *more]).recipe


FEW = ["gemma3", "qwen2_5_vl", "idefics3", "lfm2_vl"]
MANY = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in FEW))
    for name in FAMILIES
    if name != "paligemma"
]


@pytest.mark.parametrize("name", MANY)
def test_the_model_without_memory_has_the_sizes_of_the_real_one(name: str) -> None:
    if name in NEEDS_TORCHVISION:
        pytest.importorskip("torchvision")
    model, processor = make(name)
    bundle, planned = AnyBundle(model, processor), meta_model(model.config)
    parts = ("vision", "connector", "language")
    for part in parts:
        sizes = [each.shape for each in part_of(planned, part)]
        assert sizes == [each.shape for each in bundle.part(part)] and sizes
    lora = LoraSettings(rank=2)
    assert adapted_layers(planned, lora) == adapted_layers(model, lora)
    if name == "qwen2_5_vl":
        names = {id(each): n for n, each in planned.named_parameters()}
        own = [names[id(each)] for each in part_of(planned, "connector")]
        assert own and all("merger" in each for each in own)
    found = count_parameters(planned, make_stage(trainable=["connector", "language"]))
    # A tied head counts once.
    total = sum(each.numel() for each in model.parameters())
    tower = sum(each.numel() for each in bundle.part("vision"))
    assert (found.total, found.tower, found.trainable) == (total, tower, total - tower)
    shape = shape_of(model.config)
    assert (shape.num_layers, shape.width) == (len(model.get_decoder().layers), 32)
    assert (shape.vision_width, shape.vision_inner, shape.vision_layers) == (16, 32, 2)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "idefics3"])
def test_the_formula_of_memory_fits_a_step_of_another_family(sample: Prepared, name: str) -> None:
    if name in NEEDS_TORCHVISION:
        pytest.importorskip("torchvision")
    bundle = AnyBundle(*make(name))
    bundle.facts = Facts(0.0, 0.0, 0.0, None, None, 0.0, 0.0)
    stage = make_stage(trainable=["connector", "language"])
    records, images = sample.records("train")[:60:5], sample.image_folder(10**8)
    data = StageDataset(records, images, bundle, TextSettings(), False, Layout(packed=False))
    batch = data.collate([data[number] for number in range(len(records))])
    mean = PlannedModel(bundle.model.config, bundle.processor).mean(records, images)
    shape = shape_of(bundle.model.config, mean, batch["calls"][0]["input_ids"].shape[1])
    tokens = num_tokens(batch)
    expected = activation_bytes(shape, stage, tokens, batch["num_images"])
    # So small a model has few supervised tokens, whose logits outweigh everything else.
    chunk = min(tokens, TOKENS_PER_CHUNK) - num_supervised(batch)
    expected -= chunk * shape.vocabulary * (4 + 8)
    set_trainable(bundle, stage.trainable)
    measured, _ = saved_bytes(Objective(bundle, None).train(), batch, half=False)
    assert measured / FACTOR <= expected <= measured * FACTOR


def test_a_plan_of_a_folder_follows_its_own_processor(gemma3: Path) -> None:
    (stage,) = estimate_run(recipe_of(gemma3), "h100").stages
    model, _ = make("gemma3")
    assert stage.parameters.total == sum(each.numel() for each in model.parameters())
    assert stage.workload.image.tokens == 4 and stage.workload.counted
    assert stage.num_steps > 0 and stage.memory.total > 1.5e9
    lora = "stages.vqa={lora: {rank: 4, quantize: nf4}, sharding: none}"
    (small,) = estimate_run(recipe_of(gemma3, "finetune/vqa-rad", lora), "h100").stages
    assert 0 < small.parameters.trainable < stage.parameters.trainable
    decoder = meta_model(model.config).get_decoder()
    linear = [m for m in decoder.modules() if isinstance(m, torch.nn.Linear)]
    assert small.parameters.quantized == sum(each.weight.numel() for each in linear)


def test_larger_pictures_cost_more_and_a_budget_costs_less(tmp_path: Path) -> None:
    folder = saved("qwen2_5_vl", tmp_path / "qwen")
    budget = "model.images={max_pixels: 3600}"
    (whole,), (less,) = (
        estimate_run(recipe_of(folder, "finetune/vqa-rad", *more), "h100").stages
        for more in ([], [budget])
    )
    assert less.workload.image.tokens < whole.workload.image.tokens
    assert less.tokens_per_step < whole.tokens_per_step and less.hours < whole.hours
    prepared = open_prepared("bundled:vqa-rad-sample")
    records, images = prepared.records("train")[:30], prepared.image_folder(10**8)
    model, processor = make("qwen2_5_vl")
    planned = PlannedModel(model.config, processor)
    sizes = [images.size(name, each.id) for each in records for name in each.images]
    bundle = AnyBundle(model, processor)
    counted = []
    for size in sizes:
        inputs, _ = bundle.generation_inputs(
            [bundle.prompt(records[0].turns[:1], 1)], [[Image.new("RGB", size)]]
        )
        counted.append(int((inputs["input_ids"] == bundle.image_token_id).sum()))
    assert planned.mean(records, images).tokens == pytest.approx(sum(counted) / len(counted))


def test_what_is_assumed_is_said(gemma3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = " ".join(estimate_run(recipe_of(gemma3), "h100").notes)
    assert "Padding adds 30%" in notes and "4 tokens and 16 patches, the mean" in notes
    facts = Facts(0.0, 0.0, 0.0, "plain", "plain", 0.0, 0.0)
    monkeypatch.setattr(estimate, "known_facts", lambda folder: {"float32": facts})
    assert "Padding adds 5%" in estimate_run(recipe_of(gemma3), "h100").notes[0]

    def absent(place: Path) -> None:
        raise MissingExtraError("The processor of this model", "vlm")

    monkeypatch.setattr(estimate, "load_processor", absent)
    notes = " ".join(estimate_run(recipe_of(gemma3), "h100").notes)
    assert "assumed to have 4 tokens, as it cannot be measured" in notes
    assert "exgra-med[vlm]" in notes


def test_the_command_plans_and_notes_what_has_no_effect(gemma3: Path) -> None:
    start = f"model={{start: {gemma3}, parts: null}}"
    arguments = ["train", "pretrain/connector", "--dry-run", "--set", start, "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)
    (stage,) = found["stages"]
    connector = sum(each.numel() for each in part_of(make("gemma3")[0], "connector"))
    assert stage["parameters"]["trainable"] == connector
    assert any("`image_tokens`" in each for each in found["warnings"])
    assert any("if it is 512 x 512" in each for each in found["assumptions"])


@pytest.mark.parametrize(
    ("assignment", "error", "message"),
    [
        ("text.template=original-simple", RecipeError, "is asked by its own chat template"),
        ("stages.vqa.trainable=[image_tokens]", RecipeError, "nothing would be trained"),
        ("model.expect_connector=dci", CheckpointError, "a connector of its own"),
        ("model.images={tiles: 2}", RecipeError, "resizes every image to 56 x 56"),
    ],
)
def test_settings_that_do_not_go_with_the_model_are_refused(
    gemma3: Path, tmp_path: Path, assignment: str, error: type[Exception], message: str
) -> None:
    recipe = recipe_of(gemma3, "finetune/vqa-rad", assignment)
    with pytest.raises(error, match=message):
        check_before_training(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_found_before_anything_is_loaded(
    gemma3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_before_training(recipe_of(gemma3), tmp_path / "run")

    def absent(*_: object, **__: object) -> None:
        raise ImportError("Qwen2VLVideoProcessor requires the Torchvision library")

    monkeypatch.setattr(bundles.AutoProcessor, "from_pretrained", absent)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    monkeypatch.setattr(bundles, "find_spec", lambda name, *_: None, raising=False)
    with pytest.raises(MissingExtraError) as caught:
        check_before_training(recipe_of(gemma3), tmp_path / "run")
    assert "exgra-med[vlm]" in caught.value.hint


def test_a_processor_that_cannot_ask_is_found_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = saved("paligemma", tmp_path / "paligemma")
    with pytest.raises(CheckpointError, match="no chat template"):
        check_start(recipe_of(folder))


def test_a_budget_is_refused_for_this_projects_own_model() -> None:
    recipe = load_recipe("debug/tiny", ["model.images={max_pixels: 3600}"]).recipe
    with pytest.raises(RecipeError, match=r"resizes every image to \d+ x \d+"):
        check_plan(recipe, 1)


def test_a_hub_name_is_planned_without_its_weights(
    gemma3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def download(name: str, allow_patterns: list[str], **_: object) -> str:
        asked.append(allow_patterns)
        return str(gemma3)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr(hub, "check_hashes", lambda folder: None)
    recipe = recipe_of("someone/gemma", "finetune/vqa-rad")
    assert model_config(recipe.model).model_type == "gemma3"
    check_plan(recipe, 1)
    assert start_notes(recipe) == []
    assert asked and not any("safetensors" in pattern for each in asked for pattern in each)


@pytest.mark.parametrize(("connector", "tokens"), [("mlp", 16), ("pixel-shuffle", 4)])
def test_a_joined_model_is_planned_from_its_parts(
    tmp_path: Path, connector: str, tokens: int
) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2}
    hf.Qwen3Config(**sizes, **heads, vocab_size=99).save_pretrained(tmp_path / "text")
    vision = hf.SiglipVisionConfig(**sizes, **heads, image_size=56, patch_size=14)
    vision.save_pretrained(tmp_path / "vision")
    picture = hf.SiglipImageProcessorPil(size={"height": 56, "width": 56})
    picture.save_pretrained(tmp_path / "vision")
    parts = (
        f"{{language: {tmp_path / 'text'}, vision: {tmp_path / 'vision'}, connector: {connector}}}"
    )
    chosen = [f"model={{start: null, parts: {parts}}}", DATA]
    recipe = load_recipe("finetune/vqa-rad", chosen).recipe
    check_plan(recipe, 1)
    found = estimate_run(recipe, "h100")
    image = found.stages[0].workload.image
    assert (image.tokens, image.patches) == (tokens, 17)
    assert found.start_disk == 4 * found.stages[0].parameters.total
    with pytest.raises(RecipeError, match="to the size of its tower"):
        check_plan(load_recipe("finetune/vqa-rad", [*chosen, "model.images={tiles: 2}"]).recipe, 1)


def test_a_language_model_alone_is_no_start(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="none that reads images and text"):
        model_config(ModelSettings(start=str(tmp_path)))


@pytest.mark.slow
def test_a_checkpoint_keeps_the_budget_it_was_trained_with(tmp_path: Path) -> None:
    folder = saved("idefics3", tmp_path / "idefics3")
    recipe = recipe_of(
        folder,
        "finetune/vqa-rad",
        "model.images={tiles: 1}",
        "stages.vqa={max_steps: 1, batch_size: 2, gradient_accumulation_steps: 1, sharding: none}",
        "stages.vqa={precision: float32, num_held_out_batches: 1, load_best_model_at_end: false}",
    )
    run = begin_run(tmp_path / "run", recipe, resume=False)
    trained = load_processor(train_run(run, Silent()))
    config = make("idefics3")[0].config
    before = image_cost(make("idefics3")[1], config, (600, 600))
    assert image_cost(trained, config, (600, 600)).tokens == 4 < before.tokens
