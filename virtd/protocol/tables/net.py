"""The types of the framing layer itself, which all programs share.

The notation is that of virtd.protocol.tables.remote.
"""

# The largest body of a message (header and payload) that virtd takes from a client not yet authenticated,
# and the largest there is. The length word itself is not counted in either.
MESSAGE_INITIAL_MAX = 65536
MESSAGE_MAX = 33554432
HEADER_LENGTH = 24
PAYLOAD_MAX = MESSAGE_MAX - HEADER_LENGTH
# Old clients take no more stream data than this in one message, so nobody sends more.
STREAM_DATA_MAX = 262120
STRING_MAX = 4194304
FDS_MAX = 32

LIMITS: dict[str, int] = {}

# fmt: off
TYPES = {
    "uuid": "opaque[16]",
    "domain": "(name: string, uuid: uuid, id: int)",
    "network": "(name: string, uuid: uuid)",
    "message_type": "enum CALL=0, REPLY=1, MESSAGE=2, STREAM=3, CALL_WITH_FDS=4, REPLY_WITH_FDS=5, STREAM_HOLE=6",
    "message_status": "enum OK=0, ERROR=1, CONTINUE=2",
    "header": "(prog: uint, vers: uint, proc: int, type: message_type, serial: uint, status: message_status)",
    "error": "(code: int, domain: int, message: string?, level: int, dom: domain?, str1: string?, str2: string?, str3: string?, int1: int, int2: int, net: network?)",  # noqa: E501
    "stream_hole": "(length: hyper, flags: uint)",
}
