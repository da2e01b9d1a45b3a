"""The one exception tree. Imports nothing.

Rules: every error carries a sentence a person can act on (`detail`, and `hint` where the next step is not obvious) and a
stable machine-readable `code`. Parsers raise MalformedError for hostile bytes and nothing else. CorruptionError is never
caught except to stop. A new class needs a caller that branches on it. server/problem.py maps types to HTTP statuses,
cli/main.py to exit codes; a test walks the subclasses and fails on one that is in neither table.
"""

from typing import ClassVar


class TranslogError(Exception):
    """Base of every error this package raises on purpose.

    `detail` says what is wrong, `hint` what to do next, `code` is stable and fit for programs.
    """

    default_code: ClassVar[str] = "error"

    def __init__(self, detail: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.code = code or self.default_code

    def __str__(self) -> str:
        return f"{self.detail} ({self.hint})" if self.hint else self.detail


class MalformedError(TranslogError):
    """Bytes that do not parse. The only error hostile input may cause in a parser."""

    default_code = "malformed"


class VerificationError(TranslogError):
    """Something well-formed did not prove what it claims."""

    default_code = "verification-failed"


class SignatureError(VerificationError):
    """No signature by a key we trust, or one that claims to be and is not valid."""

    default_code = "bad-signature"


class InclusionError(VerificationError):
    """An inclusion proof does not lead from the leaf to the root."""

    default_code = "not-included"


class ConsistencyError(VerificationError):
    """Two tree heads are not shown to be of one append-only tree."""

    default_code = "inconsistent"


class QuorumError(VerificationError):
    """Signed by the log, but not cosigned as the policy asks."""

    default_code = "no-quorum"


class DisclosureError(VerificationError):
    """A disclosed field, or what binds it to its event, log and stream, is not what the entry commits to."""

    default_code = "bad-disclosure"


class RefusedError(TranslogError):
    """The request is understood and not allowed."""

    default_code = "refused"


class AuthenticationError(RefusedError):
    """No credentials, or ones we do not know."""

    default_code = "unauthenticated"


class PermissionDeniedError(RefusedError):
    """Known, but without the right."""

    default_code = "permission-denied"


class TooLargeError(RefusedError):
    """Over a named limit."""

    default_code = "too-large"


class UnsupportedMediaError(RefusedError):
    """A content type or encoding we do not take."""

    default_code = "unsupported-media"


class NotFoundError(TranslogError):
    """No such thing, or not yet: then `retry_after_ms` is set."""

    default_code = "not-found"

    def __init__(self, detail: str, *, hint: str = "", code: str = "", retry_after_ms: int | None = None) -> None:
        super().__init__(detail, hint=hint, code=code)
        self.retry_after_ms = retry_after_ms


class ConflictError(TranslogError):
    """Conflicts with what is stored."""

    default_code = "conflict"


class WrongNumberError(ConflictError):
    """A sender's number is too high. `expected` is the one that its stream takes next."""

    default_code = "wrong-number"

    def __init__(self, detail: str, *, hint: str = "", code: str = "", expected: int = 0) -> None:
        super().__init__(detail, hint=hint, code=code)
        self.expected = expected


class OldSizeError(ConflictError):
    """A witness has another size than the one a request builds on. `size` is that of the checkpoint it cosigned last."""

    default_code = "old-size"

    def __init__(self, detail: str, *, size: int, hint: str = "", code: str = "") -> None:
        super().__init__(detail, hint=hint, code=code)
        self.size = size


class RateLimitedError(TranslogError):
    """Too often: nothing was done; try again after `retry_after_ms`."""

    default_code = "rate-limited"

    def __init__(self, detail: str, *, retry_after_ms: int, hint: str = "", code: str = "") -> None:
        super().__init__(detail, hint=hint, code=code)
        self.retry_after_ms = retry_after_ms


class PushbackError(TranslogError):
    """Not now: nothing was written; try again after `retry_after_ms`."""

    default_code = "pushback"

    def __init__(self, detail: str, *, retry_after_ms: int, hint: str = "", code: str = "") -> None:
        super().__init__(detail, hint=hint, code=code)
        self.retry_after_ms = retry_after_ms


class StorageError(TranslogError):
    """The store failed. For a write, whether it was applied is unknown; the sequencer stops and reopens the log."""

    default_code = "storage"


class FenceError(StorageError):
    """The store is not at the size this writer built on: somebody else wrote. Never reaches a client."""

    default_code = "fenced"


class HeldError(StorageError):
    """The log must not sign: DIR/head and the store do not allow it. It serves what it has and takes nothing new."""

    default_code = "read-only"


class SettingsError(TranslogError):
    """Settings, keys or a data directory that cannot be used as they are."""

    default_code = "settings"


class RemoteError(TranslogError):
    """The other side could not be reached, refused, or answered what no log would. `status` is None when unreached."""

    default_code = "remote"

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        hint: str = "",
        code: str = "",
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(detail, hint=hint, code=code)
        self.status = status
        self.retry_after_ms = retry_after_ms


class CorruptionError(TranslogError):
    """An invariant is broken. Never caught except to stop."""

    default_code = "corrupt"
