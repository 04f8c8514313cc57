"""The page in a container: settings come from the environment, the port is 7860.

EXGRA_MED_MODEL=runs/demo python app.py
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from exgra_med.errors import ExgraMedError
from exgra_med.web.access import Login
from exgra_med.web.server import WebSettings, serve_page

HUB = "https://huggingface.co"


def settings_from(environment: Mapping[str, str]) -> WebSettings:
    """What the variables of the README say."""
    if "EXGRA_MED_MODEL" not in environment:
        raise SystemExit("Set EXGRA_MED_MODEL to a hub name or a checkpoint folder.")
    password = environment.get("EXGRA_MED_WEB_PASSWORD")
    models = [environment.get(name) for name in ("EXGRA_MED_MODEL", "EXGRA_MED_MODEL_2")]
    own = [environment[name] for name in ("EXGRA_MED_ORIGIN",) if name in environment]
    space = environment.get("SPACE_HOST")
    return WebSettings(
        models=[model for model in models if model],
        runs=[Path(environment[name]) for name in ("EXGRA_MED_RUNS",) if name in environment],
        host="0.0.0.0",
        port=int(environment.get("PORT", "7860")),
        device=environment.get("EXGRA_MED_DEVICE", "cpu"),
        public=password is None,
        login=None if password is None else Login("visitor", password),
        origins=[*own, *([f"https://{space}"] if space else [])],
        # A Space is shown in a frame of the hub, and reached through its proxy alone.
        frames=[HUB] if space else [],
        behind_proxy=space is not None,
        allow_remote=environment.get("EXGRA_MED_ALLOW_REMOTE") == "1",
    )


if __name__ == "__main__":
    try:
        serve_page(settings_from(os.environ), lambda address: print(f"The page is open: {address}"))
    except ExgraMedError as error:
        sys.exit(str(error))
