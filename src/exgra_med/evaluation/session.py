"""One evaluation under way: who answers which questions, into which run folder.

Every task of `tasks/` works on a `Session`, so it does not know whether a checkpoint or a service
answers, and all of them leave the same files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.prepared import Prepared, open_prepared
from exgra_med.data.record import Record
from exgra_med.errors import ExgraMedError, RunError
from exgra_med.evaluation.answers import Prediction, read_predictions
from exgra_med.evaluation.engines import (
    CHECKPOINT,
    ENGINES,
    Engine,
    Progress,
    answer_all,
    launched_processes,
    predict_all,
    stored_template,
)
from exgra_med.evaluation.results import Entry, put_result
from exgra_med.evaluation.run_folder import answers_path, engine_options, open_to_answer
from exgra_med.llm.service import Settings
from exgra_med.progress import Reporter, Silent
from exgra_med.recipe.run_folder import AnsweringRecipe, Run
from exgra_med.recipe.schema import EvaluationSettings


@dataclass
class Session:
    """Who is asked what."""

    run: Run
    engine: Engine
    dataset: str
    split: str
    records: list[Record]
    images: ImageFolder
    fingerprint: str
    """Of the data; part of what decides the answers."""
    data_folder: str
    reporter: Reporter
    prepared: Prepared | None = None
    """Where the questions come from, unless from a bare file."""
    problems: list[str] = field(default_factory=list)
    """Why questions stayed without an answer."""

    @property
    def settings(self) -> EvaluationSettings:
        """How answers are made and scored."""
        return self.run.recipe.evaluation

    @property
    def seed(self) -> int:
        """Of everything random."""
        return self.run.recipe.seed

    @property
    def is_first(self) -> bool:
        """Whether this process scores and tells; the others of a launch only answer."""
        return launched_processes().is_first

    def path(self, task: str) -> Path:
        """The file of answers of a task; see `answers_path`."""
        return answers_path(self.run.path, task, self.dataset, self.split)

    def relative(self, path: Path) -> str:
        """A file of the run as results name it."""
        return path.relative_to(self.run.path).as_posix()

    def ask(
        self,
        task: str,
        title: str,
        records: Sequence[Record] | None = None,
        images: ImageFolder | None = None,
        **about: Any,
    ) -> list[Prediction]:
        """Answers on disk: those of an earlier call, and the ones that were still open.

        Args:
            task: names the file; see `answers_path`.
            title: what a person reads beside the progress bar.
            records: what is asked; the records of the session where absent.
            images: what is shown; the images of the session where absent.
            about: what decides these answers beside engine and data.

        Raises:
            RunError: the file has answers made in another way, or a foreign engine failed.
        """
        asked = self.records if records is None else records
        shown = self.images if images is None else images
        out = self.path(task)

        def work(progress: Progress) -> None:
            problem = answer_all(self.engine, asked, shown, out, self._facts(about), progress)
            if problem:
                self.problems.append(problem)

        self._with_progress(title, len(asked), work)
        return read_predictions(out).predictions if out.exists() else []

    def predict(
        self,
        task: str,
        title: str,
        records: Sequence[Record],
        make: Callable[[Sequence[Record]], list[Prediction]],
        **about: Any,
    ) -> list[Prediction]:
        """As `ask`, for what is no answer but is kept and resumed like one.

        Args:
            task: names the file.
            title: what a person reads beside the progress bar.
            records: what to predict for.
            make: predictions of a batch of records.
            about: what decides them beside engine and data.
        """
        out = self.path(task)
        facts = self.engine.facts | self._facts(about)

        def work(progress: Progress) -> None:
            predict_all(make, records, out, self.engine.batch_size, facts, progress)

        self._with_progress(title, len(records), work)
        return read_predictions(out).predictions if out.exists() else []

    def entry(self, task: str, **values: Any) -> Entry:
        """An entry of the results about this session.

        Args:
            task: name of the task.
            values: further fields of `Entry`, the scores above all.
        """
        files = values.get("answers") or {}
        first = next(iter(files.values()), None)
        template = None if first is None else stored_template(self.run.path / first)
        facts = {name: self.engine.facts.get(name) for name in ("name", "model", "host")}
        common: dict[str, Any] = {
            "dataset": self.dataset,
            "split": self.split,
            "task": task,
            "engine": {name: value for name, value in facts.items() if value is not None},
            "data_folder": self.data_folder,
            "data_fingerprint": self.fingerprint,
            "template": template,
        }
        return Entry.model_validate(common | values)

    def keep(self, entry: Entry) -> Entry:
        """Write an entry into `results.json`."""
        put_result(self.run.path, entry)
        return entry

    def _facts(self, about: dict[str, Any]) -> dict[str, Any]:
        return {"data": self.fingerprint, "split": self.split} | about

    def _with_progress(self, title: str, total: int, work: Callable[[Progress], None]) -> None:
        reporter = self.reporter if self.is_first else Silent()
        reporter.start(title, total, 0)
        try:
            work(lambda done, _: reporter.advance(done, ""))
        except ExgraMedError:
            raise
        except Exception as error:
            if type(self.engine).__module__.startswith("exgra_med."):
                raise
            # An engine of another package: whatever it raises, the user can only mend it there.
            raise RunError(
                f"The engine {type(self.engine).__module__}.{type(self.engine).__name__} failed: "
                f"{type(error).__name__}: {error}.",
                "What was answered is kept; the same call goes on.",
            ) from error
        reporter.finish()


def open_session(
    source: str | Path,
    reporter: Reporter,
    *,
    data: str | None = None,
    split: str | None = None,
    out: Path | None = None,
    template: str | None = None,
    engine: str | None = None,
    service: Settings | None = None,
    max_new_tokens: int | None = None,
) -> Session:
    """Open an evaluation on a prepared folder.

    Args:
        source: a finished run; or, with `out`, a checkpoint or the name of a served model.
        reporter: told how far the answers are.
        data: a prepared folder; the recipe's evaluation data where absent.
        split: a split of it; the recipe's where absent.
        out: the run folder of what is no run; see `open_to_answer`.
        template: chat template, where it is not the model's own.
        engine: a name of `ENGINES`; a checkpoint where absent.
        service: address and limits of an engine that asks a service.
        max_new_tokens: longest answer; the recipe's where absent.

    Raises:
        RunError: the run is not finished, or the folder holds something else.
        DataError: the data cannot be used.
    """
    run = open_to_answer(
        source, engine=engine or CHECKPOINT, data=data, split=split, out=out, template=template
    )
    recipe = run.recipe
    settings = recipe.evaluation_data
    # A folder of answers that is named without --data is asked its own questions again.
    folder = data or settings.folder
    prepared = open_prepared(folder)
    split = split or recipe.evaluation.split
    return Session(
        run=run,
        engine=open_engine(run, service, max_new_tokens),
        dataset=prepared.manifest["dataset"],
        split=split,
        records=prepared.records(split),
        images=prepared.image_folder(settings.max_pixels),
        fingerprint=prepared.fingerprint,
        data_folder=folder,
        reporter=reporter,
        prepared=prepared,
    )


def open_engine(
    run: Run, service: Settings | None = None, max_new_tokens: int | None = None
) -> Engine:
    """The engine of a run.

    Args:
        run: a finished run, or a folder of answers.
        service: address and limits of an engine that asks a service.
        max_new_tokens: longest answer; the recipe's where absent.

    Raises:
        RunError: the run is not finished.
        ServiceError: the service cannot be used.
    """
    recipe = run.recipe
    name = recipe.engine if isinstance(recipe, AnsweringRecipe) else CHECKPOINT
    changes: dict[str, Any] = {"service": service}
    if max_new_tokens is not None:
        changes["max_new_tokens"] = max_new_tokens
    return ENGINES.find(name)(engine_options(run, **changes))
