"""The trainer with the alignment term trains, evaluates, logs, resumes and saves."""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import LlavaForConditionalGeneration, Trainer, TrainingArguments

FOLDER = Path(__file__).parents[2] / "examples"
ALPHA = 0.5


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain, example = load("align_any_model"), load("align_trl")


def collate(rows: list[dict]) -> dict:
    """The batches of the plain loop; the rows only say how many samples."""
    batch = plain.tiny_batch(len(rows))
    return batch["conversation"] | batch["texts"]


def trainer_in(folder: Path, model=None, base=Trainer, **changes):
    torch.manual_seed(0)
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 2,
        "logging_steps": 1,
        "save_steps": 1,
        "remove_unused_columns": False,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return example.aligned_trainer(base, weight=ALPHA, dropout=0.0)(
        model or plain.tiny_model(),
        TrainingArguments(**settings | changes),
        train_dataset=[{"row": number} for number in range(16)],
        eval_dataset=[{"row": number} for number in range(4)],
        data_collator=collate,
    )


def graph_layers(trainer) -> torch.Tensor:
    layers = trainer.model.alignment_adapter.align.message_passing
    return layers.conv1.lin_rel.weight.detach().clone()


def test_it_trains_evaluates_and_logs_once_a_step(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    before = graph_layers(trainer)
    trainer.train()
    assert not torch.equal(graph_layers(trainer), before)
    logged = [row for row in trainer.state.log_history if "alignment_loss" in row]
    assert len(logged) == 2 and all("loss" in row for row in logged)
    trainer.evaluate()
    assert not trainer.alignment_losses, "an evaluation has the loss of the model alone"
    loss, outputs = trainer.compute_loss(trainer.model.eval(), collate([{}] * 4), True)
    assert torch.equal(loss, outputs.loss)


@pytest.mark.parametrize(("tokens", "steps"), [(None, 1), (16, 2)], ids=["trainer", "model"])
def test_the_term_is_divided_once(tmp_path: Path, tokens: int | None, steps: int) -> None:
    trainer = trainer_in(tmp_path)
    trainer.current_gradient_accumulation_steps = 2
    batch = collate([{}] * 4)
    total, outputs = trainer.compute_loss(trainer.model.train(), batch, True, tokens)
    expected = outputs.loss + ALPHA * trainer.alignment_losses[0] / steps
    assert torch.allclose(total, expected)


def test_a_batch_of_texts_alone_adds_nothing(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    batch = collate([{}] * 4)
    del batch["pixel_values"]
    batch["input_ids"] = batch["input_ids"].clamp(max=90)
    loss, outputs = trainer.compute_loss(trainer.model.train(), batch, True)
    assert torch.equal(loss, outputs.loss) and not trainer.alignment_losses


@pytest.mark.slow
def test_a_run_resumes_with_its_graph_layers(tmp_path: Path) -> None:
    first = trainer_in(tmp_path)
    first.train()
    again = trainer_in(tmp_path)
    assert not torch.equal(graph_layers(again), graph_layers(first))
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert torch.equal(graph_layers(again), graph_layers(first))


def test_what_is_saved_loads_as_a_stock_model(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    trainer.save_without_alignment(str(tmp_path / "aligned"))
    _, report = LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "aligned", output_loading_info=True
    )
    assert not report["unexpected_keys"] and not report["missing_keys"]
    assert trainer.model.alignment_adapter is not None


@pytest.mark.slow
def test_adapters_of_peft_do_not_freeze_ours(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=r".*language_model.*\.q_proj", r=2)

    class Wrapping(Trainer):
        """Attaches LoRA by itself, as TRL's does."""

        def __init__(self, model, *args, **kwargs) -> None:
            super().__init__(peft.get_peft_model(model, config), *args, **kwargs)

    trainer = trainer_in(tmp_path, base=Wrapping, save_strategy="no")
    before = graph_layers(trainer)
    trainer.train()
    assert not torch.equal(graph_layers(trainer), before)
    trainer.save_without_alignment(str(tmp_path / "aligned"))
    assert (tmp_path / "aligned" / "adapter_model.safetensors").is_file()
