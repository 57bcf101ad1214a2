"""What things cost, beside a peer or a bare library in the same run: ``nox -s bench``.

Machines are noisy, so nothing here is asserted and nothing is an absolute figure: each case runs its candidates in
turn, several rounds, each run in a process of its own, and prints the ratio of the medians with the spread.
"""
