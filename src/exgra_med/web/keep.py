"""What people ask and models answer, written down only where the operator wants it, for some days.

One file a day, `chat-2026-01-31.jsonl`, readable by the owner alone. Pictures are not kept.
"""

import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from exgra_med import files

_NAME = re.compile(r"chat-(\d{4}-\d{2}-\d{2})\.jsonl")


class KeptLog:
    """Appends exchanges and deletes what is older than it may be.

    Args:
        folder: where; made if absent.
        days: a file is deleted when its day is longer ago.
        today: for tests.

    Raises:
        WriteError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        days: int,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self.folder, self.days = folder, days
        self._today = today
        self._lock = threading.Lock()
        with files.disk_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._delete_old()

    def write(self, **exchange: Any) -> None:
        """Append one JSON line.

        Raises:
            WriteError: the disk is full, or the folder is gone.
        """
        with self._lock:
            path = self.folder / f"chat-{self._today().isoformat()}.jsonl"
            if not path.exists():
                self._delete_old()
                with files.disk_errors(path):
                    path.touch(mode=0o600)
            with files.disk_errors(path), path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(exchange, ensure_ascii=False) + "\n")

    def _delete_old(self) -> None:
        first = self._today() - timedelta(days=self.days)
        for path in self.folder.iterdir():
            found = _NAME.fullmatch(path.name)
            if found and date.fromisoformat(found[1]) < first:
                path.unlink()
