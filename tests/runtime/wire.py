"""The control channel in Python, written from comm/messages.h alone: a second reader of the protocol."""
import hashlib
import os
import socket
import struct

VERSION = 5
CHALLENGE, HELLO, WELCOME, REDIRECT, REFUSE, HEARTBEAT, CLOSE = range(1, 8)
REGISTER, REPORT, PLAN, INFO, INFO_REPLY = range(8, 13)
EXEC = 32
CLIENT, WORKER, TOOL = 1, 2, 3
ERR_LIMIT, ERR_PROTOCOL, ERR_VERSION, ERR_AUTH, ERR_STALE = -3, -7, -8, -9, -13
FRAME = struct.Struct("<IHHII")
HELLO_STRUCT = struct.Struct("<32sIIIIQ16sQIIQ32sIIIIII")
MAGIC = 0x434E4A44


def frame(kind, body, sequence=0, version=VERSION, magic=MAGIC, length=None):
    return FRAME.pack(magic, version, kind, len(body) if length is None else length, sequence) + body


def hello(token, nonce, role=TOOL, address=b"", address_bytes=None, op_table=bytes(16), session=0,
          generation=0, flags=0, expires=0, grant=bytes(32)):
    """A HELLO's body with its proof."""
    size = len(address) if address_bytes is None else address_bytes
    fields = [role, os.getuid(), os.getpid(), size, 1, op_table, session, generation, flags, expires,
              grant, 0, 0, 0, 0xFFFFFFFF, 0, 0]
    bare = HELLO_STRUCT.pack(bytes(32), *fields)
    tail = hashlib.blake2b(address, digest_size=16).digest() if address else bytes(16)
    proof = hashlib.blake2b(nonce + bare + tail + struct.pack("<Q", len(address)), digest_size=32,
                            key=token).digest()
    return HELLO_STRUCT.pack(proof, *fields) + address


def redirect(body):
    """Session, grant and expiry of a REDIRECT."""
    session, _, _, _, expires, grant = struct.unpack_from("<QII64sQ32s", body)
    return session, grant, expires


class Control:
    """One connection to a control port; the challenge is read at once."""

    def __init__(self, address, limit_s=10):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=limit_s)
        kind, body = self.receive()
        assert kind == CHALLENGE, kind
        self.nonce, self.rank, self.incarnation = body[:32], *struct.unpack_from("<II", body, 32)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def receive(self):
        """(type, body), heartbeats left out; EOFError at the end."""
        while True:
            magic, version, kind, length, _ = FRAME.unpack(self.exactly(FRAME.size))
            assert (magic, version) == (MAGIC, VERSION), (magic, version)
            body = self.exactly(length)
            if kind != HEARTBEAT:
                return kind, body

    def send(self, data):
        self.socket.sendall(data)

    def refused(self):
        """Status and sentence of the REFUSE that must come, with the stream's end after it."""
        kind, body = self.receive()
        assert kind == REFUSE, kind
        status, _ = struct.unpack_from("<iI", body)
        try:
            self.receive()
        except (EOFError, ConnectionResetError):
            return status, body[8:].split(b"\0")[0].decode()
        raise AssertionError("the connection goes on after a REFUSE")

    def greet(self, token, **fields):
        """The answer's type and body."""
        self.send(frame(HELLO, hello(token, self.nonce, **fields)))
        return self.receive()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
