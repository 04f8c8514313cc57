"""An OpenAI-compatible server of somebody else's, started on an export of ours."""
