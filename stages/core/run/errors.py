"""Errors that a user can act on, and the one place that turns them into an exit.

Every error class of this project derives from `StudyError`. Library functions raise it, so that code which calls them
in another process can catch it. Only the entry point of a command ends the process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from stages.core.run import faults, inputs


class StudyError(Exception):
    """Base class of errors a user can act on. The message names the file, row or key, what is wrong, and the remedy."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command, and remember what it reads (`run/inputs.py`).

    main: function without arguments that does the work of the command.
    A StudyError (an error that the user can act on) ends the process with exit code 1. Only its message is shown. What
    the machine refuses, such as a file without rights or more memory, ends the process in the same way
    (`run/faults.py`). Any other exception is a fault of the program, and is shown with a traceback. Python's option
    `-X dev` shows all tracebacks.
    """
    try:
        with inputs.watched():
            main()
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be printed fails here, and not after the end
    except Exception as error:
        says = str(error) if isinstance(error, StudyError) else faults.in_words(error)
        if says is None or sys.flags.dev_mode:
            raise
        sys.exit(says)
