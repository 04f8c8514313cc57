"""The command line: verbs and paths only; every hyper-parameter lives in a recipe."""
