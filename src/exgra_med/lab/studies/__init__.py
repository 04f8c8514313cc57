"""One question asked of many runs: plan, run, compare. See docs/explanation/studies.md."""
