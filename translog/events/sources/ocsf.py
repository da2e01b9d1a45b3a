"""Records that are OCSF already: taken over as they are, as far as they may be.

Rules: a top-level field of a name or a type that OCSF does not have goes to `unmapped`, and so does a category or type that
contradicts the class, which is then derived. What the log makes itself is not taken from a sender: `raw_data`, its size and
hash, `observables` go to `unmapped`, and of `fed` only FED_TAKEN is taken over, the rest is `unmapped.fed`. Within the objects
nothing is changed: strict.py says what is wrong there. A class that this program does not know is kept.
https://schema.ocsf.io/1.8.0
"""

from collections.abc import Callable
from typing import Any

from translog.events.jsontext import INTEGER_MAX, JSONObject, split_stream
from translog.events.mapping import MappingError, Source

_CLASS_UIDS_OF_EXTENSION = 100_000
_PREFIX_MAX = 2**31 - 1


def _is_integer(value: Any) -> bool:
    return type(value) is int and abs(value) <= INTEGER_MAX


def _is_string(value: Any) -> bool:
    return type(value) is str


def _is_boolean(value: Any) -> bool:
    return type(value) is bool


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _is_strings(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def _is_objects(value: Any) -> bool:
    return type(value) is list and all(type(item) is dict for item in value)


_Check = Callable[[Any], bool]
_NAMES: dict[_Check, str] = {
    _is_integer: """
        class_uid category_uid activity_id type_uid severity_id time start_time end_time timezone_offset duration count
        account_switch_type_id requested_permissions actual_permissions access_mask exit_code injection_type_id launch_type_id
        type_id auth_protocol_id logon_type_id verdict_id confidence_id confidence_score impact_id impact_score risk_level_id
        risk_score priority_id action_id disposition_id status_id
    """,
    _is_boolean: "is_mfa is_remote is_cleartext is_new_logon is_alert is_suspected_breach",
    _is_strings: "privileges access_list",
    _is_objects: """
        policies resources auth_factors authorizations evidences tickets vulnerabilities anomaly_analyses malware attacks osint
        enrichments
    """,
    _is_object: """
        metadata actor user user_result group subgroup entity entity_result policy resource process module api database
        databucket table query_info service session authentication_token certificate logon_process src_endpoint http_request
        http_response cloud device dst_endpoint finding_info assignee assignee_group ticket remediation vendor_attributes
        malware_scan_info firewall_rule ai_model message_context trace unmapped
    """,
    _is_string: """
        class_name category_name activity_name type_name severity message comment account_switch_type injection_type launch_type
        type auth_protocol logon_type verdict confidence impact risk_level risk_details priority action disposition status
        status_code status_detail time_dt start_time_dt end_time_dt src_url
    """,
}
OWN_FIELDS = frozenset({"raw_data", "raw_data_hash", "raw_data_size", "observables", "fed"})
"""What the log makes itself."""
FIELD_CHECKS: dict[str, _Check] = {name: check for check, names in _NAMES.items() for name in names.split()}
"""Whether a value is of a top-level field's type, for all of them but OWN_FIELDS."""

_METADATA_CHECKS: dict[str, _Check] = {
    **dict.fromkeys(("uid", "version"), lambda value: type(value) is str and value != ""),
    "product": _is_object,
    "profiles": _is_strings,
}


def _is_why(value: Any) -> bool:
    return type(value) is dict and all(
        name in _WHY and type(said) is (dict if name == "policy" else str) for name, said in value.items()
    )


_WHY = frozenset({"reason", "ticket", "approval_uid", "policy", "decision"})
FED_TAKEN: dict[str, _Check] = {
    "ns": _is_string,
    "observer": _is_string,
    "reporter_chain": _is_strings,
    "on_behalf_of": _is_objects,
    "why": _is_why,
    "source_seq": lambda value: _is_integer(value) and value >= 0,
}
"""What of a sender's `fed` is taken over, if it is of that type."""


def map_ocsf(record: JSONObject, context: JSONObject) -> JSONObject:
    """The event of a record that is OCSF. Raises MappingError for one without a class."""
    class_uid = record.get("class_uid")
    if type(class_uid) is not int or not 0 <= class_uid <= _PREFIX_MAX:
        raise MappingError("its class_uid is not an integer of OCSF's")
    event: JSONObject = {}
    refused: JSONObject = {}
    for name, value in record.items():
        check = FIELD_CHECKS.get(name)
        if check is not None and check(value):
            event[name] = value
        elif value is not None and name != "fed":
            refused[name] = value
    _take_metadata(event, refused)
    _take_fed(event, refused, record.get("fed"))
    _classify(event, refused, class_uid)
    _put_unmapped(event, refused)
    return event


def _take_metadata(event: JSONObject, refused: JSONObject) -> None:
    """Values of metadata that the log itself reads must be of their types."""
    metadata = event.get("metadata", {})
    wrong = {name: metadata[name] for name, check in _METADATA_CHECKS.items() if name in metadata and not check(metadata[name])}
    if wrong:
        event["metadata"] = {name: value for name, value in metadata.items() if name not in wrong}
        refused["metadata"] = wrong


def _take_fed(event: JSONObject, refused: JSONObject, fed: Any) -> None:
    if type(fed) is not dict:
        if fed is not None:
            refused["fed"] = fed
        return
    taken = {name: value for name, value in fed.items() if name in FED_TAKEN and FED_TAKEN[name](value)}
    rest = {name: value for name, value in fed.items() if name not in taken}
    if taken:
        event["fed"] = taken
    if rest:
        refused["fed"] = rest


def _classify(event: JSONObject, refused: JSONObject, class_uid: int) -> None:
    """Category, activity and type: the sender's where they agree with the class, otherwise derived."""
    within = class_uid % _CLASS_UIDS_OF_EXTENSION
    category = event.get("category_uid")
    if category not in (class_uid // 1000, within // 1000):
        if category is not None:
            refused["category_uid"] = category
        event["category_uid"] = within // 1000
    type_uid = event.get("type_uid")
    if "activity_id" not in event and type_uid is not None and 0 <= type_uid - class_uid * 100 < 100:
        event["activity_id"] = type_uid - class_uid * 100
    activity = event.setdefault("activity_id", 0)
    if not 0 <= activity < 100:
        refused["activity_id"] = activity
        activity = event["activity_id"] = 0
    if type_uid != class_uid * 100 + activity:
        if type_uid is not None:
            refused["type_uid"] = type_uid
        event["type_uid"] = class_uid * 100 + activity


def _put_unmapped(event: JSONObject, refused: JSONObject) -> None:
    """The sender's `unmapped`, with what was refused beside it; below a name of its own where the two have a name in common."""
    own = event.get("unmapped", {})
    if own.keys() & refused.keys():
        own = {"unmapped": own}
    if refused or own:
        event["unmapped"] = {**own, **refused}


OCSF = Source(
    name="ocsf",
    version="1",
    split=lambda body, headers, records_max: split_stream(body, records_max=records_max),
    map=map_ocsf,
)
