"""The phantom world as a dataset: nothing is read, everything is drawn from a seed."""

from pathlib import Path

from exgra_med.data.phantom.make import NAME, collect_phantom, parse_settings
from exgra_med.data.source import Collected, Options, Source


def collect(source: Path, options: Options) -> Collected:
    """Make the world that the settings ask for; there are no files to read.

    Raises:
        DataError: an unknown setting.
    """
    return collect_phantom(parse_settings(options.seed, options.settings))


SOURCE = Source(
    name=NAME,
    title="drawn pictures of known truth, any number: --set num_images=2000, no --source",
    licence="CC0 1.0, made by this program",
    variants={"world": "test as train; test_composition with organ-lesion pairs never trained"},
    collect=collect,
    needs_files=False,
)
