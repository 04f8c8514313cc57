"""One evaluation under way: who answers which questions, into which run folder.

Every task of `tasks/` works on a `Session`, so it does not know whether a checkpoint or a service
answers, and all of them leave the same files.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exgra_med.data.chat_template import chat_template
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Prepared, Record, file_sha256, open_prepared
from exgra_med.digests import read_yaml_document
from exgra_med.errors import DamagedFileError, DataError, ExgraMedError, RunError
from exgra_med.evaluation.answers import (
    Prediction,
    Question,
    QuestionsAside,
    answered_ids,
    read_predictions,
)
from exgra_med.evaluation.engines import (
    CHECKPOINT,
    ENGINES,
    Engine,
    EngineOptions,
    Progress,
    ServiceEngine,
    answer_all,
    check_facts,
    launched_processes,
    predict_all,
    stored_adapted,
    stored_template,
)
from exgra_med.evaluation.results import Entry, put_result
from exgra_med.llm.request import adapted_sentence
from exgra_med.llm.service import ServiceSettings
from exgra_med.reading import inside, short, stray
from exgra_med.recipe.run_folder import (
    RECIPE,
    RECORD,
    AnsweringRecipe,
    Run,
    is_run_folder,
    open_run,
    own_template,
    start_run,
    unchecked,
)
from exgra_med.recipe.schema import DataSettings, EvaluationSettings, ModelSettings, TextSettings
from exgra_med.terminal import Reporter, Silent

# A finished run keeps its answers in its own folder. A checkpoint, a served model or an engine of
# another package gets a folder of the same kind, a run without stages, so that scores, reports and
# comparisons read it as any other.


def open_to_answer(
    source: str | Path,
    *,
    engine: str = CHECKPOINT,
    data: str | None = None,
    split: str | None = None,
    out: Path | None = None,
    template: str | None = None,
    service: ServiceSettings | None = None,
) -> Run:
    """Open the run that answers, or start one for what is no run.

    Args:
        source: a finished run; or, where `data` or `out` is given, a checkpoint (folder or name, of
            a run the last one), or the name of a model at the engine's service.
        engine: a name of `ENGINES`.
        data: the prepared folder to answer; the first one of a new folder is its own.
        split: a split of it.
        out: the run folder of the answers: new, or of an earlier call with the same source; of what
            is no run `runs/NAME` where absent.
        template: name of the chat template, where it is not the model's own.
        service: address and limits of an engine that asks a service.

    Raises:
        RunError: there is no run, its folder holds something else, no such engine.
        CheckpointError: there is no checkpoint.
        ServiceError: the service cannot be used.
        DataError: there is no such template.
    """
    if template is not None:
        chat_template(template)
    make_engine = ENGINES.find(engine)
    if engine != CHECKPOINT and template is not None:
        raise RunError("A served model writes the prompt itself.", "Leave out --template.")
    is_run = data is None or (Path(source) / RECIPE).is_file()
    if engine == CHECKPOINT and out is None and is_run:
        run = _open_finished(Path(source))
    else:
        if engine != CHECKPOINT:
            # Making an engine is cheap; what it refuses is said before there is a folder.
            make_engine(EngineOptions(model=str(source), service=service))
        run = _open_answers(str(source), engine, data, split, out or _own_folder(str(source)))
    if template is None:
        return run
    text = run.recipe.text.model_copy(update={"template": template})
    return replace(run, recipe=run.recipe.model_copy(update={"text": text}))


def _open_finished(path: Path) -> Run:
    if (path / "config.json").is_file() and not is_run_folder(path):
        raise RunError(
            f"{path} is a checkpoint, and nothing says which questions are asked.",
            "Give the questions with --data PREPARED_FOLDER.",
        )
    if not (path / "recipe.yaml").is_file():
        raise RunError(
            f"{path} is not a run folder: it has no recipe.yaml.",
            "Name a finished run, or a checkpoint with --data PREPARED_FOLDER.",
        )
    run = open_run(path)
    # Says what to do where there is no checkpoint that could answer.
    _ = run.last_checkpoint
    return run


def _own_folder(source: str) -> Path:
    """Where the answers of a checkpoint or a served model go by themselves."""
    name = re.sub(r"[^\w.-]+", "-", Path(source).name).strip(".-")
    return Path("runs") / (name or "answers")


def _open_answers(source: str, engine: str, data: str | None, split: str | None, out: Path) -> Run:
    processes = launched_processes()
    template = TextSettings().template
    if engine == CHECKPOINT:
        from exgra_med.model.bundle import is_native, local_folder

        checkpoint = local_folder(source)
        is_native(checkpoint)  # says what the folder is, where that is no checkpoint
        template = own_template(checkpoint)
        source = str(checkpoint)
    if processes.is_first:
        _start(source, engine, template, data, split, out)
    processes.wait()
    return open_run(out)


def _start(
    source: str, engine: str, template: str, data: str | None, split: str | None, out: Path
) -> None:
    """Make the folder, or see that the one there is of the same model.

    A folder without any answer, such as a wrong name of the model leaves, is begun anew.
    """
    if (out / "recipe.yaml").is_file():
        earlier = open_run(out)
        if not isinstance(earlier.recipe, AnsweringRecipe):
            raise RunError(f"{out} holds a trained run.", "Name another folder with --out.")
        known = (earlier.recipe.engine, str(earlier.recipe.model.start))
        if known == (engine, source):
            return
        if engine == CHECKPOINT == known[0] and Path(known[1]).resolve() == Path(source).resolve():
            return
        with earlier.writing():
            if any(file.stat().st_size for file in (out / "predictions").rglob("*.jsonl")):
                raise RunError(
                    f"{out} holds answers of {known[1]}.", "Name another folder with --out."
                )
            # Empty files, and how their answers would have been made; then what makes it a run.
            shutil.rmtree(out / "predictions", ignore_errors=True)
            (out / RECIPE).unlink()
            (out / RECORD).unlink(missing_ok=True)
    if data is None:
        raise RunError("Nothing says which questions are asked.", "Give --data PREPARED_FOLDER.")
    shown = re.sub(r"[^a-z0-9_./-]+", "-", out.name.lower()).lstrip("_./-") or "answers"
    recipe = AnsweringRecipe(
        name=shown,
        description=f"Answers of {source}.",
        model=ModelSettings(start=source),
        engine=engine,
        data=DataSettings(folder=data),
        text=TextSettings(template=template),
        evaluation=EvaluationSettings(split=split or "test"),
    )
    start_run(out, recipe, resume=False)


def read_recipe(run: Path) -> dict[str, Any]:
    """The resolved recipe of a run, as plain values, so that runs of other versions can be read.

    Raises:
        RunError: the folder is no run, or its recipe is not YAML.
    """
    path = run / RECIPE
    if not path.is_file():
        raise RunError(
            f"{run}: not a run folder, there is no recipe.yaml.", "Name a folder that a run made."
        )
    recipe = read_yaml_document(path, RunError)
    if not isinstance(recipe, dict):
        raise RunError(f"{path}: not a recipe.")
    return recipe


def answered_questions(
    run: Path, entry: Entry, data_folder: str | None = None
) -> tuple[Sequence[Question], ImageFolder]:
    """Questions and images of an entry, from where it says that they lie or from `data_folder`.

    Raises:
        DataError: the prepared folder is not there, was changed, or is another data set.
        RunError: the folder is no run.
    """
    recipe = read_recipe(run)
    evaluation = recipe.get("evaluation") or {}
    data = evaluation.get("data") or recipe.get("data") or {}
    prepared = open_prepared(data_folder or entry.data_folder or str(data.get("folder")))
    found = prepared.manifest["dataset"]
    if found != entry.dataset:
        raise DataError(
            f"{run.name} answered {entry.dataset}, and the folder named for it holds {found}.",
            f"Give the prepared folder of {entry.dataset} with --data.",
        )
    max_pixels = int(data.get("max_pixels") or DataSettings(folder="").max_pixels)
    questions = QuestionsAside.of(prepared.iterate(entry.split))
    return questions, prepared.image_folder(max_pixels)


def answers_path(run: Path, task: str, dataset: str, split: str) -> Path:
    """Where a run keeps answers; further answers of a task are named as `reliance/blank`."""
    name = f"predictions/{task}/{dataset}/{split}.jsonl"
    return inside(run, name, f"{run}: the file {short(name)}", RunError, "the run folder")


def answers_file(run: Path, entry: Entry, asked: str = "questions") -> Path:
    """The file of answers behind an entry.

    Raises:
        RunError: the entry names a file outside the run.
    """
    name = entry.answers.get(asked, "")
    if stray(name):
        raise RunError(
            f"{run}: results.json names no file of answers for {entry.label}.",
            "Answer and score again with `exgra-med evaluate`.",
        )
    return inside(run, name, f"{run}: the file {short(name)}", RunError, "the run folder")


def stored_answers(run: Path, entry: Entry, asked: str = "questions") -> Sequence[Prediction]:
    """The answers behind an entry, which are those that were scored.

    Raises:
        RunError: the entry names a file outside the run.
        DataError: the file is gone.
        DamagedFileError: it is not what was written, or not what was scored.
    """
    file = answers_file(run, entry, asked)
    predictions = read_predictions(file).predictions
    if entry.answers_sha256.get(asked, "") not in ("", file_sha256(file)):
        raise DamagedFileError(
            f"{file} has other answers than those that were scored: its SHA-256 differs.",
            "Evaluate again; what is answered is kept, and the scores are made anew.",
        )
    return predictions


@dataclass
class Session:
    """Who is asked what."""

    run: Run
    engine: Engine
    dataset: str
    split: str
    records: Sequence[Record]
    images: ImageFolder
    fingerprint: str
    """Of the data; part of what decides the answers."""
    data_folder: str
    reporter: Reporter
    prepared: Prepared | None = None
    """Where the questions come from, unless from a bare file."""
    problems: list[str] = field(default_factory=list)
    """Why questions stayed without an answer, and that nothing could be checked."""

    def __post_init__(self) -> None:
        if said := unchecked(self.run.path):
            self.problems.append(said)

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

    def check(self, task: str, records: Sequence[Record] | None = None, **about: Any) -> None:
        """Refuse before the first question what would stop `ask` at a later one.

        Raises:
            RunError: the file has answers made in another way.
            DataError: a picture of a question that has no answer yet is not there.
        """
        out = self.path(task)
        check_facts(out, self.engine.facts | self._facts(about))
        done = answered_ids(out)
        for record in self.records if records is None else records:
            for name in record.question_images if record.id not in done else ():
                self.images.locate(name, record.id)

    def ask(
        self,
        task: str,
        title: str,
        records: Sequence[Record] | None = None,
        images: ImageFolder | None = None,
        **about: Any,
    ) -> Sequence[Prediction]:
        """Answers on disk: those of an earlier call, and the ones that were still open.

        Records and images are those of the session where absent. `about`: what decides these
        answers beside engine and data.

        Raises:
            RunError: the file has answers made in another way, or a foreign engine failed; another
            process writes the run.
        DamagedFileError: stored answers are not what was written.
        """
        asked = self.records if records is None else records
        shown = self.images if images is None else images

        def work(out: Path, progress: Progress) -> None:
            problem = answer_all(self.engine, asked, shown, out, self._facts(about), progress)
            found = [problem] if problem else []
            if adapted := stored_adapted(out):
                found.append(adapted_sentence(adapted, str(self.engine.facts["model"])))
            # Several files of one evaluation say the same.
            self.problems.extend(each for each in found if each not in self.problems)

        return self._with_progress(task, title, len(asked), work)

    def predict(
        self,
        task: str,
        title: str,
        records: Sequence[Record],
        make: Callable[[Sequence[Record]], list[Prediction]],
        **about: Any,
    ) -> Sequence[Prediction]:
        """As `ask`, for what is no answer but is kept and resumed like one."""
        facts = self.engine.facts | self._facts(about)

        def work(out: Path, progress: Progress) -> None:
            predict_all(make, records, out, self.engine.batch_size, facts, progress)

        return self._with_progress(task, title, len(records), work)

    def entry(self, task: str, **values: Any) -> Entry:
        """An entry of the results about this session; `values` are further fields of `Entry`."""
        files = values.get("answers") or {}
        first = next(iter(files.values()), None)
        template = None if first is None else stored_template(self.run.path / first)
        facts = {name: self.engine.facts.get(name) for name in ("name", "model", "host")}
        if isinstance(self.engine, ServiceEngine):
            facts["decoding"] = self.engine.facts["decoding"]
            stored = [stored_adapted(self.run.path / file) for file in files.values()]
            facts["adapted"] = {k: v for each in stored for k, v in each.items()} or None
        return Entry(
            dataset=self.dataset,
            split=self.split,
            task=task,
            engine={name: value for name, value in facts.items() if value is not None},
            data_folder=self.data_folder,
            data_fingerprint=self.fingerprint,
            template=template,
            **values,
        )

    def keep(self, entry: Entry) -> Entry:
        """Write an entry into `results.json`, and give it as it stands there."""
        kept = put_result(self.run.path, entry).results
        return next(each for each in kept if each.key == entry.key)

    def _facts(self, about: dict[str, Any]) -> dict[str, Any]:
        return {"data": self.fingerprint, "split": self.split} | about

    def _with_progress(
        self, task: str, title: str, total: int, work: Callable[[Path, Progress], None]
    ) -> Sequence[Prediction]:
        out = self.path(task)
        reporter = self.reporter if self.is_first else Silent()
        is_begun = False

        def tell(done: int, _: int) -> None:
            nonlocal is_begun
            if is_begun:
                reporter.advance(done, "")
            else:
                # What was answered earlier is no part of the rate.
                reporter.start(title, total, done, "questions")
                is_begun = True

        try:
            with self.run.writing():
                work(out, tell)
        except ExgraMedError:
            raise
        except Exception as error:
            if type(self.engine).__module__.startswith("exgra_med."):
                raise
            # An engine of another package: whatever it raises, the user can only mend it there.
            raise RunError(
                f"The engine {type(self.engine).__module__}.{type(self.engine).__name__} failed: "
                f"{type(error).__name__}: {' '.join(str(error).split())}.",
                "What was answered is kept; the same call goes on.",
            ) from error
        finally:
            reporter.finish()
        return read_predictions(out).predictions if out.exists() else []


def open_session(
    source: str | Path,
    reporter: Reporter,
    *,
    data: str | None = None,
    split: str | None = None,
    out: Path | None = None,
    template: str | None = None,
    engine: str | None = None,
    service: ServiceSettings | None = None,
    max_new_tokens: int | None = None,
    stage: str | None = None,
) -> Session:
    """Open an evaluation on one prepared folder; see `open_sessions`."""
    (session,) = open_sessions(
        source,
        reporter,
        data=() if data is None else (data,),
        split=split,
        out=out,
        template=template,
        engine=engine,
        service=service,
        max_new_tokens=max_new_tokens,
        stage=stage,
    )
    return session


def open_sessions(
    source: str | Path,
    reporter: Reporter,
    *,
    data: Sequence[str] = (),
    split: str | None = None,
    out: Path | None = None,
    template: str | None = None,
    engine: str | None = None,
    service: ServiceSettings | None = None,
    max_new_tokens: int | None = None,
    stage: str | None = None,
) -> list[Session]:
    """Open an evaluation on each of the prepared folders; who answers is as in `open_to_answer`.

    One engine answers all of them, so a model is loaded once. Every folder is read before that.
    Data, split and longest answer are those of the recipe where absent, and of a run the model is
    that of its last stage.

    Raises:
        RunError: the run is not finished, or the folder holds something else.
        DataError: the data cannot be used, or two folders hold the same data set.
    """
    given = [open_prepared(folder) for folder in data]
    run = open_to_answer(
        source,
        engine=engine or CHECKPOINT,
        data=data[0] if data else None,
        split=split,
        out=out,
        template=template,
        service=service,
    )
    recipe = run.recipe
    settings = recipe.evaluation_data
    split = split or recipe.evaluation.split
    # A folder of answers that is named without --data is asked its own questions again.
    folders = list(data) or [settings.folder]
    prepared = given or [open_prepared(settings.folder)]
    _refuse_same_names(folders, prepared)
    records = [each.stored(split) for each in prepared]
    answering = open_engine(run, service, max_new_tokens, stage)
    return [
        Session(
            run=run,
            engine=answering,
            dataset=each.manifest["dataset"],
            split=split,
            records=asked,
            images=each.image_folder(settings.max_pixels),
            fingerprint=each.fingerprint,
            data_folder=folder,
            reporter=reporter,
            prepared=each,
        )
        for folder, each, asked in zip(folders, prepared, records, strict=True)
    ]


def _refuse_same_names(folders: Sequence[str], prepared: Sequence[Prepared]) -> None:
    """A run keeps one file of answers of a data set and split.

    Raises:
        DataError: two folders hold the same data set, or are one.
    """
    known: dict[str, tuple[str, Path]] = {}
    for folder, each in zip(folders, prepared, strict=True):
        name, place = each.manifest["dataset"], each.path.resolve()
        if name in known:
            other, other_place = known[name]
            if place == other_place:
                raise DataError(f"{folder} is named twice.", "Give --data once for each folder.")
            raise DataError(
                f"{other} and {folder} both hold {name}, and a run keeps the answers to one "
                "of them.",
                "Answer each into a run of its own, with --out.",
            )
        known[name] = folder, place


def _model_of(run: Run, stage: str | None) -> Path:
    last = run.last_checkpoint
    if stage is None:
        return last
    if not run.final(stage).is_dir():
        raise RunError(
            f"{run.path} has no model of stage {stage!r}.", "Its stages are in its recipe."
        )
    return run.final(stage)


def open_engine(
    run: Run,
    service: ServiceSettings | None = None,
    max_new_tokens: int | None = None,
    stage: str | None = None,
) -> Engine:
    """The engine of a finished run (after a stage, or its last one), or of a folder of answers.

    Raises:
        RunError: the run is not finished.
        ServiceError: the service cannot be used.
    """
    recipe, asked = run.recipe, run.recipe.evaluation
    name = recipe.engine if isinstance(recipe, AnsweringRecipe) else CHECKPOINT
    options = EngineOptions(
        model=str(_model_of(run, stage) if name == CHECKPOINT else recipe.model.start),
        template=recipe.text.template,
        max_length=recipe.text.max_length,
        max_new_tokens=asked.max_new_tokens if max_new_tokens is None else max_new_tokens,
        batch_size=asked.batch_size,
        # A recipe that never trained says no more than `auto`.
        precision="float32" if asked.precision == "auto" else asked.precision,
        service=service,
    )
    return ENGINES.find(name)(options)
