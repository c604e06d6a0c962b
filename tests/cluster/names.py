"""A name server of one name, as a headless Service of Kubernetes has: its addresses are the members of the cluster."""

import random
import socket
import socketserver
import threading

NAME = "clipd.test"

_A = (1).to_bytes(2, "big")
_IN = (1).to_bytes(2, "big")
# A pointer to the question's name, which begins after the header.
_SAME_NAME = b"\xc0\x0c"
_TTL = (1).to_bytes(4, "big")


class Names:
    """Answers on a free port of 127.0.0.1 from its construction on."""

    def __init__(self, members):
        self.members = members
        names = self

        class Question(socketserver.BaseRequestHandler):
            def handle(self):
                message, reply_to = self.request
                reply_to.sendto(names._answer(message), self.client_address)

        self._server = socketserver.UDPServer(("127.0.0.1", 0), Question)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._resolve = socket.getaddrinfo
        socket.getaddrinfo = self._getaddrinfo

    def close(self):
        socket.getaddrinfo = self._resolve
        self._server.shutdown()
        self._server.server_close()

    def shuffled(self):
        """As name servers do, so that clients that take the first one do not all take the same one."""
        return random.sample(self.members, len(self.members))

    def _answer(self, message):
        # One question; what follows it (EDNS) is left out of the answer.
        end = message.index(0, 12) + 5
        question = message[12:end]
        known = question[:-4] == b"".join(bytes([len(part)]) + part.encode() for part in NAME.split(".")) + b"\0"
        hosts = self.shuffled() if known and question[-4:] == _A + _IN else []
        flags = b"\x85\x80" if known else b"\x85\x83"
        counts = b"".join(count.to_bytes(2, "big") for count in (1, len(hosts), 0, 0))
        records = (_SAME_NAME + _A + _IN + _TTL + b"\0\x04" + socket.inet_aton(host) for host in hosts)
        return message[:2] + flags + counts + question + b"".join(records)

    def _getaddrinfo(self, host, port, *rest, **named):
        """What a program whose resolver asks this server gets: it tries the addresses in turn."""
        if host != NAME:
            return self._resolve(host, port, *rest, **named)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (member, port)) for member in self.shuffled()
        ]
