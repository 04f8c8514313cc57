"""The shipped schedules against a table typed from the original's scripts, not from the recipes."""

import re
from pathlib import Path

import pytest

from exgra_med.recipe.load import load_recipe, shipped_recipes

# recipe: start, connector of the parts, learning rate, epochs, records a step, nodes of a graph
PRETRAIN = {
    "connector": (None, "none", 2e-3, 1, 128, None),
    "connector-dci": (None, "dci", 2e-3, 1, 128, None),
    "instruct": ("connector", None, 2e-5, 3, 64, None),
    "instruct-dci": ("connector-dci", None, 2e-5, 3, 64, None),
    "aligned": ("connector", None, 2e-5, 3, 64, 16),
    "aligned-dci": ("connector-dci", None, 2e-5, 3, 64, 16),
    "instruct-10": ("connector", None, 2e-5, 3, 64, None),
    "instruct-40": ("connector", None, 2e-5, 3, 64, None),
    "aligned-10": ("connector", None, 2e-5, 3, 64, 16),
    "aligned-40": ("connector", None, 2e-5, 3, 64, 16),
}
# recipe: start, data, learning rate, epochs, batch per GPU (2 GPUs), eval_steps
FINETUNE = {
    "vqa-rad": ("aligned", "vqa-rad", 4e-5, 15, 32, 122),
    "vqa-rad-dci": ("aligned-dci", "vqa-rad", 2e-5, 15, 32, 122),
    "slake": ("aligned", "slake", 4e-5, 15, 64, 116),
    "slake-dci": ("aligned-dci", "slake", 4e-5, 18, 64, 116),
    "pathvqa": ("aligned", "pathvqa", 3e-5, 15, 32, 122),
    "pathvqa-dci": ("aligned-dci", "pathvqa", 2e-5, 15, 32, 122),
    "vqa-rad-aligned-10": ("aligned-10", "vqa-rad", 2e-5, 15, 32, 122),
    "vqa-rad-instruct-10": ("instruct-10", "vqa-rad", 2e-5, 15, 32, 122),
}


@pytest.mark.parametrize("name", PRETRAIN)
def test_pretraining_has_the_originals_schedule(name: str) -> None:
    start, connector, rate, epochs, records_per_step, nodes = PRETRAIN[name]
    recipe = load_recipe(f"pretrain/{name}").recipe
    (stage,) = recipe.stages.values()
    assert recipe.model.start == (f"runs/pretrain/{start}" if start else None)
    assert (recipe.model.parts.connector if recipe.model.parts else None) == connector
    assert (stage.learning_rate, stage.epochs) == (rate, epochs)
    assert stage.batch_size * stage.gradient_accumulation_steps == records_per_step
    assert (stage.batch_size if stage.alignment else None) == nodes
    if stage.alignment:
        settings = stage.alignment
        assert (settings.weight, settings.neighbours, settings.num_layers) == (1.0, 5, 2)
        assert (settings.dropout, settings.noise_scale, settings.perturbation) == (0.1, 0.05, 80)
        assert settings.objective == "barycenter"
    expected = ["connector", "image_tokens"] if "connector" in name else ["connector", "language"]
    assert stage.trainable == expected
    share = {"10": 0.1, "40": 0.4}.get(name.rpartition("-")[2], 1.0)
    assert recipe.stage_data(next(iter(recipe.stages))).fraction == share


@pytest.mark.parametrize("name", FINETUNE)
def test_fine_tuning_has_the_originals_schedule(name: str) -> None:
    start, data, rate, epochs, batch_size, evaluate_every = FINETUNE[name]
    recipe = load_recipe(f"finetune/{name}").recipe
    stage = recipe.stages["vqa"]
    assert recipe.model.start == f"runs/pretrain/{start}"
    assert recipe.data.folder == f"data/{data}"
    assert (stage.learning_rate, stage.epochs, stage.batch_size) == (rate, epochs, batch_size)
    assert stage.batch_size * stage.gradient_accumulation_steps == 2 * batch_size
    assert stage.evaluate_every_steps == evaluate_every
    assert (stage.alignment, stage.trainable) == (None, ["connector", "language"])


FULL_SIZE = [name for name in shipped_recipes() if name.startswith(("pretrain/", "finetune/"))]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_what_all_of_the_originals_scripts_share(name: str) -> None:
    recipe = load_recipe(name).recipe
    (stage,) = recipe.stages.values()
    assert (stage.lr_scheduler, stage.warmup_ratio, stage.weight_decay) == ("cosine", 0.03, 0.0)
    assert (stage.precision, recipe.text.max_length) == ("bfloat16", 2048)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_run_starts_from_the_folder_that_another_recipe_writes(name: str) -> None:
    model = load_recipe(name).recipe.model
    assert model.parts or str(model.start).removeprefix("runs/") in FULL_SIZE


@pytest.mark.parametrize("name", [name for name in FULL_SIZE if name.endswith("lora")])
def test_adapter_recipes_differ_from_their_base_in_the_adapter_and_its_rate(name: str) -> None:
    base, _, kind = name.rpartition("-")
    one, other = (load_recipe(each).recipe for each in (base, name))
    (plain,), (adapted,) = one.stages.values(), other.stages.values()
    assert adapted.lora and plain.lora is None
    assert adapted.lora.quantize == ("nf4" if kind == "qlora" else "none")
    changed = {"lora": None, "learning_rate": plain.learning_rate, "sharding": plain.sharding}
    assert adapted.sharding == ("none" if kind == "qlora" else plain.sharding)
    assert adapted.model_copy(update=changed) == plain


def test_the_reference_page_names_every_recipe_and_its_commands_load() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "reference" / "recipes.md"
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:pretrain|finetune|phantom|small)/[^` ]+|demo|debug/tiny)`", text)
    assert set(named) == set(shipped_recipes())
    for name, assignment in re.findall(r"train (\S+) --set (\S+)", text):
        load_recipe(name, [assignment])
