"""Which device a verb takes, and what it says of it."""

import pytest
import torch
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import CommandError
from exgra_med.model.bundle import choose_device, device_sentence


def with_cards(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    card = torch.device("cuda") if count else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: card)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")


def test_auto_is_the_accelerator_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, 0)
    assert choose_device() == choose_device("auto") == choose_device("cpu") == "cpu"
    with_cards(monkeypatch, 2)
    assert choose_device("auto") == choose_device("cuda") == "cuda"
    assert choose_device("cuda:1") == "cuda:1" and choose_device("cpu") == "cpu"


@pytest.mark.parametrize("wanted", ["cuda:2", "cuda:-1", "mps", "meta", "gpu", "", "cpu:3", "0"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cards(monkeypatch, 2)
    with pytest.raises(CommandError, match="There is no device") as caught:
        choose_device(wanted)
    assert caught.value.hint == "Known: auto, cpu, cuda, cuda:0, cuda:1."


def test_the_device_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert device_sentence("cpu") == "Device: cpu, 1 thread."
    assert device_sentence("cuda:0") == "Device: cuda:0 (a card)."


@pytest.mark.parametrize(
    "words",
    ["chat model", "serve model --server transformers", "web model", "bench step",
     "evaluate graphs run"],
)  # fmt: skip
def test_every_verb_with_a_device_takes_the_best_and_says_so_first(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cards(monkeypatch, 0)
    for wanted, said in (([], "Device: cpu"), (["--device", "cuda"], "")):
        monkeypatch.setattr("exgra_med.lab.benchmarks.step.benchmark_step", lambda *_: exit(0))
        found = CliRunner().invoke(app, [*words.split(), *wanted])
        assert found.stderr.startswith(said)
        if wanted:
            assert "There is no device 'cuda' here." in str(found.exception)
