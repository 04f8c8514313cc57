"""Where requests go and with which key; text leaves this machine only when that was allowed."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from exgra_med.errors import ServiceError
from exgra_med.reading import read_text

OPENROUTER = "https://openrouter.ai/api/v1"
NO_KEY = "none"
"""Sent where a server on this machine asks for no key."""
OPENAI = "https://api.openai.com/v1"
_AZURE = re.compile(
    r"\.(?:openai|cognitiveservices|services\.ai|inference\.ai)\.azure\.(?:com|us|cn)$"
)
_DEPLOYMENT = "/openai/deployments/"


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible address.

    Args:
        base_url: for instance `http://localhost:8000/v1`, without a query.
        api_key: never printed.
        query: what Azure and some proxies want behind every address; never printed, as it may
            hold a key.
    """

    base_url: str
    api_key: str = field(repr=False)
    query: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """Name or number of the machine."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def is_azure(self) -> bool:
        """Azure OpenAI, or a gateway before it: its keys have a header of their own."""
        return _is_azure(self.host, urlsplit(self.base_url).path)

    @property
    def is_local(self) -> bool:
        """Requests stay on this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def find_endpoint(base_url: str | None, environment: Mapping[str, str]) -> Endpoint:
    """Choose the address and the key that belongs to it.

    Args:
        base_url: from the user; else `OPENROUTER_ENDPOINT`, `OPENAI_BASE_URL`, or the address of
            the service whose key is there.
        environment: variables, `.env` included (`environment_with_file`).

    Raises:
        ServiceError: no address, or a malformed one.
    """
    open_router_key = environment.get("OPENROUTER_API_KEY")
    open_router = environment.get("OPENROUTER_ENDPOINT") or (OPENROUTER if open_router_key else "")
    url = base_url or open_router or environment.get("OPENAI_BASE_URL")
    if not url and environment.get("OPENAI_API_KEY"):
        url = OPENAI
    if not url:
        raise ServiceError(
            "No language-model service is named.",
            "Give --base-url, or set OPENROUTER_API_KEY or OPENAI_API_KEY in the environment.",
        )
    wrong = "The address of the language model is not http(s)://HOST/..."
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ServiceError(wrong, "Look at its brackets and its port.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ServiceError(wrong)
    if parts.username or parts.password:
        raise ServiceError("The address holds a password.", "Put the key in the environment.")
    # Portals and manuals show the whole address of a request; what all requests share is asked for.
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    is_azure = _is_azure(parts.hostname, path)
    if is_azure and path in ("", "/openai"):
        path = "/openai/v1"
    if _DEPLOYMENT in path and "api-version=" not in parts.query:
        raise ServiceError(
            "The address of the Azure deployment has no version.",
            "Put ?api-version=2024-10-21 behind it, or give https://NAME.openai.azure.com/openai/v1"
            " and the deployment as the model.",
        )
    # A key goes to its own service only, so that a mistyped address cannot collect it.
    is_router = parts.hostname == "openrouter.ai" or url == environment.get("OPENROUTER_ENDPOINT")
    key = open_router_key if is_router else environment.get("OPENAI_API_KEY")
    if is_azure:
        key = environment.get("AZURE_OPENAI_API_KEY") or key
    key = (key or "").strip() or NO_KEY
    if not (key.isascii() and key.isprintable()):
        raise ServiceError("The key of the service holds a character that no key has.")
    return Endpoint(urlunsplit((parts.scheme, parts.netloc, path, "", "")), key, parts.query)


def _is_azure(host: str, path: str) -> bool:
    return _AZURE.search(host) is not None or _DEPLOYMENT in f"{path}/"


def require_allowed(endpoint: Endpoint, allow_remote: bool) -> None:
    """Refuse to send text to another machine unless that was allowed and there is a key for it.

    Raises:
        ServiceError: the address is remote, and was not allowed or has no key.
    """
    if not endpoint.is_local and not allow_remote:
        raise ServiceError(
            f"The text of your data would leave this machine for {endpoint.host}.",
            "Give --allow-remote if you may send it there, or use a model on this machine.",
        )
    if not endpoint.is_local and endpoint.api_key == NO_KEY:
        own = "AZURE_OPENAI_API_KEY" if endpoint.is_azure else "OPENAI_API_KEY"
        name = "OPENROUTER_API_KEY" if endpoint.host == "openrouter.ai" else own
        raise ServiceError(
            f"There is no key for {endpoint.host}.", f"Set {name} in the environment or in .env."
        )


def model_name(model: str, endpoint: Endpoint) -> str:
    """The name that the service knows: OpenAI's own has no `openai/` before it."""
    return model.removeprefix("openai/") if endpoint.host == "api.openai.com" else model


def environment_with_file(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Variables of the environment and, where it lacks them, of `folder/.env`.

    Raises:
        ServiceError: a line of the file is not `NAME=VALUE`.
    """
    path = folder / ".env"
    values: dict[str, str] = {}
    if path.is_file():
        for number, line in enumerate(read_text(path, ServiceError).splitlines(), start=1):
            text = line.strip().removeprefix("export ").lstrip()
            if not text or text.startswith("#"):
                continue
            name, equals, value = text.partition("=")
            if not equals:
                raise ServiceError(f"{path}:{number}: not NAME=VALUE.")
            value = value.strip()
            is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            values[name.strip()] = value[1:-1] if is_quoted else value.partition(" #")[0].rstrip()
    return values | dict(environment)
