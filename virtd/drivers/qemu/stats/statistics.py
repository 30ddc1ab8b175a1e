"""virConnectGetAllDomainStats: the statistics of many guests in one call.

What the kernel and the files tell needs no guest's help. For the rest all monitors are asked at the same time, each
with the same short patience. A guest that does not answer is told of all the same: with what the kernel says now, and
with what it said itself when it last did.
"""

import math
from collections.abc import Sequence

from virtd import constants as c
from virtd import deadlines
from virtd.drivers import typed
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.guests import Entry
from virtd.drivers.qemu.host import cpumaps
from virtd.drivers.qemu.lookup import Lookup
from virtd.drivers.qemu.monitor import ask
from virtd.drivers.qemu.run import cgroup
from virtd.drivers.qemu.stats import facts, usage
from virtd.drivers.qemu.stats import groups as statgroups
from virtd.drivers.qemu.stats.known import Known
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, DomainStatsRecord, TypedParam
from virtd.state.process import stat_fields

_LIFE = (
    (c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE, c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE),
    (c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_PERSISTENT, c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_TRANSIENT),
    (
        c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING,
        c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_PAUSED,
        c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_SHUTOFF,
        c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_OTHER,
    ),
)
_FILTERS = sum(flag for group in _LIFE for flag in group)
_FLAGS = (
    _FILTERS
    | c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    | c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING
    | c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS
)
# Groups that only a running QEMU can tell of.
_OF_QEMU = c.VIR_DOMAIN_STATS_IOTHREAD | c.VIR_DOMAIN_STATS_DIRTYRATE | c.VIR_DOMAIN_STATS_VM
# How long a guest may take to answer; with NOWAIT; s.
PATIENCE = 0.25
NO_PATIENCE = 0.03
# So many guests are asked well within the moment that a query has in the worker.
FEW = 32


