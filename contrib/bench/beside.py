"""virtd beside libvirtd: the same work through the same client, by both in turn, within one run.

Every piece of work is done by both servers in each round; the table gives medians, spreads and ratios (virtd's median
divided by libvirtd's). Both have sockets and directories of their own, on the same disk. Locks, checks, fsync and
confinement are on, as they are by default: virtd syncs definitions, starts guests as an unprivileged user to whom it
gives their files, and locks each change; libvirtd does what it does, without virtlogd (stdio_handler = "file").
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import libvirt

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import calls  # noqa: E402
import scale  # noqa: E402
import starts  # noqa: E402
import storage  # noqa: E402
from report import Report  # noqa: E402
from servers import Libvirtd, Server, Virtd, stop_all  # noqa: E402
from work import Bench, Work  # noqa: E402

libvirt.registerErrorHandler(lambda *_: None, None)

WORKS = {work.name: work for work in (*calls.WORKS, *starts.WORKS, *storage.WORKS)}
GROWTH = {"running": (scale.run_guests, scale.OF_RUNNING), "defined": (scale.define_guests, scale.OF_DEFINED)}

SIZES = {"running": scale.RUNNING, "defined": scale.DEFINED}


def do_works(bench: Bench, servers: list[Server], names: list[str], rounds: int, report: Report) -> None:
    """Each piece of work, by both in turn."""
    for work in (WORKS[name] for name in names):
        say(work.text)
        figures: dict[str, list[float]] = {server.name: [] for server in servers}
        for _ in range(min(rounds, work.rounds or rounds)):
            for server in servers:
                figures[server.name].append(work.do(bench, server))
        report.add(work, figures)


def do_growth(bench: Bench, servers: list[Server], of: str, sizes: list[int], rounds: int, report: Report) -> None:
    """Each series, at each size, by both in turn; all guests are gone afterwards."""
    prepare, table = GROWTH[of]
    for size in sizes:
        say(f"{size} {of} guests")
        for server in servers:
            prepare(bench, server, size)
        for series in table:
            figures: dict[str, list[float]] = {server.name: [] for server in servers}
            for _ in range(rounds):
                for server in servers:
                    figures[server.name].append(series.do(bench, server, size))
            report.add_size(of, series, size, figures)
    for server in servers:
        server.clear()


def alone(bench: Bench, virtd: Server, report: Report) -> None:
    """What libvirtd has no like of: --inetd, and the parts of a start."""
    say("virtd --inetd, QEMU by itself, the parts of a start")
    report.alone["virtd --inetd, from its start to its first reply"] = sorted(
        starts.inetd(Virtd.program, virtd.root) for _ in range(10)
    )[5]
    first, last = zip(*(starts.qemu_itself(bench.disk) for _ in range(10)), strict=True)
    report.alone["QEMU by itself: from its spawn to its first QMP answer"] = sorted(first)[5]
    report.alone["QEMU by itself: from quit to its end"] = sorted(last)[5]
    report.alone["4 QEMUs by themselves at once: to the last one's first QMP answer"] = sorted(
        starts.four_qemus(bench.disk) for _ in range(5)
    )[2]
    for part, taken in starts.breakdown(bench.disk).items():
        report.alone[f"start of a guest, {part}"] = taken


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="contrib/bench/run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    only = f"these alone, and no growth unless asked for: {', '.join(WORKS)}"
    parser.add_argument("--only", nargs="*", metavar="WORK", choices=WORKS, help=only)
    for of, sizes in SIZES.items():
        text = f"measure growth with so many {of} guests; none if no number follows [{sizes}]"
        parser.add_argument(f"--{of}", nargs="*", type=int, metavar="N", help=text)
    parser.add_argument("--not-alone", action="store_true", help="leave out what only virtd does")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write results.json, results.md and pictures there")
    parser.add_argument("--draw", type=Path, metavar="DIR", help="only draw the results.json that is there again")
    options = parser.parse_args()
    if options.draw:
        write(Report.read(options.draw / "results.json"), options.draw)
        return
    report = Report(options.rounds)
    directory = tempfile.mkdtemp(prefix="v-bench-", dir="/tmp")
    servers: list[Server] = [Virtd(f"{directory}/v"), Libvirtd(f"{directory}/l")]
    try:
        say("first start")
        first = {server.name: [server.start()] for server in servers}
        report.add(Work("first", "first answer after a server's first start, probing included", starts.restart), first)
        bench = Bench(directory, servers[-1])
        whole = options.only is None
        do_works(bench, servers, list(WORKS) if whole else options.only, options.rounds, report)
        for of, sizes in SIZES.items():
            wanted = getattr(options, of)
            wanted = (list(sizes) if whole else []) if wanted is None else wanted
            do_growth(bench, servers, of, wanted, min(3, options.rounds), report)
        if whole and not options.not_alone:
            alone(bench, servers[0], report)
    finally:
        stop_all(servers)
        shutil.rmtree(directory, ignore_errors=True)
    print(report.text())
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        report.write(options.write / "results.json")
        write(report, options.write)


def write(report: Report, directory: Path) -> None:
    """Text and pictures beside the JSON."""
    from draw import draw  # matplotlib: only whoever wants pictures needs it

    (directory / "results.md").write_text(report.text(), encoding="utf-8")
    draw(report, directory)


if __name__ == "__main__":
    main()
