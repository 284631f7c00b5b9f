"""The tests need no network, and cannot use one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request

import pytest

from stages import prepare_clip
from stages.core.clip import vit
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


def test_weights_that_cannot_be_fetched_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its attempts
    clip = Clip(source="open_clip", architecture="ViT-L-14-quickgelu", pretrained="openai")
    with pytest.raises(vit.ModelError) as stopped:
        prepare_clip.from_open_clip(clip)
    message = str(stopped.value)
    assert message.startswith("clip.pretrained: openai cannot be loaded into ViT-L-14-quickgelu: ")
    assert "`hf download timm/vit_large_patch14_clip_224.openai`" in message and "HF_HUB_OFFLINE=1" in message
