"""Wrong tokens, other versions, malformed frames, noise on every port: each is told why, the server lives."""
import os
import random
import socket
import struct
import threading
import time

import live
import wire
from harness import until
from live import PeerError


def listening_ports(pid):
    """Every TCP address on which the process listens: (host, port)."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    ports = []
    with open(f"/proc/{pid}/net/tcp") as table:
        for line in list(table)[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                host, port = words[1].split(":")
                address = socket.inet_ntoa(struct.pack("=I", int(host, 16)))
                ports.append(("127.0.0.1" if address == "0.0.0.0" else address, int(port, 16)))
    return ports


def noise(address, data):
    """Throws bytes at a port; whether it takes them is its own business."""
    try:
        with socket.create_connection(address, timeout=2) as peer:
            peer.sendall(data)
            peer.settimeout(0.05)
            while peer.recv(65536):
                pass
    except OSError:
        pass


class Strangers(live.LiveTest):
    def setUp(self):
        super().setUp()
        self.serve(1)
        self.key = bytes.fromhex(self.token)
        self.worker = self.connected()
        self.pid = self.ranks()[0]["pid"]

    def tearDown(self):
        """The same process serves the same client, and a new one."""
        self.worker.ask("add", 3)
        self.connected().ask("add", 1)
        described = self.ranks()[0]
        self.assertEqual((described["pid"], described["incarnation"]), (self.pid, 0))

    def fails(self, status, words, address=None, token=None):
        peer = live.Peer(address or self.address, token or self.token, self.home)
        self.addCleanup(peer.close)
        with self.assertRaises(PeerError) as told:
            peer.connect()
        self.assertEqual(told.exception.status, status, told.exception.text)
        for word in words:
            self.assertIn(word, told.exception.text)

    def test_a_wrong_token(self):
        self.fails("ERR_AUTH", ["token", "DJINN_TOKEN"], token="ab" * 32)
        self.fails("ERR_INVALID", ["64"], token="ab")
        with wire.Control(self.address) as control:
            control.send(wire.frame(wire.HELLO, wire.hello(bytes(32), control.nonce)))
            self.assertEqual(control.refused()[0], wire.ERR_AUTH)

    def test_no_server(self):
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        self.fails("ERR_CONNECT", [f"127.0.0.1:{port}"], address=f"127.0.0.1:{port}")
        self.fails("ERR_CONNECT", ["no.such.host.invalid"], address="no.such.host.invalid:1")

    def test_a_proof_is_worth_nothing_twice(self):
        with wire.Control(self.address) as control:
            body = wire.hello(self.key, control.nonce)
            control.send(wire.frame(wire.HELLO, body))
            self.assertEqual(control.receive()[0], wire.WELCOME)
        with wire.Control(self.address) as control:
            control.send(wire.frame(wire.HELLO, body))
            self.assertEqual(control.refused()[0], wire.ERR_AUTH)

    def test_another_protocol_version(self):
        with wire.Control(self.address) as control:
            control.send(wire.frame(wire.HELLO, wire.hello(self.key, control.nonce),
                                    version=wire.VERSION + 1))
            status, text = control.refused()
        self.assertEqual(status, wire.ERR_VERSION)
        self.assertIn(str(wire.VERSION + 1), text)
        self.assertIn("version", text)

    def test_another_op_table(self):
        with wire.Control(self.address) as control:
            control.send(wire.frame(wire.HELLO, wire.hello(self.key, control.nonce,
                                                           role=wire.CLIENT, op_table=b"x" * 16)))
            status, text = control.refused()
        self.assertEqual(status, wire.ERR_VERSION)
        self.assertIn("op table", text)
        self.assertIn("install", text)

    def test_malformed_frames_before_the_hello(self):
        def hello(control, **fields):
            return wire.hello(self.key, control.nonce, **fields)
        makers = {
            "magic": (lambda c: wire.frame(wire.HELLO, hello(c), magic=0x44444444),
                      wire.ERR_PROTOCOL),
            "type": (lambda c: wire.frame(999, hello(c)), wire.ERR_PROTOCOL),
            "data type": (lambda c: wire.frame(wire.EXEC, bytes(64)), wire.ERR_PROTOCOL),
            "order": (lambda c: wire.frame(wire.INFO, bytes(8)), wire.ERR_PROTOCOL),
            "short": (lambda c: wire.frame(wire.HELLO, hello(c)[:50]), wire.ERR_PROTOCOL),
            "long": (lambda c: wire.frame(wire.HELLO, hello(c) + bytes(9000)), wire.ERR_LIMIT),
            "huge": (lambda c: wire.frame(wire.HELLO, hello(c), length=0xFFFFFFFF),
                     wire.ERR_LIMIT),
            "sequence": (lambda c: wire.frame(wire.HELLO, hello(c), sequence=7),
                         wire.ERR_PROTOCOL),
            "address": (lambda c: wire.frame(wire.HELLO, hello(c, address_bytes=4000)),
                        wire.ERR_PROTOCOL),
            "huge address": (lambda c: wire.frame(wire.HELLO, hello(c, address_bytes=1 << 31)),
                             wire.ERR_PROTOCOL),
            "role 0": (lambda c: wire.frame(wire.HELLO, hello(c, role=0)), wire.ERR_VERSION),
            "session": (lambda c: wire.frame(wire.HELLO, hello(c, role=wire.TOOL, session=5) +
                                             b""), None),
        }
        for name, (make, want) in makers.items():
            with self.subTest(name=name), wire.Control(self.address) as control:
                control.send(make(control))
                if want is None:
                    self.assertEqual(control.receive()[0], wire.WELCOME)
                    continue
                status, text = control.refused()
                self.assertEqual(status, want, text)
                self.assertTrue(text)

    def test_frames_that_a_greeted_peer_may_not_send(self):
        for name, data, want in [
                ("second hello", wire.frame(wire.HELLO, bytes(136), 1), wire.ERR_PROTOCOL),
                ("report", wire.frame(wire.REPORT, bytes(4096), 1), None),
                ("plan", wire.frame(wire.PLAN, bytes(48), 1), wire.ERR_PROTOCOL),
                ("welcome", wire.frame(wire.WELCOME, bytes(4096), 1), None),
                ("short info", wire.frame(wire.INFO, b"", 1), wire.ERR_PROTOCOL),
                ("oversized plan", wire.frame(wire.PLAN, b"", 1, length=0x7FFFFFFF),
                 wire.ERR_LIMIT),
                ("old sequence", wire.frame(wire.INFO, bytes(8), 0), wire.ERR_PROTOCOL)]:
            with self.subTest(name=name), wire.Control(self.address) as control:
                self.assertEqual(control.greet(self.key)[0], wire.WELCOME)
                control.send(data)
                status, _ = control.refused()
                self.assertIn(status, [want] if want else [wire.ERR_PROTOCOL, wire.ERR_LIMIT])

    def test_a_client_with_an_address_that_is_none(self):
        # The op table's hash is another protocol's secret: a client's hello as the library makes it is
        # tried in test_attach.c. Here the refusal must come before the address is looked at.
        with wire.Control(self.address) as control:
            control.send(wire.frame(wire.HELLO, wire.hello(self.key, control.nonce,
                                                           role=wire.CLIENT,
                                                           address=random.randbytes(300))))
            self.assertEqual(control.refused()[0], wire.ERR_VERSION)

    def test_silent_strangers_are_shown_out(self):
        controls = [wire.Control(self.address) for _ in range(20)]
        began = time.monotonic()
        for control in controls:
            with self.assertRaises((EOFError, ConnectionResetError)):
                control.receive()
            control.close()
        self.assertLess(time.monotonic() - began, 5)

    def test_a_hello_in_drops_is_shown_out(self):
        with wire.Control(self.address) as control:
            body = wire.frame(wire.HELLO, wire.hello(self.key, control.nonce))
            began = time.monotonic()
            with self.assertRaises((EOFError, OSError)):
                for byte in body:
                    control.send(bytes([byte]))
                    time.sleep(0.05)
                control.receive()
            self.assertLess(time.monotonic() - began, 5)

    def test_noise_on_every_port_while_a_client_works(self):
        ports = listening_ports(self.pid)
        self.assertGreaterEqual(len(ports), 2, "the control port and UCX's")
        rng = random.Random(5)
        self.worker.tell("work", 3000)
        end = time.monotonic() + 2.5
        rounds = 0
        while time.monotonic() < end:
            datas = [b"\xff" * 64, b"\0" * 64, b"GET / HTTP/1.0\r\n\r\n", b"",
                     rng.randbytes(rng.choice([1, 7, 8, 64, 500, 9000])),
                     struct.pack("<Q", rng.getrandbits(64)) + rng.randbytes(100)]
            threads = [threading.Thread(target=noise, args=(port, data))
                       for port in ports for data in datas]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
            rounds += 1
        self.assertGreater(int(self.worker.answer()[0]), 10)
        self.assertGreater(rounds, 3)

    def test_noise_behind_a_good_beginning(self):
        rng = random.Random(6)
        for _ in range(200):
            with wire.Control(self.address) as control:
                body = bytearray(wire.frame(wire.HELLO, wire.hello(self.key, control.nonce)))
                for _ in range(rng.randrange(1, 6)):
                    body[rng.randrange(len(body))] = rng.randrange(256)
                try:
                    control.send(bytes(body))
                    if rng.random() < 0.5:
                        control.socket.shutdown(socket.SHUT_WR)
                        control.receive()
                except (EOFError, OSError, AssertionError):
                    pass


class Servers(live.LiveTest):
    """Servers that are not what they should be: the client says so and lives."""

    def play(self, act):
        """A server that acts on each connection; what connecting to it says."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def run():
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    try:
                        act(peer)
                    except OSError:
                        pass
        threading.Thread(target=run, daemon=True).start()
        peer = live.Peer(f"127.0.0.1:{listener.getsockname()[1]}", "ab" * 32, self.home,
                         DJINN_CONNECT_MS="700")
        self.addCleanup(peer.close)
        with self.assertRaises(PeerError) as told:
            peer.connect()
        return told.exception.status, told.exception.text

    def challenge(self, **fields):
        return wire.frame(wire.CHALLENGE, bytes(40), **fields)

    def test_another_version(self):
        status, text = self.play(lambda peer: peer.sendall(self.challenge(version=9)))
        self.assertEqual(status, "ERR_VERSION")
        self.assertIn("9", text)

    def test_something_else(self):
        status, text = self.play(lambda peer: peer.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n" * 9))
        self.assertEqual(status, "ERR_PROTOCOL")
        self.assertIn("not a djinn", text)

    def test_silence(self):
        began = time.monotonic()
        status, _ = self.play(lambda peer: time.sleep(2))
        self.assertEqual(status, "ERR_DEADLINE")
        self.assertLess(time.monotonic() - began, 2)

    def test_an_end_at_each_point(self):
        for count in (0, 3, 16, 50):
            status, _ = self.play(lambda peer: peer.sendall(self.challenge()[:count]))
            self.assertEqual(status, "ERR_PEER_DIED")

    def test_a_welcome_without_an_address(self):
        def act(peer):
            peer.sendall(self.challenge())
            peer.recv(65536)
            body = bytearray(88)
            struct.pack_into("<I", body, 28, 4000)
            peer.sendall(wire.frame(wire.WELCOME, bytes(body), 1))
            peer.recv(65536)
        status, _ = self.play(act)
        self.assertEqual(status, "ERR_PROTOCOL")

    def test_redirections_in_circles(self):
        def act(peer):
            host, port = peer.getsockname()
            peer.sendall(self.challenge())
            peer.recv(65536)
            body = struct.pack("<QII64sQ32s", 1, 1, 0, f"{host}:{port}".encode(), 1, bytes(32))
            peer.sendall(wire.frame(wire.REDIRECT, body, 1))
        status, text = self.play(act)
        self.assertEqual(status, "ERR_CONNECT")
        self.assertIn("circles", text)


if __name__ == "__main__":
    live.main()
