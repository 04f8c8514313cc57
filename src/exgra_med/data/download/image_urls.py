"""`data prepare --download` from a public list of article packages (LLaVA-Med's image URLs).

Each line of the list names a figure, the tar it is in and its place there:

    {"pair_id": "1_F1", "pmc_tar_url": "https://...", "image_file_path": "PMC1/figure-1.jpg"}

The figure becomes `images/<pair_id>.jpg`; nothing else of a tar is kept. Figures that are there are
not fetched again, so a run that was stopped goes on where it was.
"""

import json
import re
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import IO, Any

from exgra_med.data.download.archives import read_members
from exgra_med.data.download.fetch import FetchLimits, fetch
from exgra_med.data.images import decode_image
from exgra_med.data.prepare import MAX_PIXELS
from exgra_med.data.records import iterate_lines, read_json_list
from exgra_med.errors import DataError, ExgraMedError, ServiceError, WriteError
from exgra_med.files import disk_errors, write_bytes
from exgra_med.reading import decode_json
from exgra_med.terminal import Reporter

LIST_PATTERN = "*image_urls.jsonl"
FAILURES_FILE = "download_failures.jsonl"
MAX_FIGURE_BYTES = 64 * 2**20

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclass
class ImageDownload:
    """A download, and how it went.

    Args:
        there_before: figures that an earlier run fetched.
        failed: reason -> number of figures; `download_failures.jsonl` lists each.
        num_bytes: of the tars.
        not_listed: figures that the files name and the list does not have.
    """

    folder: Path
    limits: FetchLimits
    reporter: Reporter
    fetched: int = 0
    there_before: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    not_listed: int = 0

    def __post_init__(self) -> None:
        self.lock, self.stop = threading.Lock(), threading.Event()

    def lines(self) -> list[str]:
        """The numbers for a person."""
        failed = self.failed.total()
        lines = [f"figures: {self.fetched} fetched, {self.there_before} there before"]
        if self.not_listed:
            lines.append(f"{self.not_listed} figures are not in the list of URLs")
        if failed:
            lines.append(
                f"{failed} not fetched, see {FAILURES_FILE}; the same command tries them again:"
            )
            lines += [f"    {count} x {reason}" for reason, count in self.failed.most_common(10)]
        return lines

    def run(self, packages: dict[str, dict[str, str]], num_workers: int) -> None:
        """Fetch the figures of a list, see `download_images`."""
        missing: dict[str, dict[str, str]] = {}
        for url, members in packages.items():
            absent = {n: m for n, m in members.items() if not self._path(n).is_file()}
            self.there_before += len(members) - len(absent)
            if absent:
                missing[url] = absent
        failures_path, waiting, num_done = self.folder / FAILURES_FILE, iter(missing.items()), 0
        self.reporter.start("downloading figures", len(missing), 0, "packages")
        started = time.monotonic()
        with disk_errors(failures_path), failures_path.open("w", encoding="utf-8") as failures:
            pool = ThreadPoolExecutor(num_workers)
            pending: set[Future[None]] = set()
            try:
                # A short queue: half a million futures would take much memory.
                while pending := pending | {
                    pool.submit(self._package, *each, failures)
                    for each in islice(waiting, 4 * num_workers - len(pending))
                }:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    num_done += len(done)
                    rate = self.num_bytes / 2**20 / max(time.monotonic() - started, 1e-6)
                    note = f"{self.fetched} figures, {self.failed.total()} failed, {rate:.1f} MiB/s"
                    self.reporter.advance(num_done, note)
            finally:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
        self.reporter.finish()
        if self.failed and not self.fetched + self.there_before:
            reason, count = self.failed.most_common(1)[0]
            raise ServiceError(
                f"None of {self.failed.total()} figures was fetched ({count} x {reason}).",
                f"{failures_path} has every reason.",
            )

    def _path(self, name: str) -> Path:
        return self.folder / "images" / f"{name}.jpg"

    def _package(self, url: str, members: dict[str, str], failures: IO[str]) -> None:
        """Fetch one tar and keep its figures; what is not kept is listed as a failure."""
        reasons: dict[str, str] = {}
        try:
            with disk_errors(self.folder), tempfile.TemporaryFile(dir=self.folder) as stream:
                size = fetch(url, stream, self.limits, self.stop)
                with self.lock:
                    self.num_bytes += size
                stream.seek(0)
                found = read_members(stream, set(members.values()), MAX_FIGURE_BYTES)
            for name, member in members.items():
                reasons[name] = self._keep(name, found.get(member))
        except WriteError:
            raise
        except ExgraMedError as error:
            reasons = dict.fromkeys(members, error.message)
        with self.lock, disk_errors(self.folder / FAILURES_FILE):
            for name, reason in reasons.items():
                if reason:
                    self.failed[reason] += 1
                    entry = {"pair_id": name, "pmc_tar_url": url, "reason": reason}
                    failures.write(json.dumps(entry, ensure_ascii=False) + "\n")
                else:
                    self.fetched += 1
            failures.flush()

    def _keep(self, name: str, content: bytes | None) -> str:
        """Store a figure; returns why not, or nothing."""
        if content is None:
            return "the package does not have the figure"
        try:
            decode_image(BytesIO(content), MAX_PIXELS, f"{name}.jpg")
        except DataError as error:
            return error.message.replace(repr(f"{name}.jpg"), "").replace("  ", " ")
        write_bytes(self._path(name), content)
        return ""


