"""The settings of the alignment: each name, default and limit stands here, once. No torch.

`MultiGraphAlignment` takes this object, and the section `alignment` of a recipe extends it.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from exgra_med.alignment.solvers import SOLVERS
from exgra_med.errors import MatchingError
from exgra_med.section import Count, Section, explain

Effort = Literal["fast", "thorough"]
Scope = Literal["local", "global"]


class AlignmentSettings(Section):
    """Multi-graph alignment; defaults are the original's, or docs/faithfulness.md says why not."""

    objective: Literal[
        "barycenter", "pairwise", "all", "infonce", "siglip", "optimal-transport"
    ] = "barycenter"
    """Which pairs of graphs are matched; the last three are controls without graphs."""
    views: Literal["all", "image-answer", "exchanged"] = "all"
    """Which views are graphs. Two controls: `image-answer` needs no extended answers, and its
    barycenter is the mean of two views; `exchanged` gives every node those of another one."""
    graph: Literal["knn", "full"] = "knn"
    """Which nodes of a view are linked: each with its nearest, or all with all."""
    neighbours: Count = 5
    """Edges that leave each node of a kNN graph."""
    num_layers: Annotated[int, Field(ge=0, le=100)] = 2
    """Graph convolutions before the costs."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Dropout after message passing, in training."""
    noise_scale: Annotated[float, Field(ge=0.0, le=1e6)] = 0.05
    """Scale of the Gumbel noise on node and edge similarities; the original's code has 0.05, the
    paper speaks of Gumbel(0, 1)."""
    perturbation: Annotated[float, Field(ge=1e-6, le=1e6)] = 80.0
    """Factor lambda of the black-box gradient."""
    estimator: Literal["blackbox", "compatible", "imle"] = "blackbox"
    """Gradient through the solver; `compatible` is the original's, which a loss scale distorts;
    `imle` is the mean over `noise_samples`."""
    noise_samples: Count = 1
    """Noise samples of a step, for `imle`."""
    scope: Scope = "local"
    """Graphs of the records of each process, as in the original, or of all processes together."""
    solver: str = "anneal"
    """Matching solver: `anneal`, `local-search`, `exhaustive` (tiny graphs only), or one that
    another package adds."""
    effort: Effort = "fast"
    """How long the solver searches."""

    @property
    def has_extended(self) -> bool:
        """Whether extended answers are one of the views."""
        return self.views != "image-answer"

    @field_validator("solver")
    @classmethod
    def _is_known(cls, name: str) -> str:
        names = SOLVERS.names()
        if name not in names:
            raise ValueError(f"there is no solver of that name; known: {', '.join(names)}")
        return name

    @model_validator(mode="after")
    def _samples_have_an_estimator(self) -> Self:
        if self.noise_samples != 1 and self.estimator != "imle":
            raise ValueError(
                f"`noise_samples: {self.noise_samples}` needs `estimator: imle`; "
                f"`{self.estimator}` takes one sample"
            )
        return self

    @classmethod
    def checked(cls, settings: "AlignmentSettings | None", changes: dict[str, Any]) -> Self:
        """The settings, or the defaults where there are none, with changes by name.

        Raises:
            MatchingError: no setting has such a name, or a value has no meaning.
        """
        given = {} if settings is None else settings.model_dump()
        kept = {name: value for name, value in given.items() if name in cls.model_fields}
        try:
            return cls.model_validate(kept | changes)
        except ValidationError as error:
            message, hint = explain(error, cls)
            raise MatchingError(f"Alignment settings: {message}.", hint) from error
