"""What is asked of a model and how it is scored: one file a task.

A task is a function from a `Session` to an `Entry` of `results.json`, and a `Task` that says how
its scores are shown.
"""
