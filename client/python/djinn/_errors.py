"""Every failure of Djinn as a Python exception of its own type, carrying the C library's sentence.

The classes follow the statuses of runtime/base/status.h one to one; ``error.status`` is the number.
"""


class Error(RuntimeError):
    """Base of all. ``status`` is the C status (negative)."""

    def __init__(self, text, status=-22):
        super().__init__(text)
        self.status = status


class InvalidError(Error, ValueError):
    """An argument is not valid."""


class OutOfMemoryError(Error, MemoryError):
    """No memory left, here or on the rank."""


class LimitError(Error):
    """A limit was exceeded."""


class UnsupportedError(Error, NotImplementedError):
    """An op, a mode or a combination that Djinn does not have."""


class ShapeError(Error, ValueError):
    """Shapes do not fit."""


class DtypeError(Error, TypeError):
    """Data types do not fit."""


class ConnectError(Error, ConnectionError):
    """No server, or it cannot be reached."""


class ProtocolError(ConnectError):
    """A malformed message."""


class VersionError(ConnectError):
    """Two builds that do not speak the same protocol."""


class AuthError(ConnectError):
    """The server did not accept the token."""


class PeerDiedError(ConnectError):
    """The rank died: what it held is lost."""


class DeadlineError(Error, TimeoutError):
    """The deadline passed."""


class StaleError(Error):
    """A tensor of a closed connection, of a failed request or of an earlier generation."""


class CorruptError(Error):
    """Data that does not match its key or its hash."""


class FileError(Error, OSError):
    """A file that the rank cannot use."""

    def __str__(self):
        return str(self.args[0])


class ResourceError(Error):
    """Not enough memory or quota on the rank."""


class BusyError(Error):
    """The rank has no room for more requests now."""


class CancelledError(Error):
    """The request was cancelled, or the server has said that it ends."""


_BY_STATUS = {
    -1: InvalidError, -2: OutOfMemoryError, -3: LimitError, -4: UnsupportedError, -5: ShapeError,
    -6: DtypeError, -7: ProtocolError, -8: VersionError, -9: AuthError, -10: ConnectError,
    -11: PeerDiedError, -12: DeadlineError, -13: StaleError, -16: CorruptError, -17: FileError,
    -18: ResourceError, -19: BusyError, -20: CancelledError,
}


def by_status(status):
    return _BY_STATUS.get(status, Error)
