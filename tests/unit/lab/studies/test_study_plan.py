"""Study files, and the nodes that follow from them."""

import subprocess
import sys
from pathlib import Path

import pytest
from fake_study import STUDY, write_study

from exgra_med.errors import RecipeError, RunError
from exgra_med.lab.studies import schema
from exgra_med.lab.studies.plan import Node, plan_study, with_needs
from exgra_med.lab.studies.schema import (
    Study,
    check_study,
    load_study,
    scales_of,
    shipped_studies,
    study_yaml,
)
from exgra_med.reading import parse_yaml
from exgra_med.recipe.load import load_recipe, shipped_recipes
from exgra_med.recipe.run_folder import differences

FOLDER = Path("runs/try")


def load(place: Path, text: str = STUDY, *assignments: str, scale: str | None = None) -> Study:
    return load_study(str(write_study(place, text)), scale, assignments)


def node(study: Study, name: str) -> Node:
    return {each.id: each for each in plan_study(study, FOLDER)}[name]


def test_the_grid_comes_in_a_fixed_order_behind_what_it_needs(tmp_path: Path) -> None:
    nodes = plan_study(load(tmp_path), FOLDER)
    names = [each.id for each in nodes]
    assert names[:5] == [
        "shared/seed-0", "shared/seed-1", "shared/seed-2",
        "cells/instruct/0.1/seed-0", "cells/instruct/0.1/seed-1",
    ]  # fmt: skip
    assert len(nodes) == 3 + 3 * 3 * 3
    assert names == [each.id for each in plan_study(load(tmp_path), FOLDER)]
    for number, each in enumerate(nodes):
        assert set(each.needs) <= set(names[:number])


def test_one_cell_is_chosen_with_what_it_needs(tmp_path: Path) -> None:
    nodes = plan_study(load(tmp_path), FOLDER)
    name = "cells/equal-tokens/0.4/seed-1"
    chosen = [each.id for each in with_needs(nodes, [name])]
    assert chosen[-1] == name and "shared/seed-1" in chosen and "shared/seed-0" not in chosen
    assert with_needs(nodes, []) == nodes
    with pytest.raises(RunError, match="no node 'cells/nothing'"):
        with_needs(nodes, ["cells/nothing"])


def test_cells_differ_in_what_the_study_says_and_in_nothing_else(tmp_path: Path) -> None:
    study = load(tmp_path)
    one = node(study, "cells/exgra-med/0.1/seed-1").recipe
    other = node(study, "cells/instruct/0.4/seed-1").recipe
    assert one and other
    found = {path for path, _, _ in differences(one, other)}
    assert {path for path in found if not path.startswith("stages.aligned.alignment")} == {
        "name", "description", "stages.aligned.data.fraction",
    }  # fmt: skip
    assert one.stages["aligned"].alignment and other.stages["aligned"].alignment is None
    assert (one.seed, one.stages["aligned"].data.subset_seed) == (1, 1)
    # The fraction is of the instruction data: the fine-tuning sees all of its own.
    assert one.stages["aligned"].data.fraction == 0.1 and one.stages["vqa"].data.fraction == 1.0
    assert list(one.stages) == ["aligned", "vqa"]
    assert one.model.start == "runs/try/shared/seed-1" and one.model.architecture is None


def test_a_method_that_changes_a_shared_stage_gets_its_own_shared_run(tmp_path: Path) -> None:
    text = STUDY.replace(
        "  exgra-med: {title: ExGra-Med}",
        "  exgra-med: {set: {stages.connector.learning_rate: 1e-4}}",
    )
    study = load(tmp_path, text)
    assert node(study, "cells/exgra-med/0.1/seed-0").needs == ("shared/exgra-med/seed-0",)
    assert node(study, "cells/instruct/0.1/seed-0").needs == ("shared/seed-0",)
    own = node(study, "shared/exgra-med/seed-0").recipe
    assert own and own.stages["connector"].learning_rate == 1e-4


