"""What things cost, beside a peer or a bare library in the same run: ``nox -s bench``.

Machines are noisy, so nothing here is asserted and nothing is an absolute figure: each case runs its candidates in
turn, several rounds, each run in a process of its own, and tells the median and the spread of the rounds' own ratios.

A case is a module, or a few of one module, that measures, judges and draws: :mod:`tests.benchmarks.__main__` has the
register, :mod:`tests.benchmarks._measure` tells what a case is. What was measured can be written down, and tables and
plots are made of that.
"""
