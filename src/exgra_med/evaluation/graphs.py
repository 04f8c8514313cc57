"""The graphs of a few records and how they are matched, before and after a stage that aligns.

What training sees as a batch of numbers, as something to draw: nodes, kNN edges, the matching that
was found, the similarities it came from. Nothing is chosen by how well it looks: the records are
drawn from the held-out split by a seed.

Shapes: B records = nodes of each graph, P directed problems, D features.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from exgra_med.alignment.controls import CONTROLS
from exgra_med.alignment.cost import matching_costs, similarities
from exgra_med.alignment.matching import solve_matching
from exgra_med.data.conversation import join_by_image
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, open_prepared
from exgra_med.errors import RunError
from exgra_med.model.batch import Layout, StageDataset, to_device
from exgra_med.model.bundle import load_bundle
from exgra_med.recipe.run_folder import Run, is_toy
from exgra_med.recipe.schema import StageAlignment
from exgra_med.training.checkpoint import load_alignment
from exgra_med.training.held_out import pair_accuracies, unrelated
from exgra_med.training.objective import Objective, pool_views
from exgra_med.training.stages import starting_checkpoint

GRAPHS = ("image", "answer", "extended answer", "barycenter")
MOST_NODES = 16
"""More nodes cannot be told apart in a picture."""


@dataclass(frozen=True, slots=True)
class Matched:
    """One pair of graphs, matched from the first to the second."""

    first: int
    """Number in `GRAPHS`."""
    second: int
    first_edges: list[tuple[int, int]]
    """kNN edges of the first graph: the node that asks, the neighbour it found."""
    second_edges: list[tuple[int, int]]
    matches: list[int]
    """For each node of the first graph the node it was given, -1 for none."""
    similarity: list[list[float]]
    """Cosines: row of the first graph, column of the second, after message passing if there was."""

    @property
    def num_right(self) -> int:
        """Nodes that were given their own partner."""
        return sum(match == node for node, match in enumerate(self.matches))


@dataclass(frozen=True, slots=True)
class Moment:
    """The graphs at one checkpoint."""

    title: str
    pairs: list[Matched]
    accuracy: float
    """Share of right matches over all directed problems, as these pairs were matched."""
    unrelated: float
    """The same where no node has two views of one record."""
    levels: dict[str, float]
    """What bare embeddings find by themselves, and what unrelated ones do: see
    `pair_accuracies`."""


@dataclass(frozen=True)
class Graphs:
    """What there is to draw of a run's stage."""

    run: str
    stage: str
    split: str
    records: list[Record]
    images: ImageFolder
    message_passing: bool
    before: Moment
    after: Moment
    notes: list[str]


def aligned_stages(run: Run) -> list[str]:
    """Finished stages of a run that align, in their order."""
    return [
        name
        for name, stage in run.recipe.stages.items()
        if stage.alignment is not None and run.final(name).is_dir()
    ]


def measure_graphs(
    run: Run,
    stage: str | None = None,
    num_nodes: int = 8,
    draw: int = 0,
    message_passing: bool = True,
    device: str = "cpu",
) -> Graphs:
    """Embed a few records with the stage's first and last checkpoint, and match their graphs.

    Args:
        run: a run with a finished stage that aligns.
        stage: its name; the last such stage where absent.
        num_nodes: B, from 2 to 16; fewer where the split has fewer images.
        draw: number of the draw of records.
        message_passing: match what the stage's graph layers make of the embeddings, as training
            did, and not the bare embeddings.
        device: where the models go, one after the other.

    Raises:
        RunError: there is no such stage, or its start is gone.
        DataError, CheckpointError: data or model cannot be read.
    """
    stages = aligned_stages(run)
    if not stages or (stage is not None and stage not in stages):
        wanted = "that aligns" if stage is None else f"{stage!r} that aligns"
        raise RunError(
            f"The run {run.path.name} has no finished stage {wanted}.",
            f"It has {', '.join(stages) or 'none'}; alignment is a setting of a stage.",
        )
    name = stage or stages[-1]
    settings = run.recipe.stages[name].alignment
    assert settings is not None, "aligned_stages lists stages with alignment only"
    split, records = _records(run, name, settings, max(2, min(num_nodes, MOST_NODES)), draw)
    data = run.recipe.stage_data(name)
    images = open_prepared(data.folder).image_folder(data.max_pixels)
    notes = []
    if is_toy(run.path):
        notes.append("The model is a toy: it began with random weights.")
    if settings.objective in CONTROLS:
        notes.append(
            f"This stage was trained with the control {settings.objective}, which matches no "
            "graphs; the bare embeddings are matched here with the barycenter all the same."
        )
        settings = StageAlignment(views=settings.views, pooling=settings.pooling)
        message_passing = False
    folders = {"before": _start_of(run, name), "after": run.final(name)}
    moments = [
        _moment(run, name, settings, folder, title, records, images, message_passing, device)
        for title, folder in folders.items()
    ]
    return Graphs(
        run=run.path.resolve().name,
        stage=name,
        split=split,
        records=records,
        images=images,
        message_passing=message_passing,
        before=moments[0],
        after=moments[1],
        notes=notes,
    )