class Statistics(Lookup):
    """Statistics of all guests, or of some."""

    def connect_get_all_domain_stats(self, domains: list[Domain], stats: int, flags: int) -> list[DomainStatsRecord]:
        """virConnectGetAllDomainStats and virDomainListGetStats: VIR_DOMAIN_STATS_* groups, 0 for all there are."""
        unsupported_flags(flags, _FLAGS, "qemuConnectGetAllDomainStats")
        candidates = self._named(domains) if domains else self.guests.view()
        entries = [entry for entry in candidates if self._meets(entry, flags)]
        if flags & c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS:
            known = statgroups.ALL if all(entry.active for entry in entries) else statgroups.ALL & ~_OF_QEMU
            if stats & ~known:
                text = f"Stats types bits 0x{stats & ~known:x} are not supported by this daemon or QEMU"
                raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text)
        return self._records(entries, stats or statgroups.ALL, flags)

    def domain_get_cpu_stats(
        self, domain: Domain, wanted: int, first: int, count: int, flags: int
    ) -> tuple[list[TypedParam], int]:
        """virDomainGetCPUStats: CPU time in ns, of all host CPUs together (first = -1).

        Nobody counts it for each of the host's CPUs; asked how many CPUs there are, all the same the number is told.
        """
        unsupported_flags(flags, c.VIR_TYPED_PARAM_STRING_OKAY, "qemuDomainGetCPUStats")
        entry, status = self.running(domain)
        if first != -1:
            if wanted == 0:
                return [], cpumaps.host_cpus() if count == 0 else 1
            text = "operation 'getCpuacctPercpuUsage' not supported for backend 'cgroup V2'"
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_CGROUP)
        spent = usage.Times(0, 0)
        if status.process is not None:
            spent = usage.times(status.process.pid, cgroup.directory(entry.uuid))
        names = (("cpu_time", spent.total), ("user_time", spent.user), ("system_time", spent.system))
        if wanted == 0:
            return [], len(names)
        return [typed.unsigned_long(name, value) for name, value in names][:wanted], len(names)

    def _named(self, domains: list[Domain]) -> list[Entry]:
        """The guests of a list; one that has gone is left out."""
        found = []
        for domain in domains:
            try:
                found.append(self.guests.find(domain))
            except VirtError:
                continue
        return found

    def _meets(self, entry: Entry, flags: int) -> bool:
        """Whether a guest is among those that the flags ask for."""
        state, _ = self.guests.last_state(entry)
        has = (
            (_LIFE[0][0] if entry.active else _LIFE[0][1])
            | (_LIFE[1][0] if entry.persistent else _LIFE[1][1])
            | _STATES.get(state, c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_OTHER)
        )
        return all(has & flags for group in _LIFE if flags & sum(group))

    def _records(self, entries: Sequence[Entry], stats: int, flags: int) -> list[DomainStatsRecord]:
        known: list[tuple[Entry, facts.Facts, dict[str, object]]] = []
        questions: list[ask.Question] = []
        asked: list[dict[str, object]] = []
        for entry in entries:
            read = self._facts(entry)
            if read is None:
                continue  # it has gone meanwhile
            answers: dict[str, object] = {}
            known.append((entry, read, answers))
            guest = self.guest(entry)
            if entry.active and read.counted and stats & c.VIR_DOMAIN_STATS_PERF:
                answers[statgroups.COUNTERS] = _counted(guest)
            commands = statgroups.commands(read, guest, stats) if entry.active else []
            if not commands:
                continue
            question = ask.Question(guest, commands)
            if _stopped(entry):
                _fill(answers, question, None)
            else:
                questions.append(question)
                asked.append(answers)
        self._ask(questions, asked, flags)
        backing = bool(flags & c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING)
        return [
            _record(self.guests.last_state(entry), entry, read, answers, stats, backing)
            for entry, read, answers in known
        ]

    def _facts(self, entry: Entry) -> facts.Facts | None:
        if entry.active:
            found = facts.read(self.guest(entry).live_path)
            if found is not None:
                return found
        return facts.read(self.guests.definitions.path(entry.name))

    def _ask(self, questions: list[ask.Question], asked: list[dict[str, object]], flags: int) -> None:
        """Ask all guests, and put what they answer into their tables."""
        left = deadlines.remaining(math.inf)
        nowait = bool(flags & c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
        patience = NO_PATIENCE if nowait else PATIENCE
        hurried = left < PATIENCE
        if hurried and len(questions) > FEW:
            raise deadlines.DeadlineExceeded(f"{len(questions)} guests are not asked at once", domain=c.VIR_FROM_QEMU)
        results = ask.ask_all(questions, min(patience, left * 0.9))
        if hurried and not nowait and any(isinstance(one, deadlines.DeadlineExceeded) for one in results):
            raise deadlines.DeadlineExceeded("a guest did not answer at once", domain=c.VIR_FROM_QEMU)
        for question, answers, result in zip(questions, asked, results, strict=True):
            _fill(answers, question, None if isinstance(result, VirtError) else result)


_STATES = {
    c.VIR_DOMAIN_RUNNING: c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING,
    c.VIR_DOMAIN_PAUSED: c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_PAUSED,
    c.VIR_DOMAIN_SHUTOFF: c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_SHUTOFF,
}


def _counted(guest: Guest) -> dict[str, int]:
    """What the host's performance counters say of a guest; nothing if its supervisor cannot tell."""
    try:
        with deadlines.limit(NO_PATIENCE), guest.control() as control:
            return control.counted()
    except VirtError:
        return {}


def _stopped(entry: Entry) -> bool:
    """Whether a guest's QEMU has been stopped by a signal: it need not be waited for."""
    process = None if entry.status is None else entry.status.process
    fields = None if process is None else stat_fields(process.pid)
    return fields is not None and fields[0] in (b"T", b"t")


def _fill(answers: dict[str, object], question: ask.Question, result: ask.Answers | None) -> None:
    """Put a guest's answers into its table: those of now, else the last there were."""
    names = [ask.key(command) for command in question.commands]
    if result is not None:
        ask.remember(question.guest, question.commands, result)
        answers |= zip(names, result, strict=True)
        return
    for name, answer in zip(names, ask.recall(question.guest, question.commands), strict=True):
        if answer is not None:
            answers[name] = answer


def _record(
    state: tuple[int, int], entry: Entry, read: facts.Facts, answers: dict[str, object], stats: int, backing: bool
) -> DomainStatsRecord:
    group = cgroup.directory(entry.uuid) if entry.active else None
    known = Known(state, entry.status, read, group, answers, backing)
    params = [param for bit, one in statgroups.GROUPS.items() if stats & bit for param in one.make(known)]
    return DomainStatsRecord(entry.reference, params)
