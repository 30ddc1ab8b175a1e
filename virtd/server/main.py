"""The command line of virtd, and the order in which a server comes up.

Whatever is wrong with the command line, the configuration or the sockets is said in one line on standard error, and
the exit status says of which kind it is (commandline.py, and virtd(8)). Only what every start needs is imported at
the top: --inetd has to be quick.
"""

import os
import stat
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from virtd import constants as c
from virtd.errors import VirtError
from virtd.server import daemon, log
from virtd.server.commandline import StartError, Status, execute, say_version
from virtd.server.config import Config, load
from virtd.server.lean import click
from virtd.state import locks, paths, process

if TYPE_CHECKING:
    from collections.abc import Callable

    from virtd.drivers.base import Context
    from virtd.server.accept import AcceptLoop
    from virtd.server.front import Target


class Options:
    """The command line."""

    def __init__(self, **values: Any) -> None:
        self.root: str | None = values["root"]
        self.config: str | None = values["config"]
        self.daemon: bool = values["daemon_"]
        self.pid_file: str | None = values["pid_file"]
        self.timeout: int | None = values["timeout"]
        self.listen: bool = values["listen"]
        self.listen_tcp: tuple[str, ...] = values["listen_tcp"]
        self.listen_tls: tuple[str, ...] = values["listen_tls"]
        self.inetd: bool = values["inetd"]
        self.remote: bool = values["remote"]
        self.remote_uri: str | None = values["remote_uri"]
        self.replace: bool = values["replace"]
        self.verbose: bool = values["verbose"]


