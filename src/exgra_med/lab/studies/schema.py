"""The study file: which runs answer a question, and how their numbers are compared."""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from exgra_med.digests import read_yaml_document
from exgra_med.errors import RecipeError, RunError
from exgra_med.reading import read_yaml, write_yaml
from exgra_med.recipe.load import find_file, load_recipe, parse_assignment
from exgra_med.recipe.schema import Recipe, check_recipe
from exgra_med.section import Section, Seed, explain

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Changes = dict[str, Any]
"""Dotted path in the recipe -> value; null removes a section."""


class MadeData(Section):
    """Data that the study makes before its first run."""

    source: str
    """Name of a maker, such as `phantom`."""
    settings: dict[str, Any] = Field(default={})
    """What the maker is asked for."""


class Make(Section):
    """What is made before the first run."""

    data: MadeData | None = None
    """A prepared folder; takes the place of the recipe's `data.folder` in every stage."""
    parts: dict[str, Any] | None = None
    """Settings of a language model and a vision tower, trained on that data; the model of the
    recipe is then joined from them."""
    base: Recipe | None = None
    """In a file: name or path of a recipe. It is run once, from the parts where there are any, and
    every run of the study starts from its last checkpoint."""


class Match(Section):
    """A control that gets the budget of another method, whatever its own recipe says."""

    method: Name
    """The method whose budget is taken, at the same fraction and seed."""
    by: Literal["tokens", "compute"]
    """Tokens that pass through the language model, or floating-point operations."""


class Method(Section):
    """One way to train, as changes of the recipe."""

    title: str = ""
    """Name in tables and figures."""
    set: Changes = Field(default={})
    """What it changes in the recipe."""
    match: Match | None = None
    """Budget of the fraction's stage, where it is another method's."""
    fractions: list[Share] | None = None
    """Fractions this method is run at; all of the study's where absent."""


class Setting(Section):
    """A variation of methods, for ablations."""

    title: str = ""
    """Name in tables and figures."""
    set: Changes = Field(default={})
    """What it changes in the recipe, after the method's own changes."""
    methods: list[Name] | None = None
    """Methods that are varied; all where absent."""
    fractions: list[Share] | None = None
    """Fractions this setting is run at; the method's where absent."""


class StudyEvaluation(Section):
    """What the finished runs are asked."""

    splits: list[str] = Field(default=["test"], min_length=1)
    """Splits that are answered; the first one is compared."""
    also: list[str] = Field(default=[])
    """Prepared folders whose `test` split every run answers, too: further outcomes."""
    also_after: Name | None = None
    """Stage after which these are asked; the last one where absent. What a later stage is trained
    on may push out what they ask for."""
    conditions: list[Literal["blank", "noise", "shuffled"]] = Field(default=[])
    """Pictures that the questions of every compared test are also asked with: what the score loses
    by each is an outcome, see `evaluation.tasks.reliance`."""
    num_bootstrap_samples: Annotated[int, Field(gt=0)] = 2000
    """Resamples of images and seeds behind each interval."""
    seed: Seed = 0
    """Seed of resamples and permutations."""


class PublishedCurve(Section):
    """Published numbers that are printed beside the study's, never mixed with them."""

    dataset: str = "vqa-rad"
    """Whose published curve."""
    methods: dict[Name, str] = Field(default={})
    """Method of the study -> model of the publication."""


