"""Training of an image tower on pictures alone; resumable like a stage, and as free of state.

FOLDER/log.jsonl, FOLDER/checkpoints/vision/step-000200/    while it goes on
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPImageProcessorPil

from exgra_med.data.images import ImageFolder
from exgra_med.data.record import Record
from exgra_med.errors import DataError, TrainingError
from exgra_med.model.build import vision_config
from exgra_med.model.folder import written_whole
from exgra_med.model.processor import clip_image_processor
from exgra_med.progress import Reporter
from exgra_med.recipe.parts import PastedShapesSettings, VisionPart
from exgra_med.recipe.schema import StageSettings
from exgra_med.training.checkpoint import restore_progress, save_progress
from exgra_med.training.log import TrainingLog
from exgra_med.training.objective import seed_number
from exgra_med.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from exgra_med.training.order import plan_epoch
from exgra_med.training.pasted_shapes import PastedShapesModel, draw_shapes

STAGE = "vision"


class Pictures(Dataset[Tensor]):
    """The images of some records, each once, decoded when they are asked for."""

    def __init__(
        self, records: Sequence[Record], images: ImageFolder, processor: CLIPImageProcessorPil
    ) -> None:
        self.names = list(dict.fromkeys(name for each in records for name in each.images))
        self.images, self.processor = images, processor
        for name in self.names:
            images.locate(name)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        image = self.images.open(self.names[index])
        return self.processor([image.convert("RGB")], return_tensors="pt")["pixel_values"][0]


def train_vision(
    part: VisionPart,
    records: Sequence[Record],
    images: ImageFolder,
    work: Path,
    out: Path,
    seed: int,
    reporter: Reporter,
) -> None:
    """Train a tower and write it as a CLIP vision model with its preprocessing.

    Args:
        part: sizes and training.
        records: whose images are learnt from.
        images: where they lie.
        work: folder of log and resumable checkpoints; what is there is gone on with.
        out: the finished tower.
        seed: of weights, order and shapes.
        reporter: told how far it is.

    Raises:
        DataError: no image, or one that cannot be read.
        TrainingError: the loss is not finite.
    """
    processor = clip_image_processor(part.architecture.image_size)
    pictures = Pictures(records, images, processor)
    if not len(pictures):
        raise DataError(f"The split {part.split!r} has no image to train a tower on.")
    torch.manual_seed(seed)
    model = PastedShapesModel(vision_config(part.architecture))
    _train(model, pictures, part.training, work, seed, reporter)
    with written_whole(out) as fresh:
        model.tower.save_pretrained(fresh)
        processor.save_pretrained(fresh)


def _train(
    model: PastedShapesModel,
    pictures: Pictures,
    settings: PastedShapesSettings,
    work: Path,
    seed: int,
    reporter: Reporter,
) -> None:
    schedule = _schedule(settings)
    optimizer = build_optimizer(model.parameters(), schedule)
    folder, log = work / "checkpoints" / STAGE, TrainingLog(work / "log.jsonl")
    done = restore_progress(folder, model, optimizer)
    log.cut_back(STAGE, done)
    total = settings.num_steps
    steps = _steps(len(pictures), settings.batch_size, seed, done, total)
    reporter.start("image tower", total, done)
    for step, pixels in enumerate(DataLoader(pictures, batch_sampler=steps), start=done):
        rate = learning_rate(schedule, step, total)
        set_learning_rate(optimizer, rate)
        stream = torch.Generator().manual_seed(seed_number([seed, step]))
        pasted = draw_shapes(len(pixels), pixels.shape[-1], settings, stream)
        loss = model(pixels + pasted.unsqueeze(1), pasted)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss of the image tower is {value} at step {step}.",
                "Lower its learning rate.",
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        finished = step + 1
        if finished % settings.log_every_steps == 0 or finished == total:
            figures: dict[str, Any] = {"loss": value, "learning_rate": rate}
            log.write(kind="train", stage=STAGE, step=finished, **figures)
        if finished % settings.save_every_steps == 0 and finished < total:
            save_progress(folder, finished, model, optimizer, keep=1)
        reporter.advance(finished, f"loss {value:.4f}")
    reporter.finish()


def _steps(num_images: int, batch_size: int, seed: int, done: int, total: int) -> list[list[int]]:
    """Image numbers of the steps from `done` to `total`, a pure function of the seed."""
    planned: list[list[int]] = []
    epoch = 0
    while len(planned) < total:
        planned += [part for (part,) in plan_epoch(num_images, batch_size, 1, seed, epoch)]
        epoch += 1
    return planned[done:total]


def _schedule(settings: PastedShapesSettings) -> StageSettings:
    """Optimizer and learning rate are those of a stage with the same figures."""
    return StageSettings(
        learn=[],
        learning_rate=settings.learning_rate,
        warmup_fraction=settings.warmup_fraction,
        weight_decay=settings.weight_decay,
    )
