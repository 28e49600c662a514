"""The one base of errors that a user can mend."""


class ComoError(Exception):
    """A problem in what was given; the message says what was given, what was expected, where, and what to do.

    `como` prints it as one line and exits with 2; anything else is a defect of ours and keeps its traceback.
    """


class OutputError(ComoError):
    """Output that cannot be written. It ends the work, where an input that cannot be read costs only itself."""
