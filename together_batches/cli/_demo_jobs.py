"""Jobs for the emulator, of the kinds that an account has."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from together_batches.emulator import Emulator

__all__ = ["populate"]

_KINDS = {
    "running": 60,
    "validating": 12,
    "completed": 14,
    "failed": 5,
    "expired": 3,
    "cancelled": 3,
    "canceling": 2,
    "outruns its cancel": 1,
}
_MODELS = ("openai/gpt-oss-20b", "openai/gpt-oss-120b", "meta-llama/Llama-3.3-70B-Instruct-Turbo")
_MINUTE, _THREE_DAYS = 60.0, 259_200.0


def populate(emulator: Emulator, count: int, seed: int) -> list[str]:
    """Add ``count`` jobs to the emulator, equal for an equal seed, and return their ids."""
    random = Random(seed)  # noqa: S311  # repeatable on purpose
    kinds = random.choices(list(_KINDS), weights=list(_KINDS.values()), k=count)
    return [_add(emulator, kind, random) for kind in kinds]


def _add(emulator: Emulator, kind: str, random: Random) -> str:
    # Evenly on a logarithmic scale: as many in the last hour as in the two days before it.
    age = _MINUTE * (_THREE_DAYS / _MINUTE) ** random.random()
    model = random.choice(_MODELS)
    match kind:
        case "running":
            progress = round(random.uniform(0, 99), 1)
            return emulator.add_job(ends_as="IN_PROGRESS", age_seconds=age, model_id=model, progress=progress)
        case "outruns its cancel":
            return emulator.add_job(ends_as="IN_PROGRESS", cancels_as="COMPLETED", age_seconds=age, model_id=model)
        case "validating":
            return emulator.add_job(status="VALIDATING", ends_as="VALIDATING", age_seconds=age, model_id=model)
        case "completed":
            return emulator.add_job(status="COMPLETED", age_seconds=age, model_id=model)
        case "failed":
            return emulator.add_job(
                status="FAILED", age_seconds=age, model_id=model, error="too many rows could not be processed"
            )
        case _:
            return emulator.add_job(status=kind.upper(), age_seconds=age, model_id=model)
