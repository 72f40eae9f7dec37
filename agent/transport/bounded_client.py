"""paho's client, where a broker cannot make it grow or wait.

A broker is not trusted: it may claim packets of 256 MB, begin 65 thousand exchanges of QoS 2 and
end none, or drip its part of a handshake for ever. paho has no limit for these. The private methods
of paho that are changed here are the only ones in this program; a test drives a hostile broker
against each.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

from agent.messages import MESSAGE_BYTES_MAX

PACKET_BYTES_MAX: Final = MESSAGE_BYTES_MAX + 4096
"""Of a packet: the largest message, its topic and its properties."""
_PUBLISH: Final = 0x30
_KIND: Final = 0xF0
_QOS_2: Final = 0x04


class BoundedClient(Client):
    """A client that ends the connection where a packet is too large or of QoS 2.

    Attributes:
        opened: The socket that was opened last; closed by ``give_up``.
        problem: Why the connection was ended here; empty: it was not.
        judge: Refuses a peer whose certificates' dates cannot be right, by raising.
    """

    opened: socket.socket | None = None
    problem = ""
    judge: Callable[[ssl.SSLSocket, str], None] | None = None

    def give_up(self) -> None:
        """Make whoever waits for the socket stop waiting; any thread may."""
        if self.opened is not None:
            with contextlib.suppress(OSError):
                self.opened.shutdown(socket.SHUT_RDWR)

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > PACKET_BYTES_MAX:
            self.problem = f"the broker sends a packet of {bufsize} bytes"
            raise ConnectionAbortedError(self.problem)
        return super()._sock_recv(bufsize)

    def _packet_handle(self) -> MQTTErrorCode:
        command = self._in_packet["command"]
        if command & _KIND == _PUBLISH and command & _QOS_2:
            self.problem = "the broker sends with a QoS that nobody asked for"
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        return super()._packet_handle()

    def _create_socket_connection(self) -> socket.socket:
        self.opened = super()._create_socket_connection()
        return self.opened

    def _create_unix_socket_connection(self) -> socket.socket:
        self.opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.opened.settimeout(self.connect_timeout)
        self.opened.connect(self.host)
        return self.opened

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        assert self._ssl_context is not None  # noqa: S101 - paho calls this only with one
        wrapped = self._ssl_context.wrap_socket(
            tcp_sock, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.opened = wrapped
        wrapped.settimeout(self.connect_timeout)
        wrapped.do_handshake()
        if self.judge is not None:
            self.judge(wrapped, self.host)
        return wrapped