@click.command(
    "virtd",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The settings of virtd.conf(5) are beside these. See virtd(8) for signals, files and exit status.",
)
@click.option("--root", metavar="DIR", help="Put everything, sockets included, below DIR [VIRTD_ROOT].")
@click.option("-f", "--config", metavar="FILE", help="The configuration file [virtd.conf in the instance's etc/virtd].")
@click.option("-d", "--daemon", "daemon_", is_flag=True, help="Go into the background when the sockets accept.")
@click.option("-p", "--pid-file", metavar="FILE", help="Where to write the process id [virtd.pid in run/virtd].")
@click.option("-t", "--timeout", metavar="SECONDS", type=click.IntRange(1), help="End when nobody came for so long.")
@click.option("-l", "--listen", is_flag=True, help="Heed listen_tcp in the configuration file.")
@click.option("--listen-tcp", metavar="ADDR:PORT", multiple=True, help="Listen for TCP connections. Repeatable.")
@click.option("--listen-tls", metavar="ADDR:PORT", multiple=True, help="Listen for TLS connections (not yet).")
@click.option("--inetd", is_flag=True, help="Serve the one client on standard input, and nothing else.")
@click.option("--remote", is_flag=True, help="Forward everything to the virtd that owns the guests.")
@click.option("--remote-uri", metavar="URI", help="The way to it [its sockets on this machine].")
@click.option("--replace", is_flag=True, help="Take over the sockets of the running virtd; its clients stay with it.")
@click.option("-v", "--verbose", is_flag=True, help="Log what is normal, too.")
@click.option("-V", "--version", is_flag=True, expose_value=False, is_eager=True, callback=say_version, help="Say it.")
def command(**values: Any) -> None:
    """Serve libvirt's remote protocol: QEMU guests for virsh and every other client of libvirt."""
    run(Options(**values))


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point."""
    execute(command, arguments)


def run(options: Options) -> None:
    """Run a server to its end.

    Raises:
        StartError: it could not begin.
    """
    if options.listen_tls:
        raise StartError(Status.UNSUPPORTED, "--listen-tls is not supported yet")
    if options.inetd and (options.daemon or options.listen or options.listen_tcp or options.replace):
        raise StartError(
            Status.USAGE, "--inetd serves one client only: it neither listens nor goes into the background"
        )
    # Relative names are relative to where the command was given, wherever a daemon runs then.
    where = paths.find(options.root)
    if options.config:
        options.config = os.path.abspath(options.config)
    config = _configure(options, where)
    target = _target(options, where, config)
    if options.inetd:
        from virtd.server.inetd import serve

        serve(config, where, target)
        return
    _run_daemon(options, where, config, target)


def _target(options: Options, where: paths.Paths, config: Config) -> "Target | None":
    """Where --remote forwards to: by default to the instance that this command serves without --root.

    Raises:
        StartError: nowhere, or to itself.
    """
    if not options.remote:
        if options.remote_uri is not None:
            raise StartError(Status.USAGE, "--remote-uri goes with --remote")
        return None
    from virtd.drivers.remote.address import parse
    from virtd.server.front import Target
    from virtd.server.process import play

    owner = paths.find()
    uri = options.remote_uri or f"qemu+unix:///{owner.mode}"
    try:
        address, looking = parse(uri, owner), parse(uri, owner, read_only=True)
    except VirtError as error:
        raise StartError(Status.USAGE, f"--remote-uri: {error.message}") from None
    own = os.path.realpath(config.text("unix_sock_dir") or where.sockets)
    if address.socket and address.transport == "unix" and os.path.realpath(os.path.dirname(address.socket)) == own:
        text = f"--remote would forward to itself, for {address.socket} is its own; use --root, or --remote-uri"
        raise StartError(Status.USAGE, text)
    play("remote")
    return Target(address.socket if address.transport == "unix" else uri, address, looking, os.urandom(16))


def _configure(options: Options, where: paths.Paths) -> Config:
    to_file = options.daemon or _nobody_reads_errors() or (options.inetd and _client_reads_errors())
    return configure(options.config, where, verbose=options.verbose, to_file=to_file)


def configure(path: str | None, where: paths.Paths, *, verbose: bool = False, to_file: bool = False) -> Config:
    """Read the configuration file and open the log.

    Args:
        path: the file; None for that of the instance, if there is one.
        where: the instance's directories.
        verbose: log what is normal, too.
        to_file: if the file does not say where the log goes: not to standard error.

    Raises:
        StartError: the file is wrong.
    """
    try:
        config = load(path, f"{where.config}/virtd.conf")
        _open_log(config, where, verbose, to_file)
    except VirtError as error:
        raise StartError(Status.CONFIG, error.message) from None
    except OSError as error:
        raise StartError(Status.CONFIG, f"cannot open log '{error.filename}': {error.strerror}") from None
    for name, why in config.unused.items():
        log.warning(f"{config.path}: {name} has no effect: {why}")
    return config


def _open_log(config: Config, where: paths.Paths, verbose: bool, to_file: bool) -> None:
    outputs = config.outputs()
    if outputs is None:
        level = min(config.number("log_level"), log.INFO) if verbose else config.number("log_level")
        outputs = [log.Output(level, "stderr")]
        if to_file:
            os.makedirs(where.log, 0o700, exist_ok=True)
            outputs = [log.Output(level, "file", f"{where.log}/virtd.log")]
    log.open_outputs(outputs)
    process.reporter = log.warning


def _nobody_reads_errors() -> bool:
    """Whether standard error goes to /dev/null, as for a server that libvirt's library has started."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev


def _client_reads_errors() -> bool:
    from virtd.server.inetd import shares_output

    return shares_output()


def _run_daemon(options: Options, where: paths.Paths, config: Config, target: "Target | None") -> None:
    options.pid_file = os.path.abspath(options.pid_file or f"{where.runtime}/virtd.pid")
    launch = daemon.Launch()
    if options.daemon:
        launch.detach()
    try:
        loop = _start(options, where, config, target, launch)
    except StartError as problem:
        log.error(str(problem))
        if launch.failed(str(problem)):
            sys.exit(problem.status)
        raise
    except Exception as problem:
        log.bug("virtd cannot start", problem)
        launch.failed(log.trace(problem))
        raise
    loop.run()


