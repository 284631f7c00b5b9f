"""The server of the explorer: who is refused, and what may be sent."""

from __future__ import annotations

import socket
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from stages.studies import explore
from tests.explorer import files
from tests.imports import ROOT

PORT, KEY = 8642, "a key"
HERE = f"http://127.0.0.1:{PORT}"


@pytest.fixture
def stranger(study):
    """A client that has not opened the printed address."""
    return explore.create_app(study, PORT, KEY).test_client()


@pytest.fixture
def client(stranger):
    opened = stranger.get("/", query_string={"key": KEY}, base_url=HERE)
    assert (opened.status_code, opened.headers["Location"]) == (302, "/")
    assert all(part in opened.headers["Set-Cookie"] for part in ("HttpOnly", "SameSite=Strict"))
    return stranger


def refused(response, status: int, says: str) -> None:
    assert (response.status_code, says in response.json["error"]) == (status, True), response.json


def test_the_page_is_complete_and_loads_nothing_from_elsewhere(client):
    page = client.get("/", base_url=HERE)
    assert page.status_code == 200 and page.mimetype == "text/html"
    assert all(client.get(f"/{name}", base_url=HERE).status_code == 200 for name in ("page.js", "page.css"))
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy and "unsafe" not in policy
    for fpath in (ROOT / "stages" / "core" / "explorer").glob("page.*"):
        assert "://" not in fpath.read_text(), f"{fpath.name} names another place"


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1:1", f"10.0.0.1:{PORT}"])
def test_a_foreign_host_is_refused(client, host):
    client.set_cookie(f"explore_{PORT}", KEY, domain=host.partition(":")[0])
    refused(client.get("/study", base_url=f"http://{host}"), 403, f"this page is only at 127.0.0.1:{PORT}")


def test_another_page_may_not_ask(client):
    asked = client.post("/view", base_url=HERE, headers={"Origin": "http://evil.example"}, data=b'{"pair": 0}')
    refused(asked, 403, "another page may not ask")
    own = client.post("/view", base_url=HERE, headers={"Origin": HERE}, data=b'{"pair": 0}')
    assert own.status_code == 200
    assert own.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/study", "/latents", "/card/3", "/picture/pair/0/0", "/page.js"])
def test_without_the_key_nothing_is_shown(stranger, path):
    refused(stranger.get(path, base_url=HERE), 403, "open the page by the address that the command printed")
    refused(stranger.get(path, base_url=HERE, query_string={"key": "a guess"}), 403, "it holds a key")


@pytest.mark.parametrize(
    "path",
    [
        "/../../params.yaml",
        "/page.js/../answers.py",
        "/%2e%2e/%2e%2e/params.yaml",
        "/picture/pair/..%2f..%2f/0",
        "/picture/pair//etc/passwd",
        "/answers.py",
        "/data/dataset/manifest.csv",
        "/card/..",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    refused(client.get(path, base_url=HERE), 404, "this address does not exist")


def test_a_question_that_makes_no_sense_is_refused_in_a_sentence(client):
    refused(client.post("/view", base_url=HERE, data=b'{"pair": "../x"}'), 400, "pair: Input should be a valid integer")
    refused(client.get("/picture/file/0/0", base_url=HERE), 400, "a pair or an upload")
    refused(client.get("/picture/pair/99/0", base_url=HERE), 400, "pair 99 does not exist")
    refused(client.get("/picture/pair/0/2", base_url=HERE), 400, "there is no picture 2")
    refused(client.get("/card/64", base_url=HERE), 400, "latent 64 does not exist")
    refused(client.get(f"/picture/pair/{2**40}/0", base_url=HERE), 400, "less than")


def test_a_picture_is_uploaded_looked_at_and_never_a_wrong_file(client, rng):
    noise = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    sent = client.post("/upload", base_url=HERE, data=files.content(noise))
    assert sent.json == {"upload": 0}
    shown = client.get("/picture/upload/0/0", base_url=HERE)
    assert (np.asarray(Image.open(BytesIO(shown.data))) == np.asarray(noise)).all()
    refused(client.post("/upload", base_url=HERE, data=b"GIF89a"), 400, "neither a PNG nor a JPEG")
    large = files.content(Image.new("1", (7200, 7200)))
    refused(client.post("/upload", base_url=HERE, data=large), 400, "more than 50 megapixels")
    heavy = b"\x89PNG\r\n\x1a\n" + bytes(21 * 2**20)
    refused(client.post("/upload", base_url=HERE, data=heavy), 413, "more than 20 MiB")


def test_the_picture_of_a_pair_is_that_of_the_study(client, spliced):
    shown = client.get("/picture/pair/2/1", base_url=HERE)
    assert shown.mimetype == "image/png"
    assert (np.asarray(Image.open(BytesIO(shown.data))) == spliced.data.images(np.array([5]))[0]).all()


def test_only_this_machine_can_connect():
    with explore.listening(0) as opened:
        assert opened.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(explore.ExploreError, match=rf"port {port} cannot be used .* choose another with --port"):
            explore.listening(port)
    with pytest.raises(explore.ExploreError, match="port 70000"):
        explore.listening(70000)
