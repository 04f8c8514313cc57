"""Files for a service's batch queue: written from what is not in the cache, read back into it.

A line is named after its cache key, so results may come in any order and from several files;
afterwards `generate` finds every answer in the cache and asks nothing.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from exgra_med.captions.question import PROMPT, requests_of, revision_of
from exgra_med.captions.records import RecordFile
from exgra_med.data.records import iterate_lines, json_line
from exgra_med.errors import DataError
from exgra_med.files import new_file
from exgra_med.llm.cache import AnswerCache
from exgra_med.llm.openai_transport import FaultError, reply_of, request_body
from exgra_med.llm.prompt import load_prompt
from exgra_med.llm.request import ChatRequest, ReplyError, Sampling
from exgra_med.reading import decode_json

QUEUE_HOST = "api.openai.com"
"""Whose names of parameters a file has; its newest models do not take the older names."""
MAX_REQUESTS = 50_000
"""Most requests that OpenAI takes in one file."""


def write_batches(
    source: RecordFile,
    out: Path,
    model: str,
    sampling: Sampling,
    cache: AnswerCache,
    max_requests: int = MAX_REQUESTS,
) -> list[tuple[Path, int]]:
    """Write one file, or with more requests `OUT-001`, `OUT-002`..., and return (path, requests).

    Args:
        sampling: as `generate` will be run with; it is a part of the key.
        cache: answers in it are left out.

    Raises:
        DataError: a record is malformed, or everything is in the cache.
        WriteError: the disk is full.
    """
    requests = _missing(source, model, sampling, cache)
    written: list[tuple[Path, int]] = []
    while chunk := list(islice(requests, max_requests)):
        path = out.with_name(f"{out.stem}-{len(written) + 1:03d}{out.suffix}")
        with new_file(path) as stream:
            for request in chunk:
                row = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions"}
                body = request_body(request, QUEUE_HOST)
                stream.write(json_line(row | {"body": body}))
        written.append((path, len(chunk)))
    if not written:
        raise DataError(f"{source.path}: every answer is in the cache already.", "Run `generate`.")
    if len(written) == 1:
        written = [(written[0][0].replace(out), written[0][1])]
    return written


def read_batches(
    results: Iterable[Path], model: str, cache: AnswerCache, failures: Path
) -> dict[str, int]:
    """Put the good replies of result files into the cache and list the others.

    Args:
        failures: JSON Lines of what was refused and why.

    Raises:
        DataError: a file is no result of a batch.
        WriteError: the disk is full.
    """
    counts: Counter[str] = Counter(stored=0, failed=0)
    with new_file(failures) as stream:
        for path in results:
            for where, text in iterate_lines(path):
                row = decode_json(text, where)
                if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
                    raise DataError(f"{where}: not a line of a batch's results.")
                try:
                    reply = reply_of(_body(row), 0)
                    revision_of(reply.text)
                except (ReplyError, FaultError) as error:
                    counts["failed"] += 1
                    # What a service says may quote the question.
                    why = str(error) if isinstance(error, ReplyError) else "an error of the service"
                    refused = {"custom_id": row["custom_id"], "detail": why}
                    stream.write(json.dumps(refused).encode("utf-8") + b"\n")
                    continue
                cache.put(row["custom_id"], model, reply)
                counts["stored"] += 1
    return dict(counts)


def _missing(
    source: RecordFile, model: str, sampling: Sampling, cache: AnswerCache
) -> Iterator[ChatRequest]:
    seen: set[str] = set()
    for _, request in requests_of(source.iterate(), load_prompt(PROMPT), model, sampling):
        if request.key not in seen and cache.get(request.key) is None:
            seen.add(request.key)
            yield request


def _body(row: dict[str, Any]) -> Any:
    response = row.get("response")
    if not isinstance(response, dict) or response.get("status_code", 200) != 200:
        error = row.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        raise ReplyError(f"the service reports an error {code or ''}".strip())
    return response.get("body")