def _start(
    options: Options, where: paths.Paths, config: Config, target: "Target | None", launch: daemon.Launch
) -> "AcceptLoop":
    """Bring the server up, to where clients are served.

    Raises:
        StartError: it cannot be.
    """
    from virtd.drivers import autostart, reapply
    from virtd.server.accept import AcceptLoop
    from virtd.server.rehearsal import prepare

    daemon.raise_limits()
    os.umask(0o022)

    def reload() -> Config:
        try:
            read = _configure(options, where)
        except StartError as error:
            raise VirtError(c.VIR_ERR_CONF_SYNTAX, str(error)) from None
        if target is None:
            loop.help(lambda: _help(where, "putting rules in place", reapply))
        return read

    try:
        start = _Start(options, where, config)
        prepare(config, where, drivers=target is None)
        assert options.pid_file is not None
        loop = AcceptLoop(
            config, where, start.listeners, start.lock, start.control, reload,
            timeout=options.timeout, files=(options.pid_file, start.control_path), own=lambda: launch.descriptors,
            target=target,
        )  # fmt: skip
        loop.start()
        daemon.write_pid_file(options.pid_file)
    except VirtError as error:
        raise StartError(Status.LISTEN, error.message) from None
    except OSError as error:
        raise StartError(Status.LISTEN, f"cannot fork child process: {error.strerror}") from None
    start.finish()
    launch.ready(f"accepting {start.listeners[0].address}")
    log.info(f"virtd serves {start.addresses}")
    if start.taken is None and target is None:
        loop.help(lambda: _help(where, "starting guests", autostart))
    return loop


def _help(where: paths.Paths, what: str, work: "Callable[[Context], list[VirtError]]") -> None:
    """Let the drivers do what concerns no client, in a process of its own."""
    from virtd.drivers.base import Context, Identity
    from virtd.server.process import title

    title(what)
    identity = Identity(os.geteuid(), os.getegid(), os.getpid(), "local", False)
    for error in work(Context(where, identity, os.getpid())):
        log.error(f"{what}: {error.message}")


class _Start:
    """What a server needs before it can accept: the lock, the sockets, the control socket.

    Raises:
        StartError: another virtd has them.
        VirtError: they cannot be made.
    """

    def __init__(self, options: Options, where: paths.Paths, config: Config) -> None:
        from virtd.server import listeners, takeover

        self.taken: takeover.Taken | None = None
        self.control_path = f"{where.runtime}/control"
        lock_path = f"{where.runtime}/virtd.lock"
        lock = locks.attempt(lock_path, "virtd, starting")
        if lock is None and not options.replace:
            raise StartError(
                Status.RUNNING,
                f"another virtd serves this root (lock {lock_path} is held by {locks.holder(lock_path)}); "
                "--replace takes over from it",
            )
        if lock is None:
            self.taken = _take_over(self.control_path)
            lock = locks.Lock(lock_path, self.taken.lock)
            self.listeners = self.taken.listeners
            self.control = self.taken.control
        else:
            self.listeners = listeners.inherited() or listeners.unix(config, where)
            self.control = takeover.listen(self.control_path)
        self.lock = lock
        self._listen_tcp(options, config)
        lock.say(f"virtd, serving {self.addresses}")

    @property
    def addresses(self) -> str:
        """Where clients come in."""
        return ", ".join(listener.address for listener in self.listeners)

    def _listen_tcp(self, options: Options, config: Config) -> None:
        from virtd.server import listeners

        wanted = [listeners.split_address(text) for text in options.listen_tcp]
        if options.listen and config.number("listen_tcp"):
            wanted.append((config.text("listen_addr"), config.text("tcp_port") or ""))
        for host, port in wanted:
            there = [listener.address for listener in self.listeners]
            self.listeners = [*self.listeners, *listeners.tcp(host, port, config, there)]

    def finish(self) -> None:
        """Clients are served now: let the virtd end that was replaced."""
        if self.taken is not None:
            try:
                self.taken.confirm()
            except OSError:
                log.info("the virtd that was to be replaced is gone already")


def _take_over(path: str) -> Any:
    from virtd.server import takeover

    try:
        return takeover.request(path)
    except (OSError, VirtError) as error:
        raise StartError(Status.TAKEOVER, f"cannot take over by '{path}': {error}") from None


if __name__ == "__main__":
    main()
