"""A finished study -> a page on this machine, on which edits are tried by hand: `make explore`.

    python -m stages.studies.explore [--port 8642]

reads    data/selection, data/selection_by_image, data/dataset, data/clip, data/activations, params.yaml
writes   nothing
claims   nothing: the page shows single pictures. What it shows is computed with the functions of the stages

Only this machine can reach the page: the server listens on 127.0.0.1, and answers no other name. Whoever opens the page
needs the key in the address that the command prints, because other users of this machine could reach it, too.
`stages/studies/explore.md` says what the page can do, and why it is built as it is.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from stages.core import explorer
from stages.core.clip import vit
from stages.core.data import dataset
from stages.core.explorer.answers import Explorer
from stages.core.explorer.pictures import MAX_BYTES
from stages.core.explorer.requests import Place, View, parsed, picture_request
from stages.core.latents import selection
from stages.core.latents.spliced_clip import SplicedClip
from stages.core.run import params
from stages.core.run.errors import StudyError, run_command
from stages.core.schema import Compute, DescribeLatents, Edit, Inference, Ingest

DATASET_DPATH, CLIP_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/clip"), Path("data/activations")
SELECTION_DPATH, BY_IMAGE_DPATH = Path("data/selection"), Path("data/selection_by_image")
PAGE_DPATH = Path(explorer.__file__).parent
HOST, PORT = "127.0.0.1", 8642
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""The page loads nothing from other hosts. No other page can embed or read it. The browser stores no copy."""
SENTENCES = {
    404: "this address does not exist",
    405: "this address does not take requests of this kind",
    413: f"the picture has more than {MAX_BYTES // 2**20} MiB; scale it down",
    500: "the explorer failed; its terminal shows where",
}
"""The sentence that the page shows for each HTTP status."""


class ExploreError(StudyError):
    """The explorer cannot start. The message says why, and what to do."""


def open_study() -> Explorer:
    """Open the finished study in `data/`. Raises StudyError if a part of it is missing or damaged."""
    compute, inference, ingest, describe, edit = params.load(Compute, Inference, Ingest, DescribeLatents, Edit)
    if not SELECTION_DPATH.is_dir():
        raise ExploreError(f"{SELECTION_DPATH} is not there yet: make explore, or dvc repro select_sae")
    clip, data = vit.load(CLIP_DPATH, compute), dataset.load(DATASET_DPATH)
    chosen = selection.load(SELECTION_DPATH, BY_IMAGE_DPATH)
    spliced = SplicedClip.from_selection(chosen, clip, data, ACTIVATIONS_DPATH, describe.batch_size)
    return Explorer(spliced, chosen, edit, describe, inference, ingest.max_megapixels * 1e6)


def create_app(study: Explorer, port: int, key: str) -> Any:
    """Build the server of the page: a Flask app.

    study: the study to explore. port: port on which the server is reached.
    key: secret that the address must hold when the page is opened. A cookie of the browser then holds it.
    Raises ExploreError if Flask is not installed.
    """
    try:
        import flask
    except ImportError:
        raise ExploreError("Flask is missing: run `make explore`, or pip install 'flask>=3.1'") from None
    app: Any = flask.Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # columns have an order
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    _guard(app, port, key)
    _add_errors(app)
    _add_page(app)
    _add_answers(app, study)
    return app


def _guard(app: Any, port: int, key: str) -> None:
    """Let the app refuse requests with another host name, from another origin, or without the key."""
    from flask import redirect, request

    hosts, cookie = {f"{name}:{port}" for name in (HOST, "localhost")}, f"explore_{port}"

    def is_key(given: str) -> bool:
        return secrets.compare_digest(given.encode(), key.encode())

    def refuse_strangers() -> Any:
        if request.host not in hosts:
            return _refusal(403, f"this page is only at {HOST}:{port}, not at {request.host[:80]!r}")
        if request.headers.get("Origin", f"http://{request.host}").removeprefix("http://") not in hosts:
            return _refusal(403, "another page may not ask here")
        if request.path == "/" and is_key(request.args.get("key", "")):
            opened = redirect("/")
            opened.set_cookie(cookie, key, httponly=True, samesite="Strict")
            return opened
        if not is_key(request.cookies.get(cookie, "")):
            return _refusal(403, "open the page by the address that the command printed; it holds a key")
        return None

    def add_headers(response: Any) -> Any:
        response.headers.update(HEADERS)
        return response

    app.before_request(refuse_strangers)
    app.after_request(add_headers)


