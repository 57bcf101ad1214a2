"""An emulator of the service: the Batch and Files API on a loopback port, in memory, with its quirks and with faults.

It is for tests, for experiments and for the command ``demo``. It shares no code with the client: the two meet only on
the wire, so that one cannot hide the other's mistake.
"""

from together_batches.emulator._emulator import Emulator
from together_batches.emulator._faults import Fault, RateLimit
from together_batches.emulator._gateway import RecordedRequest
from together_batches.emulator._jobs import Timing
from together_batches.emulator._replies import Reply
from together_batches.emulator._rows import Answer, Failure, Missing

__all__ = ["Answer", "Emulator", "Failure", "Fault", "Missing", "RateLimit", "RecordedRequest", "Reply", "Timing"]
