"""What every part of a recipe is made of, and how one that is wrong is explained."""

import difflib
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
LARGEST = 1e9
"""Beyond what anybody wants, and products of two still lie far inside single precision."""
Positive = Annotated[float, Field(gt=0.0, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0.0, le=LARGEST)]
Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What every generator takes: numpy refuses negative ones, its old one also more than 32 bits."""


class Section(BaseModel):
    """Base of every part of a recipe: frozen, finite, and no unknown key passes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _null_takes_away(cls, values: Any) -> Any:
        """A section or mapping that is null has its default: so a recipe drops what its base
        says."""
        if not isinstance(values, dict):
            return values
        droppable = {
            name
            for name, field in cls.model_fields.items()
            if isinstance(field.default, dict | Section)
        }
        return {
            name: value
            for name, value in values.items()
            if value is not None or name not in droppable
        }


def without_nulls(value: Any) -> Any:
    """A mapping without the entries that are null: so a recipe drops single ones."""
    if not isinstance(value, dict):
        return value
    return {name: each for name, each in value.items() if each is not None}


RENAMED = {
    "learn": "trainable",
    "learn_prompts": "train_on_prompts",
    "accumulation_steps": "gradient_accumulation_steps",
    "schedule": "lr_scheduler",
    "warmup_fraction": "warmup_ratio",
    "max_gradient_norm": "max_grad_norm",
    "choose": "load_best_model_at_end",
}
"""Keys of earlier versions and what they are called now, for the hint alone."""

SYNONYMS = {"k": "neighbours", "knn": "neighbours", "lambda": "perturbation", "alpha": "weight"}
"""The letters of papers, which are spelt like nothing here; for the hint alone."""


def explain(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """The first fault that pydantic found, as a message and a hint."""
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"]]
    where = ".".join(path) or "recipe"
    if fault["type"] != "extra_forbidden":
        text = fault["msg"].removeprefix("Value error, ")
        value = fault["input"]
        got = f"Got {value!r}." if isinstance(value, str | int | float | bool) else ""
        return f"{where}: {text[:1].lower()}{text[1:]}", got
    known = _fields_at(model, path[:-1])
    if RENAMED.get(path[-1]) in known:
        return f"{where}: unknown key", f"`{path[-1]}` is now `{RENAMED[path[-1]]}`."
    near = [SYNONYMS.get(path[-1], "")]
    if near[0] not in known:
        near = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"Did you mean `{near[0]}`?" if near else f"Known here: {', '.join(known)}."
    return f"{where}: unknown key", hint


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the fields of the section at `path`."""
    here: Any = model
    for key in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = _section(here.model_fields[key].annotation)
        else:
            # The values of a dictionary, or the items of a list.
            here = _section(get_args(here)[-1])
    return list(here.model_fields)


def _section(annotation: Any) -> Any:
    """The section inside `Section | None`, or the mapping type itself."""
    if get_origin(annotation) in (Union, UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation
