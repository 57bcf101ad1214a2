"""Apache Airflow provider for batch jobs on Together AI.

>>> from together_batches.airflow import TogetherBatchOperator, TogetherCancelOperator, together_run

Every name is loaded on first use. Airflow reads :func:`get_provider_info` in each of its processes, so that function
imports neither Airflow nor the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from together_batches.airflow.dataset import together_run
    from together_batches.airflow.hook import TogetherHook
    from together_batches.airflow.operators import TogetherBatchOperator, TogetherCancelOperator
    from together_batches.airflow.sensors import TogetherBatchSensor
    from together_batches.airflow.triggers import TogetherBatchTrigger

__all__ = [
    "TogetherBatchOperator",
    "TogetherBatchSensor",
    "TogetherBatchTrigger",
    "TogetherCancelOperator",
    "TogetherHook",
    "get_provider_info",
    "together_run",
]

_HOMES = {
    "TogetherBatchOperator": "operators",
    "TogetherBatchSensor": "sensors",
    "TogetherBatchTrigger": "triggers",
    "TogetherCancelOperator": "operators",
    "TogetherHook": "hook",
    "together_run": "dataset",
}
"""The module of each public name."""

_NAME = "Together AI batches"


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow shows and loads of this provider; the keys and values are Airflow's."""
    return {
        "package-name": "together-batches",
        "name": _NAME,
        "description": "Batch inference jobs on `Together AI <https://docs.together.ai/docs/inference/batch/overview>`__.",
        "integrations": [
            {
                "integration-name": _NAME,
                "external-doc-url": "https://docs.together.ai/docs/inference/batch/overview",
                "tags": ["ai"],
            }
        ],
        "operators": [{"integration-name": _NAME, "python-modules": ["together_batches.airflow.operators"]}],
        "sensors": [{"integration-name": _NAME, "python-modules": ["together_batches.airflow.sensors"]}],
        "hooks": [{"integration-name": _NAME, "python-modules": ["together_batches.airflow.hook"]}],
        "triggers": [{"integration-name": _NAME, "python-modules": ["together_batches.airflow.triggers"]}],
        "connection-types": [
            {
                "hook-class-name": "together_batches.airflow.hook.TogetherHook",
                "hook-name": "Together AI",
                "connection-type": "together",
                "conn-fields": {
                    "timeout": {
                        "label": "Time limit of a request (s)",
                        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0},
                        "description": "60 if empty.",
                    },
                    "max_concurrency": {
                        "label": "Concurrent requests",
                        "schema": {"type": ["integer", "null"], "minimum": 1},
                        "description": "100 if empty.",
                    },
                    "proxy": {
                        "label": "Proxy URL",
                        "schema": {"type": ["string", "null"], "format": "password"},
                        "description": "That of the environment if empty.",
                    },
                    "allow_insecure_http": {
                        "label": "Send the key over plain HTTP",
                        "schema": {"type": ["boolean", "null"], "default": False},
                        "description": "Only for a gateway in a network of your own.",
                    },
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "port"],
                    "relabeling": {"host": "Base URL", "password": "API key"},
                    "placeholders": {"host": "https://api.together.ai/v1"},
                },
            }
        ],
    }


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
