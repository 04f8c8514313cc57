"""Answers on disk by content hash: what was paid once is never paid again, across files and runs.

SQLite in write-ahead mode, so a killed process loses nothing that had arrived. Keys are hashes;
questions and API keys are not stored. Beside each answer stands its SHA-256: one that is not as it
was stored is asked for again.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exgra_med.errors import ServiceError
from exgra_med.files import cache_folder
from exgra_med.llm.request import Reply

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    cost REAL, created TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS digests (
    key TEXT PRIMARY KEY, sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_INSERT = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)"
_FOUND = """
SELECT text, prompt_tokens, completion_tokens, cost, sha256
FROM answers LEFT JOIN digests USING (key) WHERE key = ?
"""
_SPENT = """
SELECT model, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), SUM(cost)
FROM answers GROUP BY model ORDER BY model
"""


def default_cache_path() -> Path:
    """Where answers are kept when no file is named: in the user's cache folder."""
    return cache_folder() / "answers.sqlite"


def _digest(key: str, reply: Reply) -> str:
    cost = None if reply.cost is None else float(reply.cost)  # as SQLite gives it back
    kept = (key, reply.text, reply.prompt_tokens, reply.completion_tokens, cost)
    return hashlib.sha256(repr(kept).encode()).hexdigest()


class AnswerCache:
    """Answers of language models in one SQLite file, readable by its owner only.

    Raises:
        ServiceError: the file is no such cache or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._named_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
            # A power cut may lose the last moments; a killed process loses nothing.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_TABLES)

    def get(self, key: str) -> Reply | None:
        """The stored answer of a request, or None; one of an earlier version is not checked."""
        for *values, sha256 in self._rows(_FOUND, key):
            reply = Reply(*values)
            if sha256 in (None, _digest(key, reply)):
                return reply
        return None

    def put(self, key: str, model: str, reply: Reply) -> None:
        """Store an answer; it is on disk when this returns."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        self._rows("INSERT OR REPLACE INTO digests VALUES (?, ?)", key, _digest(key, reply))
        self._rows(_INSERT, key, model, reply.text, *tokens, reply.cost, created)

    def remember(self, name: str, value: str) -> None:
        """Store a small fact, such as that a file was scanned."""
        self._rows("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, value)

    def recall(self, name: str) -> str | None:
        """A fact that was stored, or None."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", name)
        return rows[0][0] if rows else None

    def spent(self) -> list[dict[str, int | float | str | None]]:
        """For each model: answers, tokens and cost in US dollars (None where unknown)."""
        names = ("model", "answers", "prompt_tokens", "completion_tokens", "cost")
        return [dict(zip(names, row, strict=True)) for row in self._rows(_SPENT)]

    def _rows(self, statement: str, *values: str | float | None) -> list[Any]:
        with self._named_errors():
            return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ServiceError(
                f"{self.path}: the cache of answers cannot be used ({error}).",
                "Give another file with --cache, or free some space.",
            ) from error
