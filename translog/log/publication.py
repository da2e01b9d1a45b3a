"""The publication policy of a log: read, and refused where it could never be met.

Rules: its witnesses are asked by URL, so a quorum that needs others is refused; its `log` lines, if it has any, must name this
log; a witness with a key or the name of this log would be the log itself. Entries with one URL are one witness with several
keys, asked once. https://c2sp.org/tlog-policy
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from translog.core.keys import VKey
from translog.core.policy import POLICY_BYTES_MAX, Policy, PolicyWitness, format_policy, parse_policy
from translog.core.quorum import has_quorum, weigh_policy
from translog.core.wire import printable
from translog.errors import MalformedError, SettingsError
from translog.log.rounds import verified_under
from translog.log.witnesses import Endpoint, WitnessClient

_logger = structlog.get_logger()


def read_publication_policy(path: Path, vkeys: Sequence[VKey]) -> Policy:
    """The policy in the file. `vkeys` are this log's. Raises SettingsError, naming the file and what is wrong."""
    try:
        with path.open("rb") as file:
            policy = parse_policy(file.read(POLICY_BYTES_MAX + 1))
        format_policy(policy).encode()  # as the log states it
    except OSError as error:
        raise SettingsError(f"cannot read the publication policy {path}: {error.strerror}", code="bad-policy") from None
    except UnicodeEncodeError:
        raise SettingsError(
            f"{path}: a name or URL in it is not UTF-8", hint="members get this policy as JSON", code="bad-policy"
        ) from None
    except MalformedError as error:
        raise SettingsError(f"{path}: {error.detail}", hint=error.hint, code="bad-policy") from None
    _require_own(path, policy, vkeys)
    reachable = [witness.name for witness in policy.witnesses.values() if witness.url is not None]
    if not all(has_quorum(stated, reachable) for stated in verified_under(policy)):
        others = ", ".join(printable(name) for name in policy.witnesses if name not in reachable)
        raise SettingsError(
            f"{path}: the quorum {printable(policy.quorum)} can never be met, since these witnesses have no URL: {others}",
            hint="give them URLs (`witness NAME VKEY URL`), or ask for a quorum of the others",
            code="quorum-unreachable",
        )
    for witness in policy.witnesses.values():
        if witness.url is not None and not witness.url.startswith(("http://", "https://")):
            raise SettingsError(f"{path}: the URL of witness {printable(witness.name)} is not http or https", code="bad-policy")
    return policy


def _require_own(path: Path, policy: Policy, vkeys: Sequence[VKey]) -> None:
    own = {vkey.public_key for vkey in vkeys}
    names = {vkey.name for vkey in vkeys}
    if policy.logs and not any(log.vkey in vkeys for log in policy.logs):
        raise SettingsError(
            f"{path}: its log lines name none of this log's keys",
            hint="a publication policy needs no log lines: leave them out, or correct them",
            code="bad-policy",
        )
    for witness in policy.witnesses.values():
        if witness.vkey.public_key in own or witness.vkey.name in names:
            raise SettingsError(
                f"{path}: witness {printable(witness.name)} has this log's key or name: a log cannot witness itself",
                code="bad-policy",
            )


def warn_of_weakness(policy: Policy) -> None:
    """Warns of a policy under which nobody needs to be dishonest for a split view but the operator."""
    worth = weigh_policy(policy)
    if worth.split is None:
        _logger.warning("the publication policy asks for no witness: only the operator vouches for the log")
    elif not worth.split:
        _logger.warning(
            "the publication policy allows a split view without any dishonest witness: two quorums share nobody",
            hint="ask for more than half of the witnesses; `translog policy check FILE` says more",
        )


def endpoints_of(policy: Policy, make_client: Callable[[str], WitnessClient]) -> list[Endpoint]:
    """The witnesses to ask: one endpoint for each URL."""
    by_url: dict[str, list[PolicyWitness]] = {}
    for witness in policy.witnesses.values():
        if witness.url is not None:
            by_url.setdefault(witness.url.rstrip("/"), []).append(witness)
    return [Endpoint(url=url, witnesses=tuple(found), client=make_client(url)) for url, found in by_url.items()]
