"""Runs the campaign by hand; see contrib/faults."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from functools import partial

from tests.faults.campaign import campaign
from tests.faults.kills import kills
from tests.faults.operations import OPERATIONS


def main() -> int:
    """Run what the command line says; 1 if something was not survived."""
    parser = argparse.ArgumentParser(prog="contrib/faults", description="Put faults into virtd's operations.")
    parser.add_argument("--only", default="", help="operations whose name contains this")
    parser.add_argument("--kind", default="", help="faults whose description contains this")
    parser.add_argument("--most", type=int, help="at most so many for each operation")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin none after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=0, metavar="ROUNDS", help="instead: SIGKILL at random instants")
    parser.add_argument("--stops", action="store_true", help="instead: processes are stopped at the points (SIGSTOP)")
    options = parser.parse_args()
    if options.kills:
        return _kills(options.seed, options.kills)
    tried, survived, missed = Counter[str](), Counter[str](), Counter[str]()
    begun = time.monotonic()
    chosen = [operation for operation in OPERATIONS if options.only in operation.name]
    limits = {"most": options.most, "kinds": options.kind, "seconds": options.minutes * 60, "stopping": options.stops}
    announce = partial(print, "to be tried:", flush=True)
    for outcome in campaign(chosen, seed=options.seed, announce=announce, **limits):
        name = outcome.plan.operation.name
        tried[name] += 1
        survived[name] += not outcome.problem
        missed[name] += not outcome.fired
        if outcome.problem:
            print(f"NOT SURVIVED {outcome.plan}: {outcome.problem}\n", flush=True)
        elif not outcome.fired:
            print(f"not reached {outcome.plan}", flush=True)
    print("| operation | tried | survived |\n|---|---|---|")
    for name in tried:
        print(f"| {name} | {tried[name]} | {survived[name]} |")
    print(f"| all | {tried.total()} | {survived.total()} |")
    print(f"{time.monotonic() - begun:.0f} s; {missed.total()} were not reached")
    return int(tried != survived)


def _kills(seed: int, rounds: int) -> int:
    tried, survived = Counter[str](), Counter[str]()
    for outcome in kills(seed, rounds):
        tried[outcome.victim] += outcome.hit
        survived[outcome.victim] += outcome.hit and not outcome.problem
        if outcome.problem:
            print(f"NOT SURVIVED {outcome}\n", flush=True)
    print("| who is killed | killed | survived |\n|---|---|---|")
    for name in tried:
        print(f"| {name} | {tried[name]} | {survived[name]} |")
    print(f"| all | {tried.total()} | {survived.total()} |")
    return int(tried != survived)


if __name__ == "__main__":
    sys.exit(main())
