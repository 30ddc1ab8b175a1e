"""The admin program: looking into and adjusting the server itself, on a socket of its own.

The notation is that of virtd.protocol.tables.remote; the types are the admin program's own.
"""

# ruff: noqa: E501
from functools import partial

from virtd.protocol.procedure import CHANGE, INSTANT, Procedure

NUMBER = 0x06900690
VERSION = 1

P = partial(Procedure, "admin")

# fmt: off
# How many elements an array may have, or bytes an opaque value.
LIMITS = {
    "SERVER_LIST_MAX": 16384,
    "SERVER_THREADPOOL_PARAMETERS_MAX": 32,
    "CLIENT_LIST_MAX": 16384,
    "CLIENT_INFO_PARAMETERS_MAX": 64,
    "SERVER_CLIENT_LIMITS_MAX": 32,
}

TYPES = {
    "typed_param": "(field: string, value: typed_param_value)",
    "server": "(name: string)",
    "client": "(srv: server, id: uhyper, timestamp: hyper, transport: uint)",
    "typed_param_value": "union type: 1=i int, 2=ui uint, 3=l hyper, 4=ul uhyper, 5=d double, 6=b int, 7=s string",
}

PROCEDURES = (
    P(1, "CONNECT_OPEN", INSTANT, "(flags: uint)", "virAdmConnectOpen", opened=False),
    P(2, "CONNECT_CLOSE", INSTANT, "()", "virAdmConnectClose", opened=False),
    P(3, "CONNECT_GET_LIB_VERSION", INSTANT, "() -> (libVer: uhyper)", "virAdmConnectGetLibVersion"),
    P(4, "CONNECT_LIST_SERVERS", INSTANT, "(need_results: uint, flags: uint) -> (servers: server<SERVER_LIST_MAX>, ret: uint)", "virAdmConnectListServers"),
    P(5, "CONNECT_LOOKUP_SERVER", INSTANT, "(name: string, flags: uint) -> (srv: server)", "virAdmConnectLookupServer"),
    P(6, "SERVER_GET_THREADPOOL_PARAMETERS", INSTANT, "(srv: server, flags: uint) -> (params: typed_param<SERVER_THREADPOOL_PARAMETERS_MAX>)", "virAdmServerGetThreadPoolParameters"),
    P(7, "SERVER_SET_THREADPOOL_PARAMETERS", CHANGE, "(srv: server, params: typed_param<SERVER_THREADPOOL_PARAMETERS_MAX>, flags: uint)", "virAdmServerSetThreadPoolParameters"),
    P(8, "SERVER_LIST_CLIENTS", INSTANT, "(srv: server, need_results: uint, flags: uint) -> (clients: client<CLIENT_LIST_MAX>, ret: uint)", "virAdmServerListClients"),
    P(9, "SERVER_LOOKUP_CLIENT", INSTANT, "(srv: server, id: uhyper, flags: uint) -> (clnt: client)", "virAdmServerLookupClient"),
    P(10, "CLIENT_GET_INFO", INSTANT, "(clnt: client, flags: uint) -> (params: typed_param<CLIENT_INFO_PARAMETERS_MAX>)", "virAdmClientGetInfo"),
    P(11, "CLIENT_CLOSE", CHANGE, "(clnt: client, flags: uint)", "virAdmClientClose"),
    P(12, "SERVER_GET_CLIENT_LIMITS", INSTANT, "(srv: server, flags: uint) -> (params: typed_param<SERVER_CLIENT_LIMITS_MAX>)", "virAdmServerGetClientLimits"),
    P(13, "SERVER_SET_CLIENT_LIMITS", CHANGE, "(srv: server, params: typed_param<SERVER_CLIENT_LIMITS_MAX>, flags: uint)", "virAdmServerSetClientLimits"),
    P(14, "CONNECT_GET_LOGGING_OUTPUTS", INSTANT, "(flags: uint) -> (outputs: string, noutputs: uint)", "virAdmConnectGetLoggingOutputs"),
    P(15, "CONNECT_GET_LOGGING_FILTERS", INSTANT, "(flags: uint) -> (filters: string?, nfilters: uint)", "virAdmConnectGetLoggingFilters"),
    P(16, "CONNECT_SET_LOGGING_OUTPUTS", CHANGE, "(outputs: string?, flags: uint)", "virAdmConnectSetLoggingOutputs"),
    P(17, "CONNECT_SET_LOGGING_FILTERS", CHANGE, "(filters: string?, flags: uint)", "virAdmConnectSetLoggingFilters"),
    P(18, "SERVER_UPDATE_TLS_FILES", CHANGE, "(srv: server, flags: uint)", "virAdmServerUpdateTlsFiles"),
    P(19, "CONNECT_SET_DAEMON_TIMEOUT", CHANGE, "(timeout: uint, flags: uint)", "virAdmConnectSetDaemonTimeout"),
)