def _add_errors(app: Any) -> None:
    """Let the app answer every error with a sentence."""
    from werkzeug.exceptions import HTTPException

    def http_error(error: Any) -> Any:
        return _refusal(error.code, SENTENCES.get(error.code, error.name))

    def study_error(error: StudyError) -> Any:
        return _refusal(400, str(error))

    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(StudyError, study_error)


def _add_page(app: Any) -> None:
    from flask import Response

    for path, kind, media in (("/", "html", "html"), ("/page.css", "css", "css"), ("/page.js", "js", "javascript")):
        content = (PAGE_DPATH / f"page.{kind}").read_bytes()
        app.add_url_rule(path, kind, partial(Response, content, mimetype=f"text/{media}"))


def _add_answers(app: Any, study: Explorer) -> None:
    """Let the app answer the questions of the page, one at a time: hooks are set on the model meanwhile."""
    from flask import Response, request

    lock = Lock()

    def picture(kind: str, number: int, image: int) -> Any:
        return Response(study.picture(picture_request(kind, number), image), mimetype="image/png")

    questions: dict[str, Callable[..., Any]] = {
        "GET /study": study.overview,
        "GET /latents": study.latents,
        "GET /card/<int:latent>": study.card,
        "GET /picture/<kind>/<int:number>/<int:image>": picture,
        "POST /view": lambda: study.view(parsed(View, request.get_data())),
        "POST /firing": lambda: study.firing(parsed(Place, request.get_data())),
        "POST /upload": lambda: {"upload": study.upload(request.get_data())},
    }

    def answer(compute: Callable[..., Any], **numbers: Any) -> Any:
        request.get_data()  # before the lock: a slow upload keeps nobody waiting
        with lock:
            found = compute(**numbers)
        return found if isinstance(found, Response) else app.json.response(found)

    for rule, compute in questions.items():
        method, path = rule.split()
        app.add_url_rule(path, rule, partial(answer, compute), methods=[method])


def _refusal(status: int, sentence: str) -> Any:
    return {"error": sentence}, status


def listening(port: int) -> socket.socket:
    """Open a socket that only this machine can connect to. port: 0 takes any free port.

    Raises ExploreError if the port is taken or not allowed.
    """
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((HOST, port))
    except (OSError, OverflowError) as error:
        opened.close()
        raise ExploreError(f"port {port} cannot be used ({error}); choose another with --port") from None
    opened.listen()
    return opened


def open_server(study: Explorer, port: int) -> tuple[Any, str]:
    """Start to listen on a port of this machine. port: 0 takes any free port.

    Returns the server, whose method `serve_forever` answers requests, and the address of the page with its key.
    Raises ExploreError if the port cannot be used, or if Flask is not installed.
    """
    key = secrets.token_urlsafe(24)
    with listening(port) as opened:
        port = opened.getsockname()[1]
        app = create_app(study, port, key)
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # its lines about requests would hold the key
        return make_server(HOST, port, app, threaded=True, fd=opened.fileno()), f"http://{HOST}:{port}/?key={key}"


def main() -> None:
    parser = params.command_line(__doc__)
    parser.add_argument("--port", type=int, default=PORT, help=f"port on {HOST} (default: {PORT}; 0: any that is free)")
    port = parser.parse_args().port
    server, url = open_server(open_study(), port)
    print(f"{url}\nOpen this address in a browser of this machine. Stop with Ctrl-C.", flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    run_command(main)