BASE = "make: {data: {source: phantom}, base: debug/tiny}\n"


def test_every_run_starts_from_one_base_model_whatever_its_seed(tmp_path: Path) -> None:
    nodes = plan_study(load(tmp_path, STUDY + BASE), FOLDER)
    base = nodes[1]
    assert (base.id, base.kind, base.needs) == ("made/base", "base", ("made/data",))
    assert base.recipe and base.recipe.model.architecture is not None
    assert base.recipe.data.folder == "runs/try/made/data"
    shared = [each for each in nodes if each.kind == "shared"]
    assert len(shared) == 3 and all(each.needs == ("made/data", "made/base") for each in shared)
    assert {each.recipe.model.start for each in shared if each.recipe} == {"runs/try/made/base"}


def test_a_scale_changes_values_of_the_base_models_recipe(tmp_path: Path) -> None:
    text = STUDY + BASE + "scales: {less: {make: {base: {stages: {connector: {max_steps: 3}}}}}}\n"
    study = load(tmp_path, text, scale="less")
    assert study.make.base and study.make.base.stages["connector"].max_steps == 3
    assert load(tmp_path, text).make.base != study.make.base


def test_a_base_model_takes_the_parts_that_are_made(tmp_path: Path) -> None:
    text = STUDY + BASE.replace("base:", "parts: {}, base:")
    base = node(load(tmp_path, text), "made/base")
    assert base.needs == ("made/data", "made/parts")
    assert base.recipe and base.recipe.model.parts
    assert base.recipe.model.parts.vision == "runs/try/made/parts/vision"


def test_what_is_made_takes_the_place_of_the_recipes_folders(tmp_path: Path) -> None:
    text = STUDY + "make: {data: {source: phantom, settings: {num_images: 3}}}\n"
    study = load(tmp_path, text)
    nodes = plan_study(study, FOLDER)
    assert nodes[0].id == "made/data" and nodes[1].needs == ("made/data",)
    recipe = node(study, "cells/instruct/0.1/seed-0").recipe
    assert recipe and recipe.evaluation_data.folder == "runs/try/made/data"
    assert {recipe.stage_data(name).folder for name in recipe.stages} == {"runs/try/made/data"}


def test_settings_vary_the_methods_they_name(tmp_path: Path) -> None:
    text = STUDY + (
        "settings:\n"
        "  alpha-0: {methods: [exgra-med], set: {stages.aligned.alignment.weight: 0.1},"
        " fractions: [0.1]}\n"
    )
    names = [each.id for each in plan_study(load(tmp_path, text), FOLDER)]
    assert [name for name in names if "alpha" in name] == [
        f"cells/exgra-med+alpha-0/0.1/seed-{seed}" for seed in range(3)
    ]
    varied = node(load(tmp_path, text), "cells/exgra-med+alpha-0/0.1/seed-0").recipe
    assert varied and varied.stages["aligned"].alignment.weight == 0.1


def test_scales_and_assignments_change_the_study_and_its_recipe(tmp_path: Path) -> None:
    text = STUDY + (
        "set: {stages.vqa.max_steps: 9}\n"
        "scales: {smoke: {seeds: [7], methods: {equal-tokens: null}, set: {stages: {vqa: "
        "{batch_size: 3}}}}}\n"
    )
    study = load(tmp_path, text, "set.stages.vqa.max_steps=2", "fractions=[0.5]", scale="smoke")
    assert (study.seeds, list(study.methods), study.scale) == (
        [7],
        ["instruct", "exgra-med"],
        "smoke",
    )
    recipe = node(study, "cells/exgra-med/0.5/seed-7").recipe
    assert recipe and (recipe.stages["vqa"].max_steps, recipe.stages["vqa"].batch_size) == (2, 3)
    assert scales_of(str(tmp_path / "try.yaml")) == ["smoke"]


