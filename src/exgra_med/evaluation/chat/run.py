"""`evaluate chat` and `evaluate judge` as calls: answers, judge, scores, in a run folder."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exgra_med.errors import RunError
from exgra_med.evaluation.chat.judge import PROMPT
from exgra_med.evaluation.chat.judging import estimate_judging, judge_answers, write_transcripts
from exgra_med.evaluation.chat.questions import ChatSet
from exgra_med.evaluation.chat.score import score_judgements
from exgra_med.evaluation.device import best_place, load_to_answer
from exgra_med.evaluation.foreign import ask_service, start_folder
from exgra_med.evaluation.pairing import pair
from exgra_med.evaluation.predict import predict
from exgra_med.evaluation.predictions import read_predictions
from exgra_med.evaluation.questions import question_of
from exgra_med.evaluation.results import update_results
from exgra_med.evaluation.run import checkpoint_facts
from exgra_med.evaluation.run_folder import check_path
from exgra_med.evaluation.sharding import told_once
from exgra_med.llm.prompt import load_prompt
from exgra_med.llm.service import ServiceSettings
from exgra_med.progress import Reporter
from exgra_med.recipe.run_folder import Run


def answers_path(run: Path, dataset: str) -> Path:
    """Where a run keeps its chat answers."""
    return check_path(run, dataset, "answers")


def answer_chat(run: Run, reporter: Reporter, chat: ChatSet, max_new_tokens: int = 1024) -> Path:
    """Answer chat questions with the last checkpoint of a run; resumable.

    Args:
        run: a run whose stages are finished.
        reporter: told how far the answers are.
        chat: the questions.
        max_new_tokens: longest answer; the published evaluation allows 1,024.

    Returns:
        The file of answers.

    Raises:
        RunError: the run is not finished, or holds answers made in another way.
    """
    recipe, place, reporter = run.recipe, best_place(), told_once(reporter)
    checkpoint, out = run.last_checkpoint, answers_path(run.path, chat.name)
    reporter.start(f"answers to {chat.name}", len(chat.records), 0)
    predict(
        load_to_answer(checkpoint, place),
        chat.records,
        chat.images,
        recipe.evaluation.model_copy(update={"max_new_tokens": max_new_tokens}),
        out,
        template=recipe.text.template,
        about=checkpoint_facts(checkpoint, place) | {"data": chat.fingerprint},
        progress=lambda done, _: reporter.advance(done, ""),
    )
    reporter.finish()
    return out


def answer_chat_by_service(
    folder: Path, settings: ServiceSettings, reporter: Reporter, chat: ChatSet, on: str
) -> Path:
    """Let a service answer chat questions; see `foreign`."""
    start_folder(folder, settings, {"folder": on}, "test")
    out = answers_path(folder, chat.name)
    ask_service(settings, chat.records, chat.images, out, {"data": chat.fingerprint}, reporter)
    return out


def stored_answers(path: Path, chat: ChatSet) -> tuple[dict[str, str], dict[str, int]]:
    """Answers by question id, of our files or of the original's, and what did not fit.

    Raises:
        DataError: the file cannot be read.
        ScoreError: no answer belongs to a question.
    """
    questions = [question_of(record) for record in chat.records]
    pairing = pair(read_predictions(path).predictions, questions)
    answers = {
        question.id: text
        for question, text in zip(questions, pairing.answers, strict=True)
        if text is not None
    }
    return answers, pairing.counts


def judge_run(
    source: Path, chat: ChatSet, settings: ServiceSettings, reporter: Reporter, seed: int = 0
) -> dict[str, Any]:
    """Have stored answers graded and score them.

    Args:
        source: a run folder, which receives `results.json`; or a file of answers, beside which
            the transcripts are put.
        chat: the questions.
        settings: the judge.
        reporter: told of each grading.
        seed: of the resamples.

    Returns:
        The section of this judge.

    Raises:
        RunError: the run has no answers yet.
        ServiceError: the judge cannot be used.
    """
    file = _answer_file(source, chat)
    answers, counts = stored_answers(file, chat)
    judgements, usage = judge_answers(chat.questions, answers, settings, reporter)
    judge = settings.served_name(settings.endpoint())
    transcripts = file.with_name(f"{file.stem}.judged-by-{_slug(judge)}.jsonl")
    write_transcripts(transcripts, judgements)
    section = score_judgements(chat.questions, answers, judgements, seed=seed)
    section |= {
        "judge": judge,
        "pairing": counts,
        "prompt": load_prompt(PROMPT).label,
        "sampling": settings.sampling.given(),
        "date": datetime.now(UTC).date().isoformat(),
        "data_fingerprint": chat.fingerprint,
        "num_without_reference": chat.num_without_reference,
        "transcripts": transcripts.name,
        "usage": vars(usage).copy(),
    }
    if source.is_dir():
        update_results(source, {"chat": {chat.name: {judge: section}}})
    return section


def estimate_run(source: Path, chat: ChatSet, settings: ServiceSettings) -> dict[str, Any]:
    """What `judge_run` would ask and cost, without any connection."""
    answers, _ = stored_answers(_answer_file(source, chat), chat)
    return estimate_judging(chat.questions, answers, settings)


def _answer_file(source: Path, chat: ChatSet) -> Path:
    file = source if source.is_file() else answers_path(source, chat.name)
    if not file.is_file():
        raise RunError(
            f"{source} has no answers to {chat.name} yet.", "Run `exgra-med evaluate chat` first."
        )
    return file


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:80] or "model"
