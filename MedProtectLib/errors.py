"""The errors that a person is meant to read: one line that says what is wrong, in which file, and what to do."""


class MedProtectError(Exception):
    """A job that cannot be done. The command line prints the message and exits with 1."""

    exit_code = 1


class UsageError(MedProtectError):
    """A wrong option or option value. The command line prints the message and exits with 2."""

    exit_code = 2
