"""Benchmarks of this package beside a peer or a bare library in the same run: ``nox -s bench``.

Machines are noisy, so nothing is asserted and no figure is absolute: each case runs its candidates in turn, for
several rounds, each run in a process of its own, and reports the median and the spread of the ratios within a round.

A case is a module, or one of several in a module, that measures, judges and draws: :mod:`tests.benchmarks.__main__`
has the register, :mod:`tests.benchmarks._measure` defines a case. Figures can be recorded, and tables and plots are
made from them.
"""
