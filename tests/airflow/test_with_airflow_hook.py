"""The hook: from a connection to a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from wires import KEY

from together_batches.airflow.hook import TogetherHook
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from together_batches.emulator import Emulator

Connect = Callable[..., None]


async def test_a_connection_makes_clients(service: Emulator) -> None:
    """The password is the key, the host the base URL, and the extra holds settings of the client."""
    with TogetherHook().get_conn() as client:
        assert client.list() == []
    async with TogetherHook().get_async_conn() as client:
        assert await client.list() == []


def test_the_test_of_a_connection(service: Emulator) -> None:
    """A good connection is tested by one list of the account."""
    assert TogetherHook().test_connection() == (True, "connected; the account has 0 batch jobs")
    assert service.count("list") == len(service.requests) == 1


def test_the_test_of_a_connection_with_a_wrong_key(service: Emulator, connect: Connect) -> None:
    """A refused key is named as such, and not shown."""
    connect(host=service.base_url, password="a-wrong-key")
    passed, message = TogetherHook().test_connection()
    assert not passed
    assert message.startswith("the API key was refused: ")
    assert "a-wrong-key" not in message


def test_the_test_of_a_connection_that_leads_nowhere(connect: Connect) -> None:
    """A service that cannot be reached is an answer, and not an exception."""
    connect(host="http://127.0.0.1:9")
    passed, message = TogetherHook().test_connection()
    assert (passed, "127.0.0.1" in message) == (False, True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"password": ""}, "connection 'together_default' has no API key: set its password"),
        ({"extra": '{"timout": 3}'}, "unknown setting in extra: timout; known are timeout,"),
        ({"extra": '{"timeout": "3"}'}, "timeout in extra has the wrong type, str"),
        ({"extra": '{"max_concurrency": true}'}, "max_concurrency in extra has the wrong type, bool"),
        ({"extra": "[1]"}, "extra is not a JSON object"),
        ({"host": "http://service.example"}, "base_url is plain HTTP to service.example"),
    ],
)
def test_invalid_connections(connect: Connect, fields: dict[str, Any], expected: str) -> None:
    """An invalid connection is refused with a sentence that names the connection or the setting."""
    connect(**fields)
    with pytest.raises(UsageError, match=expected):
        TogetherHook().get_conn()
    passed, message = TogetherHook().test_connection()
    assert not passed
    assert KEY not in message


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"host": "https://gateway.example/v1"}, "https://gateway.example/v1"),
        ({"host": "gateway.example"}, "https://gateway.example/v1"),
        ({"host": "http://127.0.0.1", "port": 8000}, "http://127.0.0.1:8000/v1"),
        ({"host": "127.0.0.1", "port": 8000, "schema": "http"}, "http://127.0.0.1:8000/v1"),
        ({"host": "gateway.example", "schema": "together/v1"}, "https://gateway.example/together/v1"),
        ({"host": ""}, "https://api.together.ai/v1"),
    ],
)
def test_the_base_url(connect: Connect, fields: dict[str, Any], expected: str) -> None:
    """The host may be a whole URL, or be cut into host, port and schema, as Airflow does with connection URIs."""
    connect(**fields)
    with TogetherHook().get_conn() as client:
        assert expected in repr(client)


def test_settings_of_a_connection(connect: Connect) -> None:
    """The extra sets options of the client; fields that were left empty in the form do not count."""
    connect(host="http://gateway.example", extra={"allow_insecure_http": True, "proxy": "", "timeout": 5})
    with TogetherHook().get_conn() as client:
        assert "http://gateway.example/v1" in repr(client)


def test_airflow_knows_the_connection_type() -> None:
    """Airflow lists the connection type with its form."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    assert manager.providers["together-batches"].version
    hook = manager.hooks["together"]
    assert hook is not None
    assert (hook.hook_name, hook.connection_testable) == ("Together AI", True)
    behaviour = manager.field_behaviours
    assert behaviour["together"]["relabeling"] == {"host": "Base URL", "password": "API key"}
