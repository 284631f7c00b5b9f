"""The tests need no network, and cannot use one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from stages import prepare_clip
from stages.core.clip import hub, vit
from stages.core.schema import Clip
from tests.imports import ROOT
from tests.offline import sitecustomize

ELSEWHERE = "192.0.2.1"  # reserved for documentation
ATTEMPTS = {
    "connect": f"socket.create_connection(('{ELSEWHERE}', 443), timeout=1)",
    "connect_ex": f"with socket.socket() as tcp: tcp.connect_ex(('{ELSEWHERE}', 443))",
    "ipv6": "with socket.socket(socket.AF_INET6) as tcp: tcp.connect(('2001:db8::1', 443))",
    "datagram": f"with socket.socket(type=socket.SOCK_DGRAM) as udp: udp.sendto(b'', ('{ELSEWHERE}', 53))",
    "lookup": "socket.getaddrinfo('example.org', 443)",
    "lookup of bytes": "socket.gethostbyname(b'example.org')",
    "download": "urllib.request.urlopen('https://example.org')",
}
REFUSAL = "is not this machine"
QUICK = 4.0  # seconds; huggingface_hub itself takes a minute


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_another_machine_is_refused(attempt):
    with pytest.raises(OSError, match=REFUSAL):
        exec(attempt, {"socket": socket, "urllib": urllib})


@pytest.mark.parametrize("attempt", [ATTEMPTS["connect"], ATTEMPTS["lookup"]], ids=["connect", "lookup"])
def test_so_it_is_to_the_processes_that_a_process_starts(attempt):
    child = f"import socket; {attempt}"
    parent = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)"
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and REFUSAL in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", socket.gethostname()])
def test_this_machine_is_not(host):
    with socket.create_server(("", 0)) as server:
        socket.create_connection((host, server.getsockname()[1]), timeout=5).close()


def test_nor_are_unix_sockets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # their paths must be short
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        client.connect("socket")


def test_a_sitecustomize_that_was_there_before_still_runs(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('still here')")
    path = os.pathsep.join([str(sitecustomize.FOLDER), str(tmp_path)])
    done = subprocess.run([sys.executable, "-c", ""], env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    assert done.stdout.decode() == "still here\n"


@pytest.mark.parametrize("package", sitecustomize.OF_THE_TESTS)
def test_a_stage_is_without_packages_that_a_user_does_not_install(package):
    locked = (ROOT / "requirements.lock").read_text().splitlines()
    assert not [line for line in locked if line.startswith(f"{package}==")]
    command = [sys.executable, "-c", f"import {package}", "stages.extract"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"ModuleNotFoundError: import of {package} halted" in done.stderr


CLIP = Clip(source="open_clip", architecture="ViT-L-14-quickgelu", pretrained="openai")
REPOSITORY = "timm/vit_large_patch14_clip_224.openai"


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path


@pytest.fixture
def hub_at(monkeypatch):
    """A function that moves the hub to a port of this machine."""

    def move(port: int) -> None:
        here = f"http://127.0.0.1:{port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", here)
        template = here + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)

    return move


def refusal_in_seconds() -> tuple[str, float]:
    start = time.monotonic()
    with pytest.raises(vit.ModelError) as stopped:
        prepare_clip.from_open_clip(CLIP)
    return str(stopped.value), time.monotonic() - start


def test_weights_that_cannot_be_fetched_are_named_with_the_remedy_within_seconds(empty_cache):
    message, seconds = refusal_in_seconds()
    assert seconds < QUICK
    assert message.startswith(
        "clip.pretrained: openai of ViT-L-14-quickgelu is not on this machine, and https://huggingface.co cannot be "
        "reached ("
    )
    assert "; connect this machine, or set clip.pretrained to the path of a .safetensors file" in message
    assert f"`hf download {REPOSITORY}`" in message and "HF_HUB_OFFLINE=1" in message


def test_a_hub_that_refuses_is_asked_once(empty_cache, hub_at):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    hub_at(port)  # where nobody listens any more
    message, seconds = refusal_in_seconds()
    assert f"and http://127.0.0.1:{port} cannot be reached (ConnectError: " in message and seconds < QUICK


@pytest.mark.parametrize("slow", ["the answer", "the look-up"])
def test_a_hub_that_never_answers_is_given_up_after_the_patience(empty_cache, hub_at, monkeypatch, slow):
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    if slow == "the look-up":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: time.sleep(20))
    with socket.create_server(("127.0.0.1", 0)) as server:
        hub_at(server.getsockname()[1])
        message, seconds = refusal_in_seconds()
    assert "does not answer within 0.5 seconds; connect" in message or "cannot be reached (ReadTimeout" in message
    assert seconds < QUICK


def test_a_hub_that_answers_is_within_reach_and_weights_of_the_cache_ask_nobody(empty_cache, hub_at, monkeypatch):
    asked = []

    class NotFound(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *given):
            pass

    with HTTPServer(("127.0.0.1", 0), NotFound) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        hub_at(server.server_port)
        hub.check_within_reach(CLIP.architecture, CLIP.pretrained)
        assert asked == [f"/{REPOSITORY}/resolve/main/open_clip_model.safetensors"]
        folder = empty_cache / f"models--{REPOSITORY.replace('/', '--')}"
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "snapshots" / "abc" / "open_clip_model.safetensors").touch()
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        hub.check_within_reach(CLIP.architecture, CLIP.pretrained)
        (folder / "refs" / "main").unlink()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        hub.check_within_reach(CLIP.architecture, CLIP.pretrained)
        hub.check_within_reach("ViT-B-32", "random")
        server.shutdown()
    assert len(asked) == 1