def test_the_resolved_study_reads_back_as_itself(tmp_path: Path) -> None:
    study = load(tmp_path)
    assert check_study(parse_yaml(study_yaml(study), "again"), "again") == study


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("baseline: instruct", "baseline: none"), "which is no method"),
        (("shared: [connector]", "shared: [aligned]"), "must be the first stages"),
        (("fractions:", "fraction:"), "fraction: unknown key. Did you mean `fractions`?"),
        (("recipe: debug/tiny", "recipe: debug/tinny"), "no recipe named 'debug/tinny'"),
        (("method: exgra-med, by", "method: equal-tokens, by"), "must be another method"),
        (("seeds: [0, 1, 2]", "seeds: [0, 0]"), "has a value twice"),
        (("seeds: [0, 1, 2]", "seeds: [-1]"), "seeds.0"),
        (("by: tokens", "by: time"), "by: input should be 'tokens' or 'compute'"),
    ],
)
def test_a_fault_is_one_sentence(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in STUDY
    with pytest.raises(RecipeError) as raised:
        load(tmp_path, STUDY.replace(*change))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_change_of_what_the_recipe_does_not_have_is_refused(tmp_path: Path) -> None:
    study = load(tmp_path, STUDY, "set.stages.instruct.epochs=2")
    with pytest.raises(RecipeError, match="a stage that the recipe does not have"):
        plan_study(study, FOLDER)
    with pytest.raises(RecipeError, match="Did you mean `max_steps`"):
        plan_study(load(tmp_path, STUDY, "set.stages.vqa.max_step=2"), FOLDER)


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_makes_a_plan_at_every_scale(name: str) -> None:
    for scale in (None, *scales_of(name)):
        study = load_study(name, scale)
        assert plan_study(study, FOLDER)
        assert study.description
    assert {"smoke", "full"} <= set(scales_of(name))


ON_MADE_DATA = [name for name in shipped_studies() if load_study(name).make.data]


@pytest.mark.parametrize("dataset", ["vqa-rad", "slake", "pathvqa"])
@pytest.mark.parametrize("name", ON_MADE_DATA)
def test_a_study_goes_to_real_data_and_full_size_by_names_alone(name: str, dataset: str) -> None:
    recipes = f"recipe=[pretrain/connector,pretrain/aligned,finetune/{dataset}]"
    study = load_study(name, None, [recipes, "make=null", "evaluation.splits=[test]"])
    for each in plan_study(study, FOLDER):
        assert each.recipe
        if each.cell is not None:
            assert list(each.recipe.stages) == ["instruct", "vqa"]
            assert each.recipe.evaluation_data.folder == f"data/{dataset}"
            assert each.recipe.stage_data("instruct").folder == "data/llava-med-instruct"
            assert each.recipe.stage_data("instruct").fraction == each.cell.fraction
    shared = next(each for each in plan_study(study, FOLDER) if each.kind == "shared").recipe
    assert shared and shared.model.parts == load_recipe("pretrain/connector").recipe.model.parts


def test_a_study_is_no_recipe() -> None:
    assert not [name for name in shipped_recipes() if "studies" in name]


def test_planning_needs_no_torch(tmp_path: Path) -> None:
    write_study(tmp_path)
    program = (
        "import sys; from pathlib import Path\n"
        "from exgra_med.lab.studies.schema import load_study\n"
        "from exgra_med.lab.studies.plan import plan_study\n"
        "plan_study(load_study(sys.argv[1]), Path('x'))\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    source = Path(__file__).resolve().parents[3] / "src"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "try.yaml")],
        env={"PYTHONPATH": str(source), "PATH": ""},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_field_of_a_study_says_what_it_is() -> None:
    sections = [
        each
        for each in vars(schema).values()
        if isinstance(each, type) and issubclass(each, schema.Section)
    ]
    assert Study in sections
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_an_empty_mapping_that_would_clear_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"`methods=\{\}` would change nothing"):
        load(tmp_path, STUDY, "methods={}")
