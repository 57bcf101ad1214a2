"""Whole runs on a machine that is made up: a clock that costs nothing, wires and a disk that fail, a power switch.

One seed decides everything: the input, what the service does to each job and to each row, what gets lost on the way,
when the process is killed, when the disk is full. ``python -m tests.simulation`` plays many of them, and with
``--seed`` one of them again, step by step.

What is real: the client, the run and its ledger, SQLite, the files, the HTTP on both sides, the emulator. What is
made up: time (:mod:`.machine`), the wires (:mod:`.network`), what the disk does (:mod:`.disk`), what the service
shows of what it holds (:mod:`.service`, :mod:`.troubles`), and a user who calls again (:mod:`.world`).
"""
