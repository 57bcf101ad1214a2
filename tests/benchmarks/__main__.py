"""``python -m tests.benchmarks [CASE…]``: measure, print ratios and bars, write figures, plots and the page."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.benchmarks import (
    _page,
    _report,
    cost_curve,
    fan_out,
    flood,
    parquet,
    reading,
    results,
    runs,
    schemas,
    start,
    start_up,
    sync_call,
    transfer,
    validate,
    watch,
)
from tests.benchmarks._measure import Case, Plan, Samples

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        fan_out.NEAR,
        fan_out.FAR,
        fan_out.WIDE,
        *fan_out.GRID,
        flood.STEADY,
        flood.ADVISED,
        flood.CHANGING,
        flood.FAR,
        start.CASE,
        reading.RETRIEVE,
        reading.LIST,
        sync_call.CASE,
        cost_curve.CASE,
        cost_curve.MILLION,
        start_up.IMPORT,
        start_up.HELP,
        validate.CASE,
        transfer.UPLOAD,
        transfer.DOWNLOAD,
        results.CASE,
        schemas.CASE,
        runs.ARRANGE,
        runs.RUN,
        parquet.CASE,
        watch.CASE,
    )
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", allow_abbrev=False)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which (all, if none is named)")
    parser.add_argument("--list", action="store_true", help="tell which cases there are, and end")
    parser.add_argument("--rounds", type=int, default=3, help="how often each candidate runs (3)")
    parser.add_argument("--quick", action="store_true", help="one round of less of everything: a few minutes in all")
    parser.add_argument("--redraw", action="store_true", help="measure nothing; take what --json has")
    parser.add_argument("--json", type=Path, help="write all figures to this file, beside those of other cases")
    parser.add_argument("--plots", type=Path, help="draw the plots into this directory")
    parser.add_argument("--page", type=Path, help="renew the tables of this page, and the plots beside it")
    options = parser.parse_args()
    if options.quick and options.page:
        parser.error("the page is not made of a quick run")
    for name in options.cases:
        if name not in CASES:
            parser.error(f"there is no case {name}; there are {', '.join(CASES)}")
    return options


def _measured(case: Case, plan: Plan) -> _report.Measured | None:
    missing = [shown for need in case.needs if (shown := need.missing())]
    if missing:
        print(f"{case.name}: skipped, {missing[0]}")
        return None
    print(f"{case.name}: {case.summary}", flush=True)
    began = time.perf_counter()
    samples = Samples(list(case.measure(plan)))
    print(_report.printed(case, samples))
    print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
    return _report.Measured(samples, _report.machine())


def main() -> None:
    """Run the cases and write the figures, plots and page that the arguments request."""
    # A SIGTERM must end the servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    options = _arguments()
    if options.list:
        print(*(f"{case.name:17} {case.summary}" for case in CASES.values()), sep="\n")
        return
    if options.quick:
        print("quick: the sizes are smaller, so no figure and no bar says much")
    plan = Plan(rounds=1, quick=True) if options.quick else Plan(rounds=options.rounds)
    found = _report.read(options.json) if options.json else {}
    for name in [] if options.redraw else options.cases or CASES:
        measured = _measured(CASES[name], plan)
        if measured is None:
            continue
        found[name] = measured
        if options.json:
            _report.write(options.json, {known: found[known] for known in CASES if known in found})
            found = _report.read(options.json)  # rounded, as a later --redraw reads them
    if options.plots:
        _page.draw(options.plots, CASES, found)
    if options.page:
        _page.draw(options.page.parent, CASES, found)
        _page.renew(options.page, CASES, found)


if __name__ == "__main__":
    main()
