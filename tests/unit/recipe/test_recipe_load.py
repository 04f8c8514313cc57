"""Reading recipes: inheritance, assignments, and one sentence for each fault."""

from pathlib import Path

import pytest

from exgra_med.errors import RecipeError
from exgra_med.recipe.load import load_recipe, shipped_recipes
from exgra_med.recipe.schema import (
    EvaluationSettings,
    StageSettings,
    TextSettings,
    check_recipe,
)
from exgra_med.section import RENAMED

BASE = """
name: base
model: {architecture: {language: {hidden_size: 64}}}
data: {folder: somewhere}
stages:
  first: {trainable: [connector], learning_rate: 1e-4}
  second: {trainable: [language], learning_rate: 2e-5, alignment: {weight: 1}}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def test_a_number_without_a_dot_is_a_number(base: Path) -> None:
    assert load_recipe(str(base)).recipe.stages["first"].learning_rate == 1e-4


def test_assignments_win_over_extends_and_the_origin_is_known(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = base.with_name("child.yaml")
    child.write_text("extends: base.yaml\nname: child\nstages: {first: {epochs: 2}}\n")
    monkeypatch.setenv("EXGRA_MED_SET", "seed=3; stages.first.batch_size=4")
    loaded = load_recipe(str(child), ["seed=4", "stages.second.alignment=null"])
    first = loaded.recipe.stages["first"]
    assert (first.epochs, first.batch_size, loaded.recipe.seed) == (2.0, 4, 4)
    assert loaded.recipe.stages["second"].alignment is None
    assert list(loaded.recipe.stages) == ["first", "second"]
    assert loaded.origins["stages.first.epochs"] == "child.yaml"
    assert loaded.origins["stages.first.learning_rate"] == "base.yaml"
    assert loaded.origins["stages.first.batch_size"] == "EXGRA_MED_SET"
    assert loaded.origins["seed"] == "--set"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stages.second.alignment.weigth=2", "stages.second.alignment.weigth: unknown key"),
        ("stages.first.choose=last", "`choose` is now `load_best_model_at_end`."),
        ("stages.first.epoch=2", "Did you mean `epochs`?"),
        ("model.architecture.language.hidden=3", "Did you mean `hidden_size`?"),
        ("stages.third.epochs=1", "there is no stage 'third'"),
        ('stages.first.epochs="3"', "stages.first.epochs: input should be a valid number"),
        ("stages.first.batch_size=0", "greater than 0"),
        ("seed=-3", "greater than or equal to 0"),
        ("seed=4294967296", "less than 4294967296"),
        ("stages.first.batch_size=true", "stages.first.batch_size"),
        ("model.start=x", "exactly one of `start`, `architecture` and `parts`"),
        ("stages.first.lora={}", "`lora` needs `language`"),
        ("stages.first.trainable=[]", "nothing would be trained"),
        ("seed", "not of the form a.b=value"),
        ("seed=[1", "not valid YAML"),
        ("stages.first.lr_scheduler=cosin", "'linear', 'cosine', 'constant'"),
        ("stages.second.alignment.solver=best", "known: anneal, local-search, exhaustive"),
        ("stages.second.alignment.graph=tree", "stages.second.alignment.graph: input should be"),
        ("stages.second.alignment.neighbours=0", "stages.second.alignment.neighbours"),
        ("stages.second.alignment.noise_samples=3", "needs `estimator: imle`"),
        ("stages.first.learning_rate=.inf", "finite number"),
    ],
)
def test_a_fault_is_one_sentence_with_its_path(base: Path, assignment: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(base), [assignment])
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_stage_takes_from_the_recipe_what_its_data_does_not_say(base: Path) -> None:
    loaded = load_recipe(
        str(base), ["data.fraction=0.5", "stages.first.data.split=other", "stages.second.data=null"]
    )
    first, second = (loaded.recipe.stage_data(name) for name in ("first", "second"))
    assert (first.folder, first.split, first.fraction) == ("somewhere", "other", 0.5)
    assert second == loaded.recipe.data == loaded.recipe.evaluation_data
    assert check_recipe(loaded.recipe.model_dump(), "again") == loaded.recipe


def test_a_stage_that_is_null_is_left_out(base: Path) -> None:
    assert list(load_recipe(str(base), ["stages.second=null"]).recipe.stages) == ["first"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("stages={}", "stages"),
        ("stages.second.alignment={}", "stages.second.alignment"),
        ("stages={first: {}}", "stages.first"),
    ],
)
def test_an_empty_mapping_over_settings_is_refused_as_it_takes_nothing_away(
    base: Path, text: str, where: str
) -> None:
    with pytest.raises(RecipeError, match="takes nothing away") as refused:
        load_recipe(str(base), [text])
    assert f"`{where}={{}}`" in str(refused.value)


@pytest.mark.parametrize("text", ["rates=null", "rates.connector=null", "rates={connector: null}"])
def test_null_takes_away_what_a_base_says(base: Path, text: str) -> None:
    text = text.replace("rates", "stages.first.learning_rates")
    given = ["stages.first.learning_rates.connector=0.5", "text.max_length=99"]
    assert load_recipe(str(base), given).recipe.stages["first"].learning_rates == {"connector": 0.5}
    recipe = load_recipe(str(base), [*given, text, "text=null"]).recipe
    assert recipe.stages["first"].learning_rates == {}
    assert recipe.text == TextSettings()


def test_an_empty_mapping_gives_a_section_its_defaults_where_there_was_none(base: Path) -> None:
    recipe = load_recipe(str(base), ["stages.second.lora={}"]).recipe
    assert recipe.stages["second"].lora is not None


def test_alignment_of_one_record_at_a_time_is_refused(base: Path) -> None:
    one = "stages.second.batch_size=1"
    with pytest.raises(RecipeError, match=r"stages\.second.*`batch_size` of 2 or more"):
        load_recipe(str(base), [one])
    load_recipe(str(base), ["stages.first.batch_size=1"])
    for setting in ("alignment.weight=0", "alignment.scope=global", "alignment=null"):
        load_recipe(str(base), [f"stages.second.{setting}", one])


def test_a_circle_of_extends_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\nname: a\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nname: b\n")
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(str(tmp_path / "a.yaml"))


def test_a_key_that_stands_twice_is_refused(base: Path) -> None:
    base.write_text(BASE + "name: again\n")
    with pytest.raises(RecipeError, match="stands twice"):
        load_recipe(str(base))


def test_an_unknown_name_lists_the_shipped_recipes() -> None:
    with pytest.raises(RecipeError, match="demo"):
        load_recipe("nowhere")


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_describes_itself(name: str) -> None:
    recipe = load_recipe(name).recipe
    assert recipe.name == name
    assert recipe.description


def test_every_objective_and_choice_of_views_of_the_schema_is_implemented() -> None:
    from typing import get_args

    from exgra_med.alignment.controls import CONTROLS
    from exgra_med.alignment.loss import PAIRS, VIEWS
    from exgra_med.recipe.schema import StageAlignment

    fields = StageAlignment.model_fields
    assert get_args(fields["objective"].annotation) == (*PAIRS, *CONTROLS)
    assert get_args(fields["views"].annotation) == tuple(VIEWS)


def test_every_old_key_answers_with_a_key_that_exists() -> None:
    known = {*StageSettings.model_fields, *EvaluationSettings.model_fields}
    for old, new in RENAMED.items():
        assert new in known and old not in known
        with pytest.raises(RecipeError, match="unknown key") as caught:
            load_recipe("debug/tiny", [f"stages.vqa.{old}=1"])
        assert f"`{old}` is now `{new}`." in caught.value.hint
