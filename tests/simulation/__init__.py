"""Whole runs on a simulated machine: time costs nothing, the network and the disk fail, processes are killed.

One seed decides everything: the input, what the service does with each job and each row, which messages are lost,
when the process is killed, when the disk is full. ``python -m tests.simulation`` plays many seeds; with ``--seed`` it
replays one of them step by step.

The client, the run and its ledger, SQLite, the files, HTTP on both sides, and the emulator are real. Time
(:mod:`.machine`), the network (:mod:`.network`), the failures of the disk (:mod:`.disk`), the view that the service
gives of its state (:mod:`.service`, :mod:`.troubles`), and a user who calls again (:mod:`.world`) are simulated.
"""
