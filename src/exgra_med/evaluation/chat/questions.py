"""Chat questions with what a judge may know of the image: from a prepared folder or a bare file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.prepared import MANIFEST, file_sha256, open_prepared
from exgra_med.data.record import Record
from exgra_med.data.sources.chat_benchmark import read_questions
from exgra_med.data.sources.source import Dropped
from exgra_med.errors import DataError

MAX_PIXELS = 50_000_000


@dataclass(frozen=True, slots=True)
class ChatQuestion:
    """One question, the reference answer, and the caption by which a judge grades."""

    id: str
    published_id: str
    text: str
    reference: str
    caption: str
    mentions: str
    question_type: str
    domain: str
    cluster: str
    """The image, which resampling draws."""


@dataclass(frozen=True, slots=True)
class ChatSet:
    """Questions with their records and images."""

    name: str
    records: list[Record]
    images: ImageFolder
    fingerprint: str
    num_without_reference: int

    @property
    def questions(self) -> list[ChatQuestion]:
        """What is asked and graded."""
        return [chat_question(record) for record in self.records]


def open_chat_set(on: str, split: str = "test", images: Path | None = None) -> ChatSet:
    """Open a prepared folder, or a JSON Lines file in LLaVA-Med's format.

    Args:
        on: folder or file.
        split: of a prepared folder.
        images: folder of a file's images; `images/` beside the file, or its folder, where absent.

    Raises:
        DataError: it is neither, or holds no question.
    """
    path = Path(on)
    if path.is_file():
        dropped: list[Dropped] = []
        records = read_questions(path, dropped)
        beside = path.parent / "images"
        root = images or (beside if beside.is_dir() else path.parent)
        found = ChatSet(
            path.stem, records, ImageFolder(root, MAX_PIXELS), file_sha256(path), len(dropped)
        )
    else:
        prepared = open_prepared(on)
        manifest = prepared.manifest
        found = ChatSet(
            manifest["dataset"],
            prepared.records(split),
            prepared.image_folder(MAX_PIXELS),
            prepared.fingerprint,
            len(manifest.get("dropped") or ()),
        )
    if not found.records:
        raise DataError(
            f"{on}: there is no question.", f"Give a file, or a folder with {MANIFEST}."
        )
    ids = [record.id for record in found.records]
    if len(set(ids)) < len(ids):
        raise DataError(f"{on}: question ids repeat.", "Every question needs its own id.")
    return found


def chat_question(record: Record) -> ChatQuestion:
    """The question of a record; what its `meta` does not tell is left empty."""
    meta: dict[str, Any] = record.meta
    return ChatQuestion(
        id=record.id,
        published_id=str(meta.get("published_id", record.id)),
        text=record.question,
        reference=record.answer,
        caption=str(meta.get("caption") or ""),
        # The benchmark writes an absent mention as an empty list.
        mentions=str(meta.get("mention") or "").removeprefix("[]"),
        question_type=str(meta.get("question_type") or "unknown"),
        domain=str(meta.get("domain") or "unknown"),
        cluster="\n".join(record.images) or f"question {record.id}",
    )
