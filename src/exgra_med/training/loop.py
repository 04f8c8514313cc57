"""The training loop of one stage, on accelerate. Everything that varies is in the recipe.

    exgra-med train RECIPE --out runs/NAME [--resume]

A run that is killed and resumed ends with the weights of one that was not: bit for bit on the same
number of processes, but for rounding on another. Alignment weight 0 is plain language-model
training, bit for bit. Tests hold both.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from exgra_med.errors import ExgraMedError, TrainingError
from exgra_med.model.batch import Batch, StageDataset, num_supervised, num_tokens, to_device
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.run_folder import Run
from exgra_med.recipe.schema import StageSettings
from exgra_med.terminal import Reporter, waiting_for
from exgra_med.training.checkpoint import (
    StageProgress,
    check_resumable,
    read_progress,
    restore_progress,
    save_progress,
    write_final,
)
from exgra_med.training.distributed import (
    gather_on_main,
    on_cpu,
    resharded_after,
    run_unsharded,
)
from exgra_med.training.features import keep_features
from exgra_med.training.held_out import BestCheckpoint, HeldOut
from exgra_med.training.log import TrainingLog, read_log, start_tracking, tracking
from exgra_med.training.objective import seed_number
from exgra_med.training.optimizer import build_optimizer, build_scheduler, parameter_groups
from exgra_med.training.order import MicroBatches, image_groups, num_steps, plan_epoch
from exgra_med.training.trainable import build_objective

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WITH_GRAPH = "share_with_graph"


class TrainingStopped(ExgraMedError):
    """Training was asked to stop and did, with a checkpoint of its last step if it made one."""

    exit_code = 143
    """What a shell reports for a process that SIGTERM ended; 130 where it was Ctrl-C."""


@contextmanager
def stop_on_signal(at_once: Callable[[], bool] = lambda: False) -> Iterator[list[int]]:
    """Yield a list that SIGTERM or SIGINT is put into; earlier handlers come back afterwards.

    The step in progress is finished and a checkpoint written, so that the run can go on. A second
    Ctrl-C raises KeyboardInterrupt; where there is nothing to finish, `at_once`, the first signal
    does.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        is_first = not asked
        asked.append(number)
        if at_once() if is_first else number == signal.SIGINT:
            raise KeyboardInterrupt

    earlier = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def total_loss(
    stage: StageSettings,
    losses: dict[str, Tensor],
    supervised: Tensor,
    num_accumulated: int,
    num_processes: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the supervised tokens of the whole step, plus the mean of the graphs' losses.

    The two have different divisors on purpose: the tokens of all micro-batches together, against
    one value per graph. DDP and FSDP average gradients over processes, hence the factor.
    `losses` are of one micro-batch, `supervised` are the tokens of the step over all processes, and
    `num_accumulated` its micro-batches on each process.

    Returns:
        The loss to differentiate, and figures that are summed over micro-batches and averaged over
        processes; the same names on each of these, whatever their records are.
    """
    language = losses["language_loss_sum"] * num_processes / supervised
    shown: dict[str, Tensor] = {"language_loss": language.detach()}
    total = language
    if stage.aligned is not None:
        zero = torch.zeros_like(language.detach())
        alignment = losses.get("alignment_loss", zero) / num_accumulated
        shown["alignment_loss"] = alignment.detach()
        accuracy = losses.get("matching_accuracy", zero).float()
        shown["matching_accuracy"] = accuracy / num_accumulated
        shown[_WITH_GRAPH] = zero + ("alignment_loss" in losses) / num_accumulated
        total = total + stage.aligned.weight * alignment
    if stage.auxiliary is not None:
        auxiliary = losses["auxiliary_loss"] / num_accumulated
        shown["auxiliary_loss"] = auxiliary.detach()
        total = total + stage.auxiliary.weight * auxiliary
    return total, {"loss": total.detach()} | shown


def mean_over_graphs(figures: dict[str, float]) -> dict[str, float]:
    """Alignment figures of the micro-batches that had nodes, and none where no one had."""
    share = figures.pop(_WITH_GRAPH, 0.0)
    of_graphs = {"alignment_loss", "matching_accuracy"}
    return {
        key: value / share if key in of_graphs else value
        for key, value in figures.items()
        if share or key not in of_graphs
    }


@dataclass(eq=False, repr=False)
class StageTraining:
    """One stage of a run, from its first step, or its newest checkpoint, to its last.

    `graph_weights` are message-passing weights of an earlier aligned stage, to go on with.
    """

    run: Run
    name: str
    bundle: Bundle
    dataset: StageDataset
    held_out: HeldOut
    reporter: Reporter
    best: BestCheckpoint
    graph_weights: Path | None = None

    def __post_init__(self) -> None:
        run, name, dataset = self.run, self.name, self.dataset
        self.in_steps = False
        """Before them all that is worth keeping is on disk, so that a signal ends them at once:
        features of pictures and the first held-out measure may take half an hour."""
        self.stage = stage = run.recipe.stages[name]
        self.folder = run.stage_folder(name)
        # By its position, so that stages differ in their data order and noise.
        self.seed = [run.recipe.seed, list(run.recipe.stages).index(name)]
        # For generators that take no list.
        self.integer_seed = self.seed[0] * 1000 + self.seed[1]
        # A micro-batch without images leaves the connector without a gradient, and a trainable
        # tower has layers behind those that are read.
        without_images = any(not each.images for each in dataset.records)
        unused = "vision" in stage.trainable or without_images
        ddp = DistributedDataParallelKwargs(find_unused_parameters=unused)
        # Autocast is ours: accelerate allows a process only one precision.
        self.accelerator = Accelerator(
            cpu=on_cpu(), mixed_precision="no", kwargs_handlers=[ddp], **tracking(run, name)
        )
        processes, self.is_main = self.accelerator.num_processes, self.accelerator.is_main_process
        self.sharded = stage.sharding == "full" and processes > 1
        self.log = TrainingLog(run.log, active=self.is_main)
        self.saved = read_progress(self.folder)
        if self.saved is not None:
            check_resumable(self.folder, self.saved, stage, processes)
        self.done = 0 if self.saved is None else self.saved.step
        own = stage.gradient_accumulation_steps * processes
        self.micro_batches = own if self.saved is None else self.saved.micro_batches
        """Micro-batches of a step, over all processes: those of the process count that the stage
        began with, so that another count has the same records in every step."""
        self.num_accumulated = self.micro_batches // processes
        self.total = num_steps(
            len(dataset), stage.batch_size, self.micro_batches, stage.epochs, stage.max_steps
        )

    def train(self) -> Path:
        """Train to the end and write the finished checkpoint, whose folder is returned.

        Raises:
            TrainingError: the loss is not finite.
            TrainingStopped: SIGTERM or Ctrl-C came; the run can go on from here.
        """
        with stop_on_signal(at_once=lambda: not self.in_steps) as stops:
            try:
                return self._train(stops)
            except KeyboardInterrupt:
                if self.in_steps:
                    raise
                where = f"before step {self.done + 1}"
                raise self._stopped(stops, where, "no step is lost") from None
            finally:
                for tracker in self.accelerator.trackers:
                    tracker.finish()

    def _train(self, stops: list[int]) -> Path:
        torch.manual_seed(self.integer_seed)
        self.objective = build_objective(
            self.bundle, self.stage, self.graph_weights, self.accelerator.device, self.sharded
        )
        trainable = [each for each in self.objective.parameters() if each.requires_grad]
        groups = parameter_groups(self.bundle, trainable, self.stage)
        self.optimizer = build_optimizer(groups, self.stage)
        done = restore_progress(self.folder, self.objective, self.optimizer)
        self.scheduler = build_scheduler(self.optimizer, self.stage, self.total, done)
        self.log.cut_back(self.name, done, 0 if self.saved is None else self.saved.num_events)
        self.module: torch.nn.Module = self.objective
        if not self.sharded:
            self.module, self.optimizer = self.accelerator.prepare(self.objective, self.optimizer)
        start_tracking(self.accelerator, self.run, self.name, done)
        if not self.stage.cache_features:
            self.reporter.start(self.name, self.total, done, "steps")
        processes = self.accelerator.num_processes
        # What trains is noted again after a resume only where the number of processes has changed.
        if self.saved is None or self.saved.num_processes != processes:
            event = "resume" if done else "start"
            facts = {"total_steps": self.total, "num_processes": processes}
            facts |= {"sharded": self.sharded}
            self.log.write(kind="stage", stage=self.name, event=event, step=done, **facts)
        batches = self._micro_batches(done)
        if self.stage.cache_features:
            self._keep_features(batches, done)
        if done == 0:
            self._measure(0)
        self.in_steps = True
        loader = iter(self._loader(batches))
        for step in range(done, self.total):
            self._after_step(step + 1, self._step(loader, step))
            self._stop_if_asked(stops, step + 1)
        self.reporter.finish()
        return self._finish()

    def _keep_features(self, batches: MicroBatches, done: int) -> None:
        numbers = sorted({number for batch in batches for number in batch})
        datasets = [(self.dataset, numbers), *self.held_out.read()]
        facts = keep_features(self.objective, self.stage, batches, datasets, self.reporter)
        self.log.write(kind="features", stage=self.name, step=done, **facts)
        self.reporter.start(self.name, self.total, done, "steps")

    def _micro_batches(self, done: int) -> MicroBatches:
        """This process's micro-batches from step `done` on, as record numbers."""
        dataset, stage, state = self.dataset, self.stage, self.accelerator
        plan = partial(
            plan_epoch,
            len(dataset.records),
            stage.batch_size,
            self.micro_batches,
            self.integer_seed,
            group_of=image_groups(dataset.records)
            if stage.distinct_images or stage.questions_per_image > 1
            else None,
            records_of_group=stage.questions_per_image,
            lengths=dataset.lengths() if stage.group_by_length else None,
        )
        own = range(state.process_index, self.micro_batches, state.num_processes)
        return MicroBatches(plan, range(done, self.total), own)

    def _loader(self, batches: MicroBatches) -> DataLoader:
        """The micro-batches, read."""
        dataset, stage = self.dataset, self.stage
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=dataset.collate,
            num_workers=stage.num_workers,
            persistent_workers=stage.num_workers > 0,
        )

    def _step(self, loader: Iterator[Batch], step: int) -> dict[str, float]:
        accelerator, module = self.accelerator, self.module
        started = time.perf_counter()
        batches = [next(loader) for _ in range(self.num_accumulated)]
        images = (each["num_images"] for each in batches)
        own = [map(num_supervised, batches), images, (each["num_nodes"] for each in batches)]
        own = torch.tensor([*map(sum, own)], device=accelerator.device)
        supervised, images, nodes = accelerator.reduce(own)
        module.train()
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            # Dropout of adapters, and noise and dropout of the alignment, are functions of step and
            # micro-batch, whichever process computes it. (The 0 was the number of the process once;
            # it stays, so that trajectories stay.)
            processes = accelerator.num_processes
            seed = [*self.seed, step, number * processes + accelerator.process_index]
            torch.manual_seed(seed_number(seed))
            last = number == len(batches) - 1
            with nullcontext() if last else accelerator.no_sync(module):
                losses = module(to_device(batch, accelerator.device), [*seed, 0])
                loss, shown = total_loss(
                    self.stage, losses, supervised, self.num_accumulated, processes
                )
                self._check_finite(loss, batch, step)
                accelerator.backward(loss)
            for key, value in shown.items():
                sums[key] = sums.get(key, torch.zeros_like(value)) + value
        self.objective.drop_unused_gradients(images=int(images), nodes=int(nodes))
        norm = self._clip()
        # Every process has a copy of the weights and sends only gradients: where new weights are
        # rounded at random, other numbers on each would drive the copies apart.
        torch.manual_seed(seed_number([*self.seed, step]))
        rate = float(self.scheduler.get_last_lr()[0])
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        averaged = {key: float(accelerator.reduce(value, "mean")) for key, value in sums.items()}
        computed = sum(map(num_tokens, batches))
        return mean_over_graphs(averaged) | {
            "learning_rate": rate,
            "gradient_norm": norm,
            "tokens_per_second": round(computed / (time.perf_counter() - started), 1),
        }

    def _check_finite(self, loss: Tensor, batch: Batch, step: int) -> None:
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss of stage {self.name!r} is {float(loss)} at step {step}, "
                f"on the records {', '.join(batch['ids'])}.",
                "Lower the learning rate, or look at these records with `exgra-med data show`.",
            )

    def _clip(self) -> float:
        """Scale the gradients of all shards down to a common norm; returns the norm before."""
        limit = math.inf if self.stage.max_grad_norm is None else self.stage.max_grad_norm
        with_gradient = [each for each in self.objective.parameters() if each.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(with_gradient, limit)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _after_step(self, done: int, figures: dict[str, float]) -> None:
        stage, last = self.stage, done == self.total
        if last or done % stage.log_every_steps == 0:
            epoch = done * stage.epochs / self.total
            self._record("train", done, {"epoch": round(epoch, 4)} | figures)
        if last or (stage.evaluate_every_steps and done % stage.evaluate_every_steps == 0):
            self._measure(done)
        if stage.save_every_steps and done % stage.save_every_steps == 0 and not last:
            self._save(done)
        self.reporter.advance(done, _note(figures))

    def _stop_if_asked(self, stops: list[int], done: int) -> None:
        """All processes stop after the same step, whichever of them was asked."""
        asked = torch.tensor(int(bool(stops)), device=self.accelerator.device)
        if not int(self.accelerator.reduce(asked)) or done == self.total:
            return
        self._save(done)
        raise self._stopped(stops, f"after step {done}", "the checkpoint is written")

    def _stopped(self, stops: list[int], where: str, kept: str) -> TrainingStopped:
        self.reporter.finish()
        stopped = TrainingStopped(
            f"Stopped in stage {self.name!r} {where} of {self.total}; {kept}.",
            "Start the same command again to go on (`train` wants --resume).",
        )
        # A process that was not asked itself says SIGTERM.
        stopped.exit_code = 128 + (stops or [signal.SIGTERM])[0]
        return stopped

    def _save(self, done: int) -> None:
        if self.is_main or self.sharded:
            processes, logged = self.accelerator.num_processes, len(read_log(self.log.path))
            progress = StageProgress(done, self.micro_batches, processes, logged)
            keep = self.stage.keep_checkpoints
            save_progress(self.folder, progress, self.objective, self.optimizer, keep)
        self.accelerator.wait_for_everyone()

    def _measure(self, step: int) -> None:
        if self.held_out.dataset is not None:
            self.reporter.advance(step, "measuring held-out records")
        # Compiled layers are for training: a cache that grows would compile them again and again.
        with torch.compiler.set_stance("force_eager"):
            with resharded_after(self.objective):
                figures = self.held_out.measure(self.objective, self.accelerator.device)
            # On the main process or, with shards, on all of them.
            if self.sharded:
                whole = self.objective, self.accelerator.device, self.stage.precision
                score = self.best.consider(self.bundle, step, partial(run_unsharded, *whole))
            else:
                score = self.best.consider(self.bundle, step) if self.is_main else None
            if score is not None:
                figures["score"] = score
        self.accelerator.wait_for_everyone()
        views = figures.pop("views", None)
        if figures:
            self._record("held_out", step, figures)
        if views:
            self.log.write(kind="views", stage=self.name, step=step, **views)

    def _record(self, kind: str, step: int, figures: dict[str, float]) -> None:
        self.log.write(kind=kind, stage=self.name, step=step, **figures)
        shown = {f"{kind}/{name}": value for name, value in figures.items()}
        self.accelerator.log(shown, step=step)

    def _finish(self) -> Path:
        if self.is_main or self.sharded:
            self.best.restore(self.bundle)
        if self.sharded:
            gather_on_main(self.objective)
        # Before the weights, so that a stage that has these has its whole log.
        self.log.write(
            kind="stage", stage=self.name, event="end", step=self.total, total_steps=self.total
        )
        if self.is_main:
            with waiting_for(f"Writing the weights of stage {self.name!r}"):
                write_final(self.run, self.name, self.bundle, self.objective.alignment)
        self.accelerator.wait_for_everyone()
        return self.run.final(self.name)


def _note(figures: dict[str, float]) -> str:
    kinds = ("language", "alignment", "auxiliary")
    names = {f"{kind}_loss": f"{kind} loss" for kind in kinds}
    parts = [f"{short} {figures[name]:.3f}" for name, short in names.items() if name in figures]
    if "matching_accuracy" in figures:
        parts.append(f"matched {figures['matching_accuracy']:.0%}")
    return "  ".join(parts)
