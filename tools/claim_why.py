"""What the alignment of the study `real-small` acts on, and what of it stays in the model.

    PYTHONPATH=src python tools/claim_why.py runs/real-small "start=runs/small/connector" \
        "without alignment=CHECKPOINT" "ExGra-Med=CHECKPOINT" \
        --out benchmarks/results/studies/real-small/why.json

writes the JSON and, beside it, its tables in Markdown. Each checkpoint (the connector's run, and
final checkpoints of cells, which a study keeps with `keep_weights: true`) gets the same held-out
conversations with extended answers, in graphs as in training. Told of each are, means over batches:

* `norm`: length of an embedding, and `weight`: its cosine with the barycenter, by view;
* `own` and `unrelated`: share of nodes that find themselves through the barycenter without noise,
  by view, with the record's own other views and with those of other records. What exceeds the
  second is what the views have in common;
* `image_answer`: rank-1 retrieval of the answer by cosine, as it is and with each view's mean taken
  off, which shows a common structure that lies at another place;
* `pull`: norm of the gradient of the alignment loss and of the language loss on each view, on
  connector, adapters and graph layers, and their cosine on the first two. Adapters are new ones;
* `towards`: for the study's loss and others on the same embeddings, cosine between the step it
  takes and the step that would bring an image and its own answer together (mean cosine of own pairs
  less that of others). 1 is that step itself, 0 has nothing to do with it. Graph layers are new
  ones but for `as trained`; mean over draws of noise.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from exgra_med.alignment.controls import cosines
from exgra_med.alignment.cost import matching_costs
from exgra_med.alignment.diagnostics import NAMES, view_diagnostics
from exgra_med.alignment.loss import MultiGraphAlignment, barycenter
from exgra_med.alignment.matching import solve_matching
from exgra_med.data.records import open_prepared
from exgra_med.files import write_text
from exgra_med.model.batch import Layout, StageDataset
from exgra_med.model.bundle import load_bundle
from exgra_med.recipe.run_folder import git_commit, open_run
from exgra_med.recipe.schema import Recipe
from exgra_med.training.held_out import unrelated
from exgra_med.training.objective import Objective
from exgra_med.training.order import image_groups, plan_epoch
from exgra_med.training.trainable import build_objective

CELL = "cells/exgra-med/0.1/seed-0"
STAGE = "instruct"
RANK_1 = "image_answer/recall_1"


def by_view(alignment: MultiGraphAlignment, views: Sequence[Tensor]) -> list[float]:
    """Share of nodes that find themselves between a view and the barycenter, view by view."""
    with torch.no_grad():
        first, second, edges = alignment.problem_nodes(list(views))
        costs = matching_costs(first, second, edges)
        found = solve_matching(*costs, edges).assignment
    own = (found == torch.arange(found.shape[1])).float().mean(dim=1)
    return own.view(len(views), 2).mean(dim=1).tolist()


def pulls(objective: Objective, losses: dict[str, Tensor], views: list[Tensor]) -> dict[str, Any]:
    """Gradients of both losses, group by group."""
    connector = {id(weight) for weight in objective.bundle.part("connector")}
    learnt = [weight for weight in objective.model.parameters() if weight.requires_grad]
    assert objective.alignment is not None
    groups = {name: [view] for name, view in zip(NAMES, views, strict=True)} | {
        "connector": [each for each in learnt if id(each) in connector],
        "adapters": [each for each in learnt if id(each) not in connector],
        "graph layers": list(objective.alignment.parameters()),
    }
    everything = [each for group in groups.values() for each in group]
    found = {}
    for name, loss in (
        ("alignment", losses["alignment_loss"]),
        ("language", losses["language_loss_sum"] / losses["num_supervised"]),
    ):
        gradients = torch.autograd.grad(loss, everything, retain_graph=True, allow_unused=True)
        whole = iter(
            torch.zeros_like(each) if gradient is None else gradient
            for each, gradient in zip(everything, gradients, strict=True)
        )
        found[name] = {
            group: torch.cat([each.flatten() for each in islice(whole, len(members))])
            for group, members in groups.items()
        }
    told: dict[str, Any] = {
        name: {group: float(gradient.norm()) for group, gradient in of.items()}
        for name, of in found.items()
    }
    told["cosine"] = {
        group: float(torch.cosine_similarity(*(found[name][group] for name in found), dim=0))
        for group in ("connector", "adapters")
    }
    return told


VARIANTS: dict[str, dict[str, Any]] = {
    "barycenter": {},
    "barycenter, views of length 1": {},
    "barycenter, no messages": {"num_layers": 0},
    "pairs of graphs": {"objective": "pairwise"},
    "pairs of graphs, no messages": {"objective": "pairwise", "num_layers": 0},
    "image and answer, no messages": {
        "objective": "pairwise", "views": "image-answer", "num_layers": 0
    },
    "infonce": {"objective": "infonce"},
    "siglip": {"objective": "siglip"},
    "optimal-transport": {"objective": "optimal-transport"},
}  # fmt: skip
DRAWS = 16


def towards(alignment: MultiGraphAlignment, bare: Sequence[Tensor]) -> dict[str, float]:
    """Cosine with the step towards own pairs, for each variant."""
    wanted = _gradient(lambda views: -_margin(views), bare)
    found = {}
    losses = {"as trained": alignment}
    for name, changes in VARIANTS.items():
        torch.manual_seed(0)
        losses[name] = MultiGraphAlignment(bare[0].shape[1], alignment.settings, **changes)
    for name, loss in losses.items():
        loss.train()
        scaled = (
            [torch.nn.functional.normalize(v, dim=1) for v in bare] if "length" in name else bare
        )
        goal = wanted if scaled is bare else _gradient(lambda views: -_margin(views), scaled)
        steps = [
            _gradient(lambda views, loss=loss, draw=draw: loss(*views, generator=draw).loss, scaled)
            for draw in range(DRAWS)
        ]
        step = torch.stack(steps).mean(dim=0)
        found[name] = float(torch.cosine_similarity(step, goal, dim=0))
    return found


def _margin(views: Sequence[Tensor]) -> Tensor:
    similarity = cosines(views[0], views[1])
    own, size = similarity.diagonal(), len(similarity)
    return own.mean() - (similarity.sum() - own.sum()) / (size * (size - 1))


def _gradient(function: Callable[[list[Tensor]], Tensor], at: Sequence[Tensor]) -> Tensor:
    """On image and answer, one after the other."""
    views = [view.clone().requires_grad_() for view in at]
    found = torch.autograd.grad(function(views), views[:2], allow_unused=True)
    whole = zip(views, found, strict=False)
    return torch.cat([(torch.zeros_like(v) if g is None else g).flatten() for v, g in whole])


def look(checkpoint: Path, recipe: Recipe, num_batches: int) -> dict[str, Any]:
    """All of one checkpoint."""
    stage = recipe.stages[STAGE].model_copy(update={"activation_checkpointing": True})
    settings = recipe.stage_data(STAGE)
    prepared = open_prepared(settings.folder)
    bundle = load_bundle(checkpoint)
    graphs = checkpoint / "alignment.safetensors"
    objective = build_objective(
        bundle, stage, graphs if graphs.is_file() else None, torch.device("cpu"), False
    )
    assert settings.held_out_split is not None and objective.alignment is not None
    layout = Layout(
        packed=True,
        tokens_per_row=stage.tokens_per_row,
        max_tokens_per_call=stage.max_tokens_per_call,
    )
    dataset = StageDataset(
        [each for each in prepared.stored(settings.held_out_split) if each.extended],
        prepared.image_folder(settings.max_pixels),
        bundle,
        recipe.text,
        with_alignment=True,
        layout=layout,
    )
    groups = image_groups(dataset.records)
    steps = plan_epoch(len(dataset), stage.batch_size, 1, 0, 0, groups)
    rows: dict[str, list[Any]] = defaultdict(list)
    for number, (part,) in enumerate(steps[:num_batches]):
        objective.eval()
        objective.alignment.train()  # with noise and dropout, as the loss is
        bundle.model.train()  # activations are recomputed in training only; it has no dropout
        losses = objective(dataset.collate([dataset[each] for each in part]), [number])
        views = [losses[f"{name}_view"] for name in NAMES]
        rows["pull"].append(pulls(objective, losses, views))
        bare = [view.detach() for view in views]
        rows["towards"].append(towards(objective.alignment, bare))
        objective.alignment.eval()
        rows["loss"].append(float(losses["alignment_loss"].detach()))
        rows["norm"].append(
            {n: float(v.norm(dim=1).mean()) for n, v in zip(NAMES, bare, strict=True)}
        )
        middle = barycenter(*bare)
        rows["weight"].append(
            {
                n: float(torch.cosine_similarity(v, middle).mean())
                for n, v in zip(NAMES, bare, strict=True)
            }
        )
        for name, these in (("own", bare), ("unrelated", unrelated(*bare))):
            shares = by_view(objective.alignment, these)
            rows[name].append(dict(zip(NAMES, shares, strict=True)))
        image, answer = bare[:2]
        rows["image_answer"].append(
            {
                "as it is": view_diagnostics(image, answer, None)[RANK_1],
                "means off": view_diagnostics(image - image.mean(0), answer - answer.mean(0), None)[
                    RANK_1
                ],
                "chance": 1 / len(image),
            }
        )
        print(checkpoint, number + 1, "of", num_batches, flush=True)
    return {name: mean(each) for name, each in rows.items()} | {"graph_layers": graphs.is_file()}


def mean(rows: Sequence[Any]) -> Any:
    """Mean of numbers, and of the numbers in equal dicts, to four digits."""
    if isinstance(rows[0], dict):
        return {name: mean([row[name] for row in rows]) for name in rows[0]}
    return float(f"{fmean(rows):.4g}")


def tables(found: dict[str, Any]) -> str:
    """What the page of the study shows of it."""
    every = list(found.values())

    def line(title: str, *values: str) -> str:
        return f"| {' | '.join([title, *values])} |"

    def share(value: float) -> str:
        return f"{100 * value:.0f} %"

    def by_name(what: str, told: Callable[[float], str]) -> list[str]:
        return [" / ".join(told(each[what][name]) for name in NAMES) for each in every]

    ratios = [
        [
            each["pull"]["alignment"][g] / each["pull"]["language"][g]
            for g in ("connector", "adapters")
        ]
        for each in every
    ]
    rows = [
        line("", *found),
        line("---", *("--:" for _ in found)),
        line(
            "length of an embedding: image / answer / extended", *by_name("norm", "{:.0f}".format)
        ),
        line("cosine with the barycenter", *by_name("weight", "{:.2f}".format)),
        line("finds itself through the barycenter", *by_name("own", share)),
        line("the same with texts of other records", *by_name("unrelated", share)),
        line(
            "image finds its answer, bare embeddings (chance)",
            *(
                f"{share(e['image_answer']['as it is'])} ({share(e['image_answer']['chance'])})"
                for e in every
            ),
        ),
        line(
            "gradient of the graphs over that of the words: connector / adapters",
            *(" / ".join(map(share, each)) for each in ratios),
        ),
        "",
        line("loss on the same embeddings", *found),
        line("---", *("--:" for _ in found)),
        *(
            line(name, *(f"{each['towards'][name]:.2f}" for each in every))
            for name in every[0]["towards"]
        ),
    ]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    named = dict(each.split("=", 1) for each in given.checkpoints)
    recipe = open_run(given.study / CELL).recipe
    found = {name: look(Path(path), recipe, given.batches) for name, path in named.items()}
    about = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "git_commit": git_commit(),
        "cell_of_the_recipe": CELL,
        "num_batches": given.batches,
        "draws_of_noise": DRAWS,
        "checkpoints": named,
    }
    write_text(given.out, json.dumps({"measured": about, "found": found}, indent=1) + "\n")
    write_text(given.out.with_suffix(".md"), tables(found))
