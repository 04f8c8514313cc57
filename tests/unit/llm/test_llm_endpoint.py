from pathlib import Path

import pytest

from exgra_med.errors import ServiceError
from exgra_med.llm.endpoint import (
    Endpoint,
    environment_with_file,
    find_endpoint,
    model_name,
    require_allowed,
)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1:1/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example.org/v1", False),
        ("http://127.0.0.1.example.org/v1", False),
        ("http://2130706433/v1", False),
        ("https://api.openai.com/v1", False),
    ],
)
def test_only_this_machine_is_local(url: str, local: bool) -> None:
    endpoint = find_endpoint(url, {"OPENAI_API_KEY": "k"})
    assert endpoint.is_local is local
    if local:
        require_allowed(endpoint, False)
    else:
        with pytest.raises(ServiceError, match="leave this machine"):
            require_allowed(endpoint, False)
        require_allowed(endpoint, True)


def test_a_key_goes_only_to_its_own_service() -> None:
    keys = {"OPENROUTER_API_KEY": "router", "OPENAI_API_KEY": "openai"}
    assert find_endpoint(None, keys) == Endpoint("https://openrouter.ai/api/v1", "router")
    assert find_endpoint("https://api.openai.com/v1", keys).api_key == "openai"
    only_router = {"OPENROUTER_API_KEY": "router"}
    other = find_endpoint("https://other.example/v1", only_router)
    assert other.api_key != "router"
    with pytest.raises(ServiceError, match=r"no key for other\.example"):
        require_allowed(other, True)


def test_the_original_s_variables_are_understood() -> None:
    environment = {
        "OPENROUTER_API_KEY": "sk-test",
        "OPENROUTER_ENDPOINT": "http://127.0.0.1:9/api/v1",
    }
    assert find_endpoint(None, environment) == Endpoint("http://127.0.0.1:9/api/v1", "sk-test")


def test_nothing_named_is_an_error_and_so_is_a_malformed_address() -> None:
    for url in (None, "localhost:8000", "ftp://localhost/v1", "http://me:secret@localhost/v1"):
        with pytest.raises(ServiceError) as caught:
            find_endpoint(url, {})
        assert "secret" not in str(caught.value)


def test_a_key_is_never_shown() -> None:
    assert "sk-secret" not in repr(Endpoint("http://localhost/v1", "sk-secret"))


def test_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        '# keys\nexport OPENAI_API_KEY="from file"\nOTHER=a # note\n\nSET=file\n', encoding="utf-8"
    )
    values = environment_with_file({"SET": "environment"}, tmp_path)
    assert values == {"OPENAI_API_KEY": "from file", "OTHER": "a", "SET": "environment"}
    (tmp_path / ".env").write_text("sk-secret\n")
    with pytest.raises(ServiceError, match=":1") as caught:
        environment_with_file({}, tmp_path)
    assert "sk-secret" not in str(caught.value)


def test_openai_s_own_names_have_no_vendor() -> None:
    assert model_name("openai/gpt-4o", Endpoint("https://api.openai.com/v1", "")) == "gpt-4o"
    name = "openai/gpt-4o"
    assert model_name(name, Endpoint("https://openrouter.ai/api/v1", "")) == name


AZURE = "https://name.openai.azure.com"


@pytest.mark.parametrize(
    ("url", "base_url", "query"),
    [
        ("http://localhost:8000/v1/", "http://localhost:8000/v1", ""),
        ("http://localhost:8000/v1/chat/completions", "http://localhost:8000/v1", ""),
        ("http://[::1]:8000/v1?x=1", "http://[::1]:8000/v1", "x=1"),
        (AZURE, f"{AZURE}/openai/v1", ""),
        (f"{AZURE}/", f"{AZURE}/openai/v1", ""),
        (f"{AZURE}/openai/v1/", f"{AZURE}/openai/v1", ""),
        (
            f"{AZURE}/openai/deployments/dep/chat/completions?api-version=2024-10-21",
            f"{AZURE}/openai/deployments/dep",
            "api-version=2024-10-21",
        ),
        (
            "https://name.services.ai.azure.com/models/chat/completions?api-version=2024-05-01",
            "https://name.services.ai.azure.com/models",
            "api-version=2024-05-01",
        ),
    ],
)
def test_the_whole_address_of_a_request_is_understood(url: str, base_url: str, query: str) -> None:
    keys = {"OPENAI_API_KEY": "openai", "AZURE_OPENAI_API_KEY": "azure"}
    endpoint = find_endpoint(url, keys)
    assert (endpoint.base_url, endpoint.query) == (base_url, query)
    assert endpoint.is_azure == ("azure" in url)
    assert endpoint.api_key == ("azure" if "azure" in url else "openai")


def test_the_key_of_azure_goes_nowhere_else() -> None:
    keys = {"AZURE_OPENAI_API_KEY": "azure"}
    for url in ("https://azure.example/openai/v1", "https://openai.azure.com.example/v1"):
        assert find_endpoint(url, keys).api_key == "none"
    with pytest.raises(ServiceError, match="AZURE_OPENAI_API_KEY"):
        require_allowed(find_endpoint(AZURE, {}), True)
    with pytest.raises(ServiceError, match="api-version"):
        find_endpoint(f"{AZURE}/openai/deployments/dep", keys)


def test_what_stands_behind_an_address_is_not_shown() -> None:
    endpoint = find_endpoint("https://proxy.example/v1?code=secret", {"OPENAI_API_KEY": "k"})
    assert endpoint.query == "code=secret" and "secret" not in f"{endpoint}{endpoint.base_url}"


def test_a_key_with_a_line_break_is_mended_and_a_broken_one_refused() -> None:
    url = "http://localhost:8000/v1"
    assert find_endpoint(url, {"OPENAI_API_KEY": " key\r\n"}).api_key == "key"
    for key in ("k\ney", "kéy", "“key”"):
        with pytest.raises(ServiceError, match="no key has") as caught:
            find_endpoint(url, {"OPENAI_API_KEY": key})
        assert key not in str(caught.value)
