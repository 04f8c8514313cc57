"""`log.jsonl`: one JSON object a line, appended; cut back to the checkpoint when a run goes on."""

import json
from pathlib import Path
from typing import Any

from exgra_med import files


class TrainingLog:
    """Appends events of a run.

    Args:
        path: the file; it need not exist.
        active: whether this process is the one that writes.
    """

    def __init__(self, path: Path, active: bool = True) -> None:
        self.path, self.active = path, active

    def write(self, **event: Any) -> None:
        """Append one event and hand it to the operating system."""
        if not self.active:
            return
        with files.disk_errors(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")

    def cut_back(self, stage: str, step: int) -> None:
        """Drop what a killed process wrote of `stage` after `step`, and a torn last line.

        With step 0 the stage begins anew, so all of it goes.
        """
        if not self.active:
            return
        kept = [
            event
            for event in read_log(self.path)
            if event["stage"] != stage or (step > 0 and event["step"] <= step)
        ]
        files.write_text(self.path, "".join(json.dumps(event) + "\n" for event in kept))


def read_log(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a log; a line torn by a kill can only be the last one and is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
