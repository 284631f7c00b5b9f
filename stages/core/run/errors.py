"""Errors that a user can act on, and the one place that turns them into an exit.

Every error class of this project derives from `StudyError`. Library functions raise it, so that code which calls them
in another process can catch it. Only the entry point of a command ends the process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


class StudyError(Exception):
    """Base class of errors a user can act on. The message names the file, row or key, what is wrong, and the remedy."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command.

    main: function without arguments that does the work of the command.
    A StudyError (an error that the user can act on) ends the process with exit code 1. Only its message is shown.
    Any other exception is a fault of the program, and is shown with a traceback.
    """
    try:
        main()
    except StudyError as error:
        sys.exit(str(error))
