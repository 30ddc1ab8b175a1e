"""The settings of virtd.conf, as one table: name, type, default, meaning.

Parsing, checking, defaults, and the list in virtd.conf(5) come from it; a test holds the page to it. A name that
libvirtd knows and virtd has no use for stands in `UNUSED`: a file made for libvirtd works, and the log says what
has no effect.
"""

from typing import Any, NamedTuple


class Option(NamedTuple):
    """One line of the table.

    Attributes:
        name: libvirtd.conf's name of it.
        type: a key of config.CHECKS.
        default: what counts when the file does not say.
        meaning: for virtd.conf(5), in complete sentences.
    """

    name: str
    type: str
    default: Any
    meaning: str


SOCKETS = "Sockets"
AUTHENTICATION = "Authentication"
PROCESSES = "Processes and limits"
KEEPALIVE = "Keepalive"
LOGGING = "Logging"

# fmt: off
OPTIONS: dict[str, list[Option]] = {
    SOCKETS: [
        Option("unix_sock_dir", "string", None,
               "The directory of the Unix sockets. By default where libvirt's clients look: /run/libvirt for the "
               "system's instance, $XDG_RUNTIME_DIR/libvirt for a user's, ROOT/run/libvirt with --root."),
        Option("unix_sock_group", "string", None,
               "The group that owns the sockets. By default the group of the user who runs virtd."),
        Option("unix_sock_ro_perms", "mode", "0777",
               "The permissions of the read-only socket, in octal."),
        Option("unix_sock_rw_perms", "mode", None,
               "The permissions of the read-write socket, in octal. By default 0770 if unix_sock_group is set, "
               "0700 otherwise. Who may write to this socket has all the power virtd has."),
        Option("modular_sockets", "flag", 0,
               "With 1 the server also answers on the sockets of libvirt's modular daemons (virtqemud-sock, "
               "virtnetworkd-sock and so on) in the same directory. This name is virtd's own."),
        Option("listen_tcp", "flag", 0,
               "With 1, and virtd started with --listen, the server listens for TCP connections, which are neither "
               "encrypted nor protected."),
        Option("tcp_port", "port", "16509",
               "The port for TCP connections: a number, or a name from /etc/services."),
        Option("listen_addr", "string", None,
               "The address or host name to listen on for TCP connections. By default all of the host's."),
        Option("listen_tls", "notyet", 0,
               "Only 0 is possible: TLS is not supported yet."),
    ],
    AUTHENTICATION: [
        Option("auth_unix_ro", "auth", "none",
               "How clients of the read-only socket prove who they are. Only none is possible: the permissions of "
               "the socket decide, and the kernel says who it is."),
        Option("auth_unix_rw", "auth", "none",
               "The same for the read-write socket."),
        Option("auth_tcp", "auth", None,
               "The same for TCP connections. There is no authentication for them yet, so that whoever reaches the "
               "port has all the power virtd has. By default that is possible on the host's own loopback addresses; "
               "to listen on any other address the file must say none here."),
        Option("access_drivers", "access", (),
               "Only an empty list, or nop, is possible: whoever is connected read-write may do everything."),
    ],
    PROCESSES: [
        Option("max_clients", "number", 5000,
               "How many clients may be connected at once, over all sockets. The next one is told so and let go."),
        Option("max_queued_clients", "number", 1000,
               "How many connections may wait in the kernel for the server to accept them."),
        Option("max_anonymous_clients", "number", 20,
               "How many clients may be connected of whom it is not known yet who they are; 0 sets no limit. A "
               "client of a Unix socket is never one of them."),
        Option("min_workers", "number", 5,
               "How many processes wait for clients at least, forked ahead of need."),
        Option("max_client_requests", "number", 32,
               "How many calls of one client are worked on in processes of their own at the same time; the others "
               "wait. Calls that are answered at once do not count."),
    ],
    KEEPALIVE: [
        Option("keepalive_interval", "signed", 5,
               "After so many seconds of silence a client that supports it is asked whether it is still there; with "
               "-1 never."),
        Option("keepalive_count", "number", 5,
               "After so many questions without an answer, and one more interval, the connection is closed."),
    ],
    LOGGING: [
        Option("log_level", "level", 3,
               "The least important level that is logged: 4 errors, 3 warnings, 2 information, 1 debug."),
        Option("log_outputs", "outputs", None,
               "Where to log, outputs parted by spaces: LEVEL:stderr, LEVEL:file:PATH or LEVEL:syslog:NAME. By default "
               "standard error, or with --daemon the file virtd.log in the log directory."),
    ],
}
# fmt: on

BY_NAME: dict[str, Option] = {option.name: option for group in OPTIONS.values() for option in group}

_PROCESSES = "each client and each call that waits has a process of its own"
_TLS = "TLS is not supported yet"
_SASL = "SASL is not supported yet"
_ADMIN = "there is no administration socket yet"
_UUID = "the host's UUID comes from the firmware or /etc/machine-id"
_AUDIT = "auditing is not supported yet"

UNUSED: dict[str, str] = {
    "max_workers": _PROCESSES,
    "prio_workers": _PROCESSES,
    "max_requests": _PROCESSES,
    "log_filters": "messages have no categories",
    "log_buffer_size": "messages are not buffered",
    "keepalive_required": "libvirt does not use it either",
    "admin_keepalive_required": _ADMIN,
    "unix_sock_admin_perms": _ADMIN,
    "admin_min_workers": _ADMIN,
    "admin_max_workers": _ADMIN,
    "admin_max_clients": _ADMIN,
    "admin_max_queued_clients": _ADMIN,
    "admin_max_client_requests": _ADMIN,
    "admin_keepalive_interval": _ADMIN,
    "admin_keepalive_count": _ADMIN,
    "auth_tls": _TLS,
    "tls_port": _TLS,
    "key_file": _TLS,
    "cert_file": _TLS,
    "ca_file": _TLS,
    "crl_file": _TLS,
    "tls_no_sanity_certificate": _TLS,
    "tls_no_verify_certificate": _TLS,
    "tls_allowed_dn_list": _TLS,
    "tls_priority": _TLS,
    "tcp_min_ssf": _SASL,
    "sasl_allowed_username_list": _SASL,
    "host_uuid": _UUID,
    "host_uuid_source": _UUID,
    "audit_level": _AUDIT,
    "audit_logging": _AUDIT,
    "ovs_timeout": "Open vSwitch is not supported yet",
}
