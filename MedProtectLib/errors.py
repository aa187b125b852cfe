"""The errors that a person is meant to read: one line that says what is wrong, in which file, and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_LINE = 1000
KEPT_AT_THE_END = 300


class MedProtectError(Exception):
    """A job that cannot be done. The command line prints the message and exits with 1.

    Its text is one printable line of bounded length, whatever the file said that it quotes.
    """

    exit_code = 1

    def __str__(self) -> str:
        return one_line(super().__str__())


class UsageError(MedProtectError):
    """A wrong option or option value. The command line prints the message and exits with 2."""

    exit_code = 2


@contextmanager
def memory_told() -> Iterator[None]:
    """What PyTorch raises when memory runs out becomes MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise


def remedy(error: OSError, otherwise: str) -> str:
    """What to do about an error of the file system; ``otherwise`` is what helps against most of them."""
    return "Use a shorter name." if error.errno == errno.ENAMETOOLONG else otherwise


def one_line(text: str) -> str:
    """A text that may quote what a file says, as one printable line of at most some 1000 characters; its end stays."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[: LONGEST_LINE - KEPT_AT_THE_END]} ... {line[-KEPT_AT_THE_END:]}"