def read_url_list(path: Path) -> dict[str, dict[str, str]]:
    """A list as tar URL -> pair id -> name of the member.

    Raises:
        DataError: a line is not an entry, or gives a figure a second place; names file and line.
    """
    packages: dict[str, dict[str, str]] = {}
    places: dict[str, tuple[str, str]] = {}
    for where, text in iterate_lines(path):
        if text.startswith("version https://git-lfs"):
            raise DataError(
                f"{path}: a pointer of Git LFS, not the list.", "Fetch it with `git lfs pull`."
            )
        entry = decode_json(text, where)
        keys = ("pair_id", "pmc_tar_url", "image_file_path")
        values = [entry.get(key) for key in keys] if isinstance(entry, dict) else [None]
        if not all(isinstance(value, str) and value for value in values):
            raise DataError(f"{where}: expected an object with the texts {', '.join(keys)}.")
        name, url, member = map(str, values)
        if not _PLAIN_NAME.fullmatch(name):
            raise DataError(f"{where}: pair_id {name!r} is no plain name.")
        if places.setdefault(name, (url, member)) != (url, member):
            raise DataError(f"{where}: pair_id {name!r} has a second place.", "Keep one of them.")
        packages.setdefault(url, {})[name] = member
    return packages


def named_images(folder: Path) -> set[str]:
    """Every image that a training or benchmark file in a folder names."""
    files = sorted(folder.glob("*.json"))
    rows: list[Any] = [row for path in files for row in read_json_list(path)]
    for path in sorted(folder.glob("*qa*.jsonl")):
        rows += [decode_json(text, where) for where, text in iterate_lines(path)]
    return {
        row["image"] for row in rows if isinstance(row, dict) and isinstance(row.get("image"), str)
    }


def download_images(
    folder: Path,
    reporter: Reporter,
    limits: FetchLimits | None = None,
    num_workers: int = 8,
) -> ImageDownload:
    """Fetch the figures that the files of a folder name into its `images/`.

    Where no file names any, all figures of the list are fetched.

    Args:
        folder: has one `*image_urls.jsonl`; gets `images/` and a list of what failed and why.

    Raises:
        DataError: no list, or one that cannot be understood.
        ServiceError: not one figure could be fetched.
        WriteError: the disk is full.
    """
    lists = sorted(folder.glob(LIST_PATTERN))
    if len(lists) != 1:
        raise DataError(
            f"{folder}: found {len(lists)} files {LIST_PATTERN}, one is needed.",
            "It is published with the dataset; put it beside the other files.",
        )
    packages = read_url_list(lists[0])
    wanted = named_images(folder)
    listed = {f"{name}.jpg" for members in packages.values() for name in members}
    if wanted:
        if not wanted & listed:
            raise DataError(
                f"{lists[0]}: has none of the {len(wanted)} figures that the files beside it name.",
                "Is it the list of this dataset?",
            )
        packages = {
            url: {name: member for name, member in members.items() if f"{name}.jpg" in wanted}
            for url, members in packages.items()
        }
    with disk_errors(folder):
        (folder / "images").mkdir(exist_ok=True)
    result = ImageDownload(folder, limits or FetchLimits(), reporter)
    result.run(packages, num_workers)
    result.not_listed = len(wanted - listed)
    return result