class Study(Section):
    """A grid of runs: methods x settings x fractions x seeds of one recipe."""

    name: Name
    """The study's folder is called so where none is given."""
    description: str = ""
    """The question, in one or two sentences."""
    recipe: Recipe
    """In a file: name or path of a recipe, or a list of recipes whose stages follow one another."""
    make: Make = Make()
    """What is made before the first run: data, base model."""
    shared: list[str] = Field(default=[])
    """First stages of the recipe that do not differ between methods: trained once per seed."""
    set: Changes = Field(default={})
    """Changes of the recipe for all methods."""
    methods: dict[Name, Method] = Field(min_length=1)
    """What is compared, by name: changes of the recipe."""
    fractions: list[Share] = Field(default=[1.0], min_length=1)
    """Shares of the training data of `fraction_stage`; each lies inside the larger ones."""
    fraction_stage: str | None = None
    """Stage whose data the fractions are of; the first one with alignment where absent."""
    seeds: list[Seed] = Field(default=[0], min_length=1)
    """Seeds of weights, order, noise and of the subset."""
    settings: dict[Name, Setting] = Field(default={})
    """Further changes, each of which some or all methods are run under."""
    baseline: Name
    """The method that all others are compared with."""
    metric: str = Field(default="vqa.strict.average", pattern=r"^vqa\.(strict|legacy)\.\w+$")
    """Path of the score in the runs' `results.json`."""
    evaluation: StudyEvaluation = StudyEvaluation()
    """Which splits are answered, and how often images and seeds are drawn anew."""
    published: PublishedCurve | None = None
    """Numbers of a paper, shown beside the study and never compared with it."""
    keep_weights: bool = True
    """Keep the checkpoints of cells that are scored; at full size they are terabytes."""
    scale: Name | None = None
    """The scale that was chosen."""

    @model_validator(mode="after")
    def _names_exist(self) -> "Study":
        stages = list(self.recipe.stages)
        if self.baseline not in self.methods:
            raise ValueError(f"`baseline` is {self.baseline!r}, which is no method")
        if self.shared != stages[: len(self.shared)]:
            raise ValueError(f"`shared` must be the first stages of the recipe, {stages}")
        if len(self.shared) == len(stages):
            raise ValueError("`shared` leaves no stage to the methods")
        if self.stage not in stages[len(self.shared) :]:
            raise ValueError(f"`fraction_stage` must be one of {stages[len(self.shared) :]}")
        if self.evaluation.also_after not in (None, *stages[len(self.shared) :]):
            raise ValueError(f"`evaluation.also_after` must be one of {stages[len(self.shared) :]}")
        for name, match in ((name, each.match) for name, each in self.methods.items()):
            if match is None:
                continue
            if match.method not in self.methods or match.method == name:
                raise ValueError(f"methods.{name}.match.method must be another method")
            if self.methods[match.method].match is not None:
                raise ValueError(f"methods.{name}.match.method is itself matched to another one")
        for name, setting in self.settings.items():
            for method in setting.methods or ():
                if method not in self.methods:
                    raise ValueError(f"settings.{name}.methods names {method!r}, no method")
        for axis in (self.fractions, self.seeds):
            if len(set(axis)) < len(axis):
                raise ValueError(f"{axis} has a value twice")
        return self

    @property
    def stage(self) -> str:
        """The stage whose data the fractions are of."""
        if self.fraction_stage is not None:
            return self.fraction_stage
        stages = self.recipe.stages
        aligned = (name for name, stage in stages.items() if stage.alignment is not None)
        return next(aligned, "")


STUDY_FILE = "study.yaml"


def shipped_studies() -> dict[str, Path]:
    """Name to file of every study in the package, sorted by name."""
    root = Path(str(resources.files("exgra_med.recipes"))) / "studies"
    return {path.stem: path for path in sorted(root.glob("*.yaml"))}


def load_study(
    name_or_path: str, scale: str | None = None, assignments: Iterable[str] = ()
) -> Study:
    """Load a study: its file, then the scale, then the assignments; its recipe is read whole.

    Args:
        name_or_path: name of a shipped study, or a YAML file.
        scale: one of its named scales.
        assignments: `a.b=value` texts, applied last; `set.a.b=value` changes the recipe.

    Raises:
        RecipeError: no such study or scale, an unknown key, a value out of range, a bad recipe.
    """
    path = _find(name_or_path)
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a study is a mapping of names to values.")
    scales = _scales(values.pop("scales", None), path)
    made = values.get("make")
    if isinstance(made, dict) and isinstance(made.get("base"), str):
        # Read where it is named, so that a scale can change its values.
        base = load_recipe(made["base"]).recipe.model_dump(mode="json")
        values |= {"make": made | {"base": base}}
    if scale is not None:
        if scale not in scales:
            known = ", ".join(scales) or "none"
            raise RecipeError(f"{path.name}: there is no scale {scale!r}.", f"Scales: {known}.")
        values = _merged(values, scales[scale]) | {"scale": scale}
    for text in assignments:
        values = _merged(values, parse_assignment(values, text, "--set"))
    values["recipe"] = _recipe_values(values.get("recipe"), path.name).model_dump(mode="json")
    return check_study(values, path.name)


def scales_of(name_or_path: str) -> list[str]:
    """Names of the scales of a study."""
    path = _find(name_or_path)
    values = read_yaml(path)
    return list(_scales(values.get("scales"), path)) if isinstance(values, dict) else []


