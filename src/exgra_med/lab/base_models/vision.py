"""Training of an image tower on pictures alone; resumable like a stage, and as free of state.

FOLDER/log.jsonl, FOLDER/checkpoints/vision/step-000200/    while it goes on
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.digests import write_digests
from exgra_med.errors import DataError, TrainingError
from exgra_med.lab.base_models.settings import PastedShapesSettings, VisionPart
from exgra_med.model.build import vision_config
from exgra_med.model.bundle import replace_folder
from exgra_med.model.processor import clip_image_processor
from exgra_med.recipe.schema import StageSettings
from exgra_med.terminal import Reporter
from exgra_med.training.checkpoint import StageProgress, restore_progress, save_progress
from exgra_med.training.log import TrainingLog
from exgra_med.training.objective import seed_number
from exgra_med.training.optimizer import build_optimizer, build_scheduler
from exgra_med.training.order import micro_batches, plan_epoch

# What an image tower learns from pictures without labels: to find shapes pasted into them.
#
# Random blobs, bars, stars and rings are laid over a picture, lighter or darker than what is there.
# From the features of each patch a linear map draws what was pasted in and around that patch, so
# place, size, outline and contrast of small things must be in the features. No text is read, and
# the shapes are not those of any data set.
#
# Shapes: N images, C = 3 channels, H x W pixels, P patches, D width of the tower, S pasted shapes.
#
# Source: restoring corrupted pictures (Zhou et al., Models Genesis, MICCAI 2019) with corruptions
# that look like findings (Li et al., CutPaste, CVPR 2021). Masked patches were tried first and gave
# features that knew modality and region but no lesion (docs/log.md).


LOBES = (0, 2, 3, 4)
"""Lobes of an outline: a disc, a bar, a wedge, a star."""


class PastedShapesModel(nn.Module):
    """The tower that is kept and the linear map that is not."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.tower: Any = CLIPVisionModel(config)
        self.patch_size: int = config.patch_size  # type: ignore
        self.draw = nn.Linear(config.hidden_size, (3 * self.patch_size) ** 2)

    def forward(self, pixels_NCHW: Tensor, pasted_NHW: Tensor) -> Tensor:
        """Mean squared error of the drawn windows, relative to drawing nothing.

        Args:
            pixels_NCHW: pictures with the shapes pasted in.
            pasted_NHW: what was added to every channel.
        """
        features_NPD = self.tower(pixels_NCHW).last_hidden_state[:, 1:]
        wanted_NPX = windows(pasted_NHW, self.patch_size)
        error = (self.draw(features_NPD) - wanted_NPX).square().mean()
        return error / wanted_NPX.square().mean().clamp(min=1e-6)


def windows(values_NHW: Tensor, patch_size: int) -> Tensor:
    """Each patch with the eight around it, [N, P, 9 * patch * patch]; 0 beyond the border."""
    unfolded = nn.functional.unfold(
        values_NHW.unsqueeze(1), 3 * patch_size, padding=patch_size, stride=patch_size
    )
    return unfolded.transpose(1, 2)


def draw_shapes(
    number: int, pixels: int, settings: PastedShapesSettings, generator: torch.Generator
) -> Tensor:
    """What is added to each of `number` pictures, [N, H, W]; shapes that overlap add up."""

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(number, settings.max_shapes, 1, 1, generator=generator)
        return low + (high - low) * drawn

    middle = (torch.arange(pixels) + 0.5) / pixels
    x = middle.view(1, 1, 1, -1) - uniform(0.1, 0.9)
    y = middle.view(1, 1, -1, 1) - uniform(0.1, 0.9)
    radius = uniform(settings.min_radius, settings.max_radius)
    lobes = torch.tensor(LOBES)[(len(LOBES) * uniform(0, 1)).long()]
    angle = torch.atan2(y, x) + uniform(-math.pi, math.pi)
    outline = radius * (1 + 0.55 * (lobes > 0) * torch.cos(lobes * angle))
    distance = torch.hypot(x, y)
    cover = _inside(outline - distance, pixels)
    # Every fourth shape is a ring.
    hole = _inside(0.55 * outline - distance, pixels) * (uniform(0, 1) < 0.25)
    sign = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    level = sign * uniform(settings.min_contrast, settings.max_contrast)
    present = uniform(0, 1) < 0.7
    return (level * present * (cover - hole)).sum(dim=1)


def _inside(depth: Tensor, pixels: int) -> Tensor:
    """How much of a pixel lies inside, from its depth below the outline: 0..1."""
    return (0.5 + depth * pixels).clamp(0, 1)


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
    """Train a tower and write it as a CLIP vision model with its preprocessing; it goes on with the
    log and the checkpoints in `work`.

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
    settings = part.training
    # Optimizer and learning rate are those of a stage with the same figures.
    stage = StageSettings(
        trainable=["vision"],
        **settings.model_dump(include={"learning_rate", "warmup_ratio", "weight_decay"}),
    )
    optimizer = build_optimizer(model.parameters(), stage)
    folder, log = work / "checkpoints" / STAGE, TrainingLog(work / "log.jsonl")
    done = restore_progress(folder, model, optimizer)
    log.cut_back(STAGE, done)
    total = settings.num_steps
    scheduler = build_scheduler(optimizer, stage, total, done)
    size, to_do = settings.batch_size, range(done, total)
    steps = list(micro_batches(partial(plan_epoch, len(pictures), size, 1, seed), to_do, range(1)))
    reporter.start("image tower", total, done, "steps")
    for step, pixels in enumerate(DataLoader(pictures, batch_sampler=steps), start=done):
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
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        rate = float(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        finished = step + 1
        if finished % settings.log_every_steps == 0 or finished == total:
            log.write(kind="train", stage=STAGE, step=finished, loss=value, learning_rate=rate)
        if finished % settings.save_every_steps == 0 and finished < total:
            save_progress(folder, StageProgress(finished, 1, 1), model, optimizer, keep=1)
        reporter.advance(finished, f"loss {value:.4f}")
    reporter.finish()
    with replace_folder(out) as fresh:
        model.tower.save_pretrained(fresh)
        processor.save_pretrained(fresh)
        write_digests(fresh)
