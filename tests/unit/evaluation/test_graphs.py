"""Graphs of a run: the matching that training measures, drawn without markup of the data."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.errors import RunError
from exgra_med.evaluation.graphs import Graphs, Matched, Moment, aligned_stages, measure_graphs
from exgra_med.evaluation.report.graphs import graphs_fragment, matrix_svg, pair_svg
from exgra_med.model.batch import Layout, StageDataset
from exgra_med.model.bundle import load_bundle, save_bundle
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import Run, start_run
from exgra_med.training.checkpoint import load_alignment, save_alignment
from exgra_med.training.held_out import pair_accuracies, unrelated
from exgra_med.training.objective import Objective
from exgra_med.training.stages import starting_checkpoint

HOSTILE = '<script>alert(1)</script>"><img src=http://evil.example/x>'


def record(number: int) -> Record:
    text = HOSTILE if number == 0 else f"answer {number}"
    turns = [{"role": "user", "text": "What?"}, {"role": "assistant", "text": text}]
    return Record.model_validate(
        {"id": f"made-up/{number}{HOSTILE}", "image": "0.png", "turns": turns, "extended": [text]}
    )


RECORDS = [record(number) for number in range(3)]
PAIR = Matched(
    first=1,
    second=3,
    first_edges=[(0, 1), (1, 0), (1, 2)],
    second_edges=[(2, 0)],
    matches=[0, 2, -1],
    similarity=[[0.9, 0.1, 0.2], [0.3, 0.1, 0.8], [0.0, 0.2, -0.5]],
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return aligned_run(tmp_path_factory.mktemp("graphs") / "run")


def aligned_run(folder: Path, *settings: str) -> Run:
    """A run whose aligned stage changed the model a little, as training would."""
    run = start_run(folder, load_recipe("debug/tiny", settings).recipe, False)
    start = starting_checkpoint(run)
    bundle = load_bundle(start)
    save_bundle(bundle, run.final("connector"))
    torch.manual_seed(1)
    for parameter in bundle.model.model.multi_modal_projector.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    objective = Objective(bundle, run.recipe.stages["aligned"].alignment)
    save_bundle(
        bundle,
        run.final("aligned"),
        lambda folder: save_alignment(objective.alignment, folder),
    )
    return run


def test_the_picture_has_a_line_a_match_and_an_arc_an_edge() -> None:
    svg = ET.fromstring(pair_svg(PAIR, RECORDS, [[""]] * 3, "answers"))
    kinds = [element.get("class") for element in svg.iter() if element.tag == "path"]
    assert kinds.count("match right") == 1 and kinds.count("match wrong") == 1
    arcs = [e.get("d") for e in svg.iter() if e.get("class") == "edge"]
    # An edge and its reverse are one arc.
    assert [arc.count("M") for arc in arcs] == [2, 1]
    assert svg.get("aria-label") == "answers: 1 of 3 matches are right"
    nodes = [e.get("class") for e in svg.iter() if (e.get("class") or "").startswith("node")]
    assert nodes == ["node right", "node wrong", "node none"]


def test_the_matrix_shows_every_cosine_on_one_scale() -> None:
    svg = ET.fromstring(matrix_svg(PAIR, -0.5, 0.9, "similarities"))
    cells = [float(e.get("fill-opacity")) for e in svg.iter() if e.get("class") == "cell"]
    expected = [round((value + 0.5) / 1.4, 2) for row in PAIR.similarity for value in row]
    assert cells == pytest.approx(expected, abs=0.006)
    rings = [e.get("class") for e in svg.iter() if (e.get("class") or "").startswith("ring")]
    assert rings == ["ring right", "ring wrong"]


@pytest.mark.parametrize("graph", [0, 1, 2])
def test_what_a_data_set_says_is_text(graph: int, tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "grey").save(tmp_path / "0.png")
    pair = Matched(graph, 3, [], [], [0, 2, -1], PAIR.similarity)
    levels = {"image_answer/accuracy": 0.0, "image_answer/unrelated": 1 / 3}
    moment = Moment("before", [pair], 1 / 3, 2 / 3, levels)
    graphs = Graphs(
        HOSTILE, HOSTILE, "test", RECORDS, ImageFolder(tmp_path, 100), True, moment, moment, []
    )
    html = graphs_fragment(graphs)
    # The first row is image to answer, bare, beside what unrelated views reach.
    rows = re.findall(r"<tr.*?</tr>", html, re.DOTALL)
    assert [re.sub("<.*?>", " ", row).split() for row in rows[1:3]] == [
        ["image", "↔", "answer", "bare", "embeddings", "0", "0", "33"],
        ["as", "drawn", "below", "through", "graph", "layers", "33", "33", "67"],
    ]
    assert "<script" not in html and "<img" not in html
    assert set(re.findall(r'(?:src|href)="([^"]{10})', html)) <= {"data:image"}


@pytest.mark.parametrize("views", ["all", pytest.param("image-answer", marks=pytest.mark.slow)])
def test_accuracy_is_what_training_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: str
) -> None:
    run = aligned_run(tmp_path / "run", f"stages.aligned.alignment.views={views}")
    graphs = measure_graphs(run, num_nodes=6)
    assert "The model is a toy: it began with random weights." in graphs.notes
    assert len(graphs.after.pairs) == (3 if views == "all" else 2)
    assert graphs.stage == "aligned" and graphs.split == "validation"
    assert len({record.images[0] for record in graphs.records}) == 6
    bundle = load_bundle(run.final("aligned"))
    dataset = StageDataset(graphs.records, graphs.images, bundle, run.recipe.text, True, Layout())
    torch.manual_seed(run.recipe.seed)
    objective = Objective(bundle, run.recipe.stages["aligned"].alignment).eval()
    load_alignment(objective.alignment, run.final("aligned") / "alignment.safetensors")
    with torch.no_grad():
        losses = objective(dataset.collate([dataset[n] for n in range(6)]), [0])
    assert graphs.after.accuracy == pytest.approx(float(losses["matching_accuracy"]))
    names = ("image_view", "answer_view", "extended_view")
    own = [losses[name] for name in names if name in losses][: 3 if views == "all" else 2]
    assert graphs.after.levels == pair_accuracies(*own)
    floor = objective.alignment.matching_accuracy(*(*unrelated(*own), None)[:3])
    assert graphs.after.unrelated == pytest.approx(floor)
    for pair in graphs.before.pairs + graphs.after.pairs:
        assert len(pair.first_edges) == 6 * 5 and len(pair.matches) == 6
    if views != "all":
        # Two views need no extended answers.
        bare = [each.model_copy(update={"extended": None}) for each in graphs.records]
        monkeypatch.setattr("exgra_med.evaluation.graphs.join_by_image", lambda *_: list(bare))
        without = measure_graphs(run, num_nodes=6)
        assert without.after.accuracy == graphs.after.accuracy


@pytest.mark.slow
def test_draws_differ_and_repeat(run: Run) -> None:
    one, again, other = (measure_graphs(run, num_nodes=3, draw=draw) for draw in (0, 0, 1))
    assert one.records == again.records and one.after == again.after
    assert one.records != other.records


def test_a_run_without_alignment_is_a_sentence(run: Run) -> None:
    assert aligned_stages(run) == ["aligned"]
    with pytest.raises(RunError, match="no finished stage 'vqa' that aligns"):
        measure_graphs(run, "vqa")


def test_the_command_writes_one_page(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "graphs.html"
    arguments = ["evaluate", "graphs", str(run.path), "--out", str(out), "--nodes", "3", "--bare"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "after training" in result.stdout
    html = out.read_text(encoding="utf-8")
    assert html.count("<svg") == 12 and "http:" not in html
    assert "Research use only" in html and "Bare embeddings" in html