def _records(
    run: Run, stage: str, settings: StageAlignment, num: int, draw: int
) -> tuple[str, list[Record]]:
    """Records with different images and all that the views need: held out, else training."""
    data = run.recipe.stage_data(stage)
    prepared = open_prepared(data.folder)
    splits = [each for each in (data.held_out_split, data.split) if each is not None]
    for split in splits:
        joined = join_by_image(prepared.records(split), data.questions_per_record)
        usable = [
            record
            for record in joined
            if record.images and (record.extended or not settings.has_extended)
        ]
        random.Random(draw).shuffle(usable)
        by_image = {record.image_group: record for record in reversed(usable)}
        if len(by_image) >= 2:
            chosen = [record for record in usable if by_image[record.image_group] is record]
            return split, chosen[:num]
    if not settings.has_extended:
        raise RunError(f"No split of {data.folder} has two records with different images.")
    raise RunError(
        f"No split of {data.folder} has two images with extended answers.",
        "Generate them with `exgra-med captions generate`.",
    )


def _start_of(run: Run, stage: str) -> Path:
    stages = list(run.recipe.stages)
    place = stages.index(stage)
    if place:
        folder = run.final(stages[place - 1])
    elif run.recipe.model.start is None:
        folder = run.stage_folder("start") / "final"
    else:
        folder = starting_checkpoint(run)
    if not folder.is_dir():
        raise RunError(
            f"What stage {stage!r} started from is gone: there is no {folder}.",
            "Keep the checkpoint before an aligned stage to see the graphs before training.",
        )
    return folder


@torch.no_grad()
def _moment(
    run: Run,
    stage: str,
    settings: StageAlignment,
    folder: Path,
    title: str,
    records: Sequence[Record],
    images: ImageFolder,
    message_passing: bool,
    device: str,
) -> Moment:
    bundle = load_bundle(folder, device=device)
    layout = Layout(packed=settings.pooling == "tokens")
    with_extended = settings.has_extended
    dataset = StageDataset(records, images, bundle, run.recipe.text, True, layout, with_extended)
    # Before training, the graph layers are those that the stage's seed draws.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.recipe.seed)
        objective = Objective(bundle, settings).to(device).eval()
    weights = folder / "alignment.safetensors"
    assert objective.alignment is not None
    if message_passing and weights.is_file():
        load_alignment(objective.alignment, weights)
    batch = to_device(
        dataset.collate([dataset[number] for number in range(len(records))]), torch.device(device)
    )
    images_KD, states = bundle.encode(batch)
    assert images_KD is not None, "only records with an image are chosen"
    views = pool_views(batch, images_KD, states)[: objective.alignment.num_views]
    shown = _match(objective, settings, views, message_passing)
    floor = _match(objective, settings, unrelated(*views), message_passing)
    levels = pair_accuracies(*views)
    return Moment(title, shown[::2], _share_right(shown), _share_right(floor), levels)


def _match(
    objective: Objective, settings: StageAlignment, views: list[torch.Tensor], message_passing: bool
) -> list[Matched]:
    """Every directed problem, solved without noise or dropout."""
    alignment = objective.alignment
    assert alignment is not None
    first, second, edges = alignment.problem_nodes(views, message_passing)
    found = solve_matching(
        *matching_costs(first, second, edges), edges, solver=settings.solver, effort=settings.effort
    )
    cosines, _ = similarities(first, second, edges)
    lists = [
        [(int(asks), int(found_)) for asks, found_ in each.T.tolist() if asks >= 0]
        for each in edges.cpu()
    ]
    number = {pair: place for place, pair in enumerate(alignment.pairs)}
    return [
        Matched(
            first=one,
            second=two,
            first_edges=lists[place],
            second_edges=lists[number[two, one]],
            matches=found.assignment[place].tolist(),
            similarity=cosines[place].tolist(),
        )
        for place, (one, two) in enumerate(alignment.pairs)
    ]


def _share_right(pairs: Sequence[Matched]) -> float:
    return sum(pair.num_right for pair in pairs) / sum(len(pair.matches) for pair in pairs)
