"""One file per dataset, from its published files to records."""

SOURCES = {
    "vqa-rad": "exgra_med.data.sources.vqa_rad:SOURCE",
}
"""Name on the command line -> `module:object` of its `Source`."""
