"""Runs one use of some files and says whether it was accepted, refused with a word of what is wrong, or failed.

A failure is anything that a user would see as a traceback, wait for in vain, or lose files to: another exception than
StudyError, a refusal that does not name what it is about, more seconds than it may take, code or a process started, a
connection, a file made or changed outside the outs, any file at all changed by what was then refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.run import outs as outputs
from stages.core.run.errors import StudyError

SECONDS = 20
EXECUTION = {"pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
NETWORK = {"socket.connect", "socket.getaddrinfo"}
REMOVAL = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree", "os.symlink", "os.link"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NO_FILE = ("/dev/", "/proc/")


class Hang(BaseException):
    """Raised by the alarm. No Exception, or the code under test would catch it."""


@dataclass(frozen=True)
class Verdict:
    """What became of one input."""

    outcome: str
    """accepted | refused | failure"""
    why: str
    digest: str = ""
    """Digest of what was loaded; empty if nothing was accepted."""


class Watch:
    """Notes what the interpreter's audit events tell of code run and files written; on only inside `watching`."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        self.outs: tuple[Path, ...] = ()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in EXECUTION | NETWORK:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event in REMOVAL or (event == "open" and _for_writing(*arguments)):
            self._written(event, arguments)

    def _written(self, event: str, arguments: tuple[Any, ...]) -> None:
        by_descriptor = event != "shutil.rmtree" and isinstance(arguments[-1], int) and arguments[-1] >= 0
        if isinstance(arguments[0], int) or (event != "open" and by_descriptor):  # named by shutil.rmtree before
            return
        path = Path(os.path.abspath(os.fsdecode(arguments[0])))
        if not str(path).startswith(NO_FILE) and not _within(path, self.outs):
            self.seen.append(f"{event} {path}")

    @contextlib.contextmanager
    def watching(self, outs: tuple[Path, ...]) -> Iterator[None]:
        self.on, self.seen, self.outs = True, [], outs
        try:
            yield
        finally:
            self.on = False


WATCH = Watch()


def _for_writing(path: Any, mode: str | None, flags: int) -> bool:
    return bool(set(mode) & set("wax+")) if mode is not None else bool(flags & WRITING)


def _within(path: Path, outs: tuple[Path, ...]) -> bool:
    return any(path == out or out in path.parents or path in out.parents for out in outs)


def _places(out: Path) -> tuple[Path, ...]:
    """Where a stage may write for one of its outs: there, and beside it what is not yet whole or no longer needed."""
    return out, outputs.unfinished_path(out), outputs.unfinished_path(out.with_name(f"former.{out.name}"))


def files(folder: Path) -> dict[Path, str]:
    """Every file below, and its content's hash; where a link leads is its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = os.readlink(path)
        elif path.is_file():
            found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises Hang when they have passed."""

    def ring(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(use: Callable[[], str], named: tuple[str, ...], outs: tuple[Path, ...]) -> Verdict:
    """Run `use` with nothing on the screen; a refusal must hold one of the words `named`."""
    silence = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    try:
        with silence[0], silence[1], warnings.catch_warnings(), alarm(SECONDS), WATCH.watching(outs):
            warnings.simplefilter("ignore")
            return Verdict("accepted", "", use())
    except (StudyError, SystemExit) as refusal:
        said = str(refusal)
        if said in ("None", "0", "") or not any(name in said for name in named):
            return Verdict("failure", f"refused without a word of {' or '.join(named)}: {said!r:.400}")
        return Verdict("refused", said)
    except Hang:
        return Verdict("failure", f"took more than {SECONDS} s")
    except BaseException:
        return Verdict("failure", traceback.format_exc(limit=-4)[-1500:])


def judge(folder: Path, use: Callable[[], str], named: tuple[str, ...], outs: tuple[str, ...]) -> Verdict:
    """The verdict on one input that lies in `folder`."""
    locks = folder / outputs.LOCKS_DPATH
    places = tuple(place for out in outs for place in (*_places(folder / out), locks))
    with contextlib.chdir(folder):
        before = files(folder)
        verdict = attempt(use, named, places)
        after = files(folder)
    if WATCH.seen:
        return Verdict("failure", f"{verdict.outcome}, but: {'; '.join(WATCH.seen)}")
    changed = [path for path in before | after if before.get(path) != after.get(path) and locks not in path.parents]
    stray = [path for path in changed if not _within(path, places)]
    if stray:
        return Verdict("failure", f"{verdict.outcome}, but wrote outside its outs: {stray}")
    if changed and verdict.outcome == "refused":
        return Verdict("failure", f"refused ({verdict.why:.200}), but changed {changed}")
    return verdict
