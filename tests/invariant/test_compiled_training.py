"""Compiled layers through the whole loop: the losses, names and answers of plain ones."""

from pathlib import Path

import pytest
from test_training_invariants import train, weights

from exgra_med.errors import RecipeError
from exgra_med.training.log import read_log
from exgra_med.training.trainable import check_compiling_possible

STAGE = (
    "stages={connector: null, vqa: null}",
    "stages.aligned={max_steps: 4, save_every_steps: null, activation_checkpointing: true}",
)


@pytest.mark.slow
def test_a_compiled_stage_follows_a_plain_one(tmp_path: Path) -> None:
    try:
        check_compiling_possible()
    except RecipeError as error:
        pytest.skip(str(error))
    plain = train(tmp_path / "plain", *STAGE)
    compiled = train(tmp_path / "compiled", *STAGE, "stages.aligned.compile=true")
    one, other = (
        [event["language_loss"] for event in read_log(run.log) if event["kind"] == "train"]
        for run in (plain, compiled)
    )
    assert len(one) == 4
    assert one == pytest.approx(other, rel=1e-4)
    assert weights(plain, "aligned").keys() == weights(compiled, "aligned").keys()
