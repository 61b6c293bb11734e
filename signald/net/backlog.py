"""The connections that wait in the kernel at a listening socket, and how it is closed without a reset of one of them.

When a listening socket is closed, the kernel resets each connection that was not accepted yet, and its client may have sent
a request already. Accepting until there is no more is not enough: another client connects between the last accept and the
close. So a filter on the socket discards each SYN first. Its client sends the SYN again a second later, and finds
the port closed, or another process that listens there (`listen.reuse_port`). No request of it was under way.
"""

import socket
import struct
import sys
from array import array
from contextlib import suppress

ROUND_TRIP_S = 0.2
"""How long a client whose SYN was answered may take to finish the TCP handshake: a round trip to the other side of the world."""

_SO_ATTACH_FILTER = 26
"""Of asm-generic/socket.h, which the `socket` module does not name."""

_LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
"""BPF_LD|BPF_B|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K of linux/bpf_common.h."""

_FLAGS_AT, _SYN, _SYN_OR_ACK = 13, 0x02, 0x12
"""Where the flags are in a TCP header (RFC 9293 3.1), which is where a filter of a TCP socket begins to read, and two of them."""

_DISCARD_SYN = (
    (_LOAD_BYTE, 0, 0, _FLAGS_AT),
    (_AND, 0, 0, _SYN_OR_ACK),
    (_JUMP_IF_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, 0xFFFFFFFF),
)
"""Discards a SYN that begins a connection. The ACK that ends a TCP handshake still comes through, and so does all that
follows: accepted connections inherit the filter."""


def take_no_more(listening: socket.socket) -> bool:
    """Have the kernel begin no further connection at `listening`; False where it cannot be told so.

    Not for a socket that another process listens on as well: the filter is the socket's, not the descriptor's.
    """
    if sys.platform != "linux" or listening.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = array("B", b"".join(struct.pack("HBBI", *step) for step in _DISCARD_SYN))
    with suppress(OSError):
        address, _ = program.buffer_info()
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DISCARD_SYN), address))
        return True
    return False
