"""The jobs of the demo and of the emulator command."""

from __future__ import annotations

from collections import Counter

from together_batches.cli._demo_jobs import populate
from together_batches.emulator import Emulator


def test_every_kind_and_the_same_again() -> None:
    """A few hundred jobs are of every kind, and equal for an equal seed."""
    statuses = {"IN_PROGRESS", "VALIDATING", "COMPLETED", "FAILED", "EXPIRED", "CANCELLED", "CANCELING"}
    emulators = [Emulator(seed=3) for _ in range(2)]
    ids = [populate(emulator, 400, 3) for emulator in emulators]
    assert ids[0] == ids[1]
    counts = Counter(job["status"] for job in emulators[0].jobs)
    assert statuses == set(counts)
    assert counts["IN_PROGRESS"] > 200
    assert populate(Emulator(), 0, 0) == []
