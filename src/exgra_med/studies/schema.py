"""The study file: which runs answer a question, and how their numbers are compared."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from exgra_med.recipe.schema import Recipe
from exgra_med.recipe.section import Section

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
    num_bootstrap_samples: Annotated[int, Field(gt=0)] = 2000
    """Resamples of images and seeds behind each interval."""
    seed: int = 0
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
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
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
    scale: str | None = None
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
        for name, method in self.methods.items():
            self._check_match(name, method.match)
        for name, setting in self.settings.items():
            for method in setting.methods or ():
                if method not in self.methods:
                    raise ValueError(f"settings.{name}.methods names {method!r}, no method")
        for axis in (self.fractions, self.seeds):
            if len(set(axis)) < len(axis):
                raise ValueError(f"{axis} has a value twice")
        return self

    def _check_match(self, name: str, match: Match | None) -> None:
        if match is None:
            return
        if match.method not in self.methods or match.method == name:
            raise ValueError(f"methods.{name}.match.method must be another method")
        if self.methods[match.method].match is not None:
            raise ValueError(f"methods.{name}.match.method is itself matched to another one")

    @property
    def stage(self) -> str:
        """The stage whose data the fractions are of."""
        if self.fraction_stage is not None:
            return self.fraction_stage
        stages = self.recipe.stages
        aligned = (name for name, stage in stages.items() if stage.alignment is not None)
        return next(aligned, "")
