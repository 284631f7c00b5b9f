"""A server that speaks S3, a process on this machine, and a line to it that fails as networks do."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.studies import ENV

BUCKET = "studies"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
SECONDS = 30


def log_in(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """Credentials, and other variables, for this process and those that tests start."""
    for name, value in (CREDENTIALS | more).items():
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(ENV, name, value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server() -> Iterator[str]:
    """Its address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + SECONDS
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < until, "the server did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class BadLine:
    """A proxy before a server.

    drops: connections still to be cut in the middle of an answer; rate: bytes/s, which cost it `waited` seconds.
    """

    def __init__(self, endpoint: str):
        self.drops, self.dropped, self.rate, self.waited = 0, 0, float("inf"), 0.0
        self._counting = threading.Lock()
        self._to = int(endpoint.rsplit(":", 1)[1])
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                behind = socket.create_connection(("127.0.0.1", self._to))
                for ends in ((client, behind, False), (behind, client, True)):
                    self._threads.append(threading.Thread(target=self._pass_on, args=ends))
                    self._threads[-1].start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):  # the other direction was cut
            while chunk := source.recv(4096):
                if answers and len(chunk) > 2000 and self._is_to_drop():  # an answer that carries data
                    target.sendall(chunk[:1000])
                    break
                target.sendall(chunk)
                self._wait(len(chunk) / self.rate)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)
        with self._counting:
            self.waited += seconds

    def _is_to_drop(self) -> bool:
        with self._counting:
            if not self.drops:
                return False
            self.drops, self.dropped = self.drops - 1, self.dropped + 1
            return True

    def close(self) -> None:
        """No more connections; waits until those that are open have ended."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(SECONDS)
