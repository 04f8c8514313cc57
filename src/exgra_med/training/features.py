"""`cache_features: true`: the features of a stage's pictures, computed before its first step."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from exgra_med.errors import RecipeError
from exgra_med.model.any_model import HALF_TOLERANCE, TOLERANCE
from exgra_med.model.batch import StageDataset, to_device
from exgra_med.model.feature_cache import FeatureCache, tower_folder
from exgra_med.recipe.schema import StageSettings
from exgra_med.terminal import Reporter
from exgra_med.training.distributed import autocast
from exgra_med.training.objective import Objective, seed_number

_WITHOUT = "Leave `cache_features` out."


def keep_features(
    objective: Objective,
    stage: StageSettings,
    batches: Iterable[Sequence[int]],
    datasets: Sequence[tuple[StageDataset, Sequence[int]]],
    reporter: Reporter,
) -> dict[str, Any]:
    """Compute the features that are not kept yet, and let the data sets read them from then on.

    Of `batches`, micro-batches of the first data set, the one with the most pictures of a record
    goes through the model with its pictures and with their features. A difference that rounding
    cannot explain is refused: a picture then has other features in a batch than alone.

    Args:
        datasets: data sets with the numbers of the records that will be read.

    Returns:
        `num_images`, `num_computed`, `seconds`, and `difference`, the largest of image vectors and
        hidden states over the largest value; 0.0 means that training is equal bit for bit.

    Raises:
        RecipeError: features of this model cannot be kept.
        DataError: an image cannot be read.
        DiskFullError, WriteError: the cache cannot be written.
    """
    bundle, dataset = objective.bundle, datasets[0][0]
    if any(weight.requires_grad for weight in bundle.tower.parameters()):
        raise RecipeError(
            "`cache_features` is for a frozen tower, and a part of this model's tower is trained "
            "with its connector.",
            _WITHOUT,
        )
    started = time.perf_counter()
    device = bundle.model.device
    cache = FeatureCache(tower_folder(bundle, stage.precision), dataset.images)
    wanted = {
        name: record.id
        for own, numbers in datasets
        for record in (own.records[number] for number in numbers)
        for name in record.images
    }
    with (
        torch.random.fork_rng(),
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),
        autocast(device, stage.precision),
    ):
        objective.train()
        num_computed, difference = 0, 0.0
        probed = max(batches, key=lambda batch: _most_pictures(dataset, batch), default=())
        if _most_pictures(dataset, probed):
            # Before all others: a refusal should not come after an hour.
            for record in (dataset.records[number] for number in probed):
                for name in record.images:
                    num_computed += cache.keep(bundle, name, record.id)
            difference = _difference(objective, dataset, probed, cache)
        _check(stage, bundle.model.config.model_type, difference)
        reporter.start("features of pictures", len(wanted), 0, "pictures")
        for done, (name, where) in enumerate(wanted.items(), 1):
            num_computed += cache.keep(bundle, name, where)
            reporter.advance(done, "")
        reporter.finish()
    for each, _ in datasets:
        each.features = cache
    return {
        "num_images": len(wanted),
        "num_computed": num_computed,
        "difference": difference,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _most_pictures(dataset: StageDataset, numbers: Sequence[int]) -> int:
    return max((len(dataset.records[number].images) for number in numbers), default=0)


def _difference(
    objective: Objective, dataset: StageDataset, numbers: Sequence[int], cache: FeatureCache
) -> float:
    """Between a micro-batch with its pictures and with their features, relative."""
    bundle = objective.bundle

    def encoded(features: FeatureCache | None) -> list[Tensor]:
        dataset.features = features
        batch = dataset.collate([dataset[number] for number in numbers])
        torch.manual_seed(seed_number([0]))  # the same dropout of adapters
        vectors, states = bundle.encode(to_device(batch, bundle.model.device))
        assert vectors is not None
        return [vectors, *states]

    found = [encoded(None)]
    try:
        found.append(encoded(cache))
    except (RuntimeError, ValueError, IndexError):
        # A family that makes other rows of a picture in a batch than alone may stumble over them.
        return float("inf")
    finally:
        dataset.features = None
    return max(
        float((one.float() - other.float()).abs().max() / one.float().abs().max())
        if one.shape == other.shape
        else float("inf")
        for one, other in zip(*found, strict=True)
    )


def _check(stage: StageSettings, kind: str, difference: float) -> None:
    half = stage.precision == "bfloat16"
    if not difference <= (HALF_TOLERANCE if half else TOLERANCE[torch.float32]):
        raise RecipeError(
            f"`cache_features`: a {kind} gives a picture other features in a batch than alone (by "
            f"{difference:.0e}), so they cannot be kept.",
            _WITHOUT,
        )