def _scales(values: Any, path: Path) -> dict[str, dict[str, Any]]:
    """Name of each scale -> what it changes."""
    scales = {} if values is None else values
    if not isinstance(scales, dict) or not all(
        isinstance(each, dict | None) for each in scales.values()
    ):
        raise RecipeError(f"{path.name}: `scales` is a mapping of names to changes of the study.")
    return {name: each or {} for name, each in scales.items()}


def check_study(values: dict[str, Any], where: str) -> Study:
    """Check plain data against the schema; `recipe` is a whole recipe.

    Raises:
        RecipeError: the first fault, with its path and a near name where there is one.
    """
    for section in ("methods", "settings"):
        if isinstance(values.get(section), dict):
            kept = {key: each for key, each in values[section].items() if each is not None}
            values = values | {section: {key: _flattened(each) for key, each in kept.items()}}
    for key in ("make", "settings", "set"):
        if values.get(key, "") is None:
            values = {name: each for name, each in values.items() if name != key}
    try:
        return Study.model_validate(_flattened(values))
    except ValidationError as error:
        message, hint = explain(error, Study)
        raise RecipeError(f"{where}: {message.replace('recipe: value error, ', '')}.", hint) from (
            error
        )


def study_yaml(study: Study) -> str:
    """The study with its recipe and every value written out."""
    return write_yaml(study.model_dump(mode="json"))


def read_study(folder: Path) -> Study:
    """The study that a folder holds.

    Raises:
        RunError: there is none.
        RecipeError: it is none that this version can read.
        DamagedFileError: it is not what was written.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        raise RunError(
            f"{folder} is not a study folder: it has no {STUDY_FILE}.",
            "Make one with `exgra-med study run NAME --out FOLDER`.",
        )
    values = read_yaml_document(path, again=f"Write it anew: exgra-med study show NAME > {path}")
    if not isinstance(values, dict):
        raise RunError(f"{path}: not a study.")
    return check_study(values, str(path))


def _find(name_or_path: str) -> Path:
    return find_file(name_or_path, shipped_studies(), "study")


def _recipe_values(named: Any, where: str) -> Recipe:
    """One recipe from its name, from a list of names, or from its own values."""
    if isinstance(named, dict):
        return check_recipe(named, f"{where}: recipe")
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not names or not all(isinstance(each, str) for each in names):
        raise RecipeError(f"{where}: `recipe` must name a recipe, or a list of recipes.")
    loaded = [load_recipe(each).recipe for each in names]
    return loaded[0] if len(loaded) == 1 else _chained(loaded, where)


def _chained(recipes: list[Recipe], where: str) -> Recipe:
    """Recipes that follow one another, as pretraining and fine-tuning do, as a single one.

    The model is the first one's, evaluation and its data are the last one's; every stage keeps its
    own data.
    """
    first, last = recipes[0], recipes[-1]
    stages: dict[str, Any] = {}
    for recipe in recipes:
        if recipe.text != first.text:
            raise RecipeError(
                f"{where}: {recipe.name} and {first.name} have different `text` settings.",
                "One run has one chat template and one longest conversation.",
            )
        for name, stage in recipe.stages.items():
            if name in stages:
                raise RecipeError(f"{where}: the stage {name!r} is in two of the recipes.")
            stages[name] = stage.model_dump(mode="json")
    return check_recipe(
        first.model_dump(mode="json", include={"seed", "model", "text"})
        | last.model_dump(mode="json", include={"data", "evaluation"})
        | {
            "name": "/".join(recipe.name.replace("/", "-") for recipe in recipes),
            "description": "; then: ".join(recipe.description for recipe in recipes),
            "stages": stages,
        },
        where,
    )


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            flat = key == "set"
            value = _flat(before, "") | _flat(value, "") if flat else _merged(before, value)
        merged[key] = value
    return merged


def _flattened(section: Any) -> Any:
    """A section whose `set` has dotted paths, however it was written."""
    if not isinstance(section, dict) or not isinstance(section.get("set"), dict):
        return section
    return section | {"set": _flat(section["set"], "")}


def _flat(values: dict[str, Any], at: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        here = f"{at}.{key}" if at else str(key)
        flat |= _flat(value, here) if isinstance(value, dict) and value else {here: value}
    return flat
