"""The canonical event: which fields it has, what each class requires, and which of its values are worth a search.

An event is an OCSF 1.8.0 object of one of CLASSES, with one extension, `fed` (schema.py documents every field). Rules: the
tables below are a compact copy of what OCSF requires, compared with the published schema in a test and never loaded from it;
they know what must be there, not what a value looks like, which is strict.py's business. An attribute that only a profile
requires counts when metadata.profiles names that profile. Pure, and without dependencies, for it runs once for every event.
https://schema.ocsf.io/1.8.0
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

OCSF_VERSION = "1.8.0"

MISSING_MAX, OBSERVABLES_MAX, OBSERVABLE_CHARS_MAX = 100, 1_000, 1_024
"""Bounds on what we add to an event: no real event comes near them, and a hostile one must not grow beyond what it is."""

JSONObject = dict[str, Any]


class EventClass(NamedTuple):
    """A class of events. `requires` are its own required attributes beside BASE_REQUIRES; of `one_of`, if there are any, it
    needs at least one, and the first is what `fed.missing` names."""

    name: str
    category_uid: int
    requires: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()


CLASSES: dict[int, EventClass] = {
    0: EventClass("base_event", 0),
    1007: EventClass("process_activity", 1, ("actor", "device", "process")),
    2004: EventClass("detection_finding", 2, ("finding_info",)),
    3001: EventClass("account_change", 3, ("user",)),
    3002: EventClass("authentication", 3, ("user",), ("service", "dst_endpoint")),
    3003: EventClass("authorize_session", 3, ("user",), ("privileges", "group")),
    3004: EventClass("entity_management", 3, ("entity",)),
    3005: EventClass("user_access", 3, ("user", "privileges")),
    3006: EventClass("group_management", 3, ("group",)),
    6003: EventClass("api_activity", 6, ("actor", "api", "src_endpoint")),
    6005: EventClass("datastore_activity", 6, ("actor", "src_endpoint"), ("database", "databucket", "table")),
}
"""The classes an event may have, by class_uid. https://schema.ocsf.io/1.8.0/classes"""

BASE_REQUIRES = ("metadata", "class_uid", "category_uid", "activity_id", "type_uid", "severity_id", "time")
"""What every class requires."""

PROFILE_REQUIRES = {"cloud": "cloud", "osint": "osint"}
"""What every class requires besides once metadata.profiles names the profile."""

_FIELD_ORDER = """
metadata class_uid class_name category_uid category_name activity_id activity_name type_uid type_name severity_id severity
time time_dt timezone_offset start_time start_time_dt end_time end_time_dt duration count message comment
actor user user_result account_switch_type account_switch_type_id group subgroup entity entity_result privileges
requested_permissions actual_permissions access_list access_mask policies policy resource process module exit_code
injection_type injection_type_id launch_type launch_type_id
api resources database databucket table query_info type type_id
service session auth_protocol auth_protocol_id auth_factors authentication_token certificate logon_type logon_type_id
logon_process is_mfa is_remote is_cleartext is_new_logon
src_endpoint http_request http_response cloud device dst_endpoint authorizations
finding_info evidences is_alert is_suspected_breach verdict verdict_id confidence confidence_id confidence_score impact
impact_id impact_score risk_level risk_level_id risk_score risk_details priority priority_id assignee assignee_group ticket
tickets src_url vulnerabilities remediation anomaly_analyses vendor_attributes malware malware_scan_info attacks action
action_id disposition disposition_id firewall_rule osint ai_model message_context
status_id status status_code status_detail trace raw_data raw_data_hash raw_data_size unmapped observables enrichments fed
"""

FIELD_ORDER: tuple[str, ...] = tuple(_FIELD_ORDER.split())
"""The top-level names an event may have, in the order in which it has them: what happened, who, to what, from where, how it
ended, and then the original and what we know about it."""

# What an object requires: names, and alternatives of which it needs one. The first alternative is the customary one.
_REQUIRES = """
account agent application container d3f_tactic d3f_technique feature firewall_rule group idp logger mitigation
  organization product resource_details rule service sub_technique table tactic technique trait transformation_info:
  name|uid
actor: user|process|invoked_by|session|app_name|app_uid
advisory cve cwe finding_info image node programmatic_credential related_event request trace: uid
affected_code: file
affected_package package software_component: name version
ai_model: name ai_provider name|uid
analysis_target campaign cis_control job threat_actor: name
analytic database databucket malware_scan_info: type_id name|uid
anomaly baseline: observation_parameter observations
anomaly_analysis: analysis_targets anomalies
api: operation
attack: tactic|technique|sub_technique
auth_factor: factor_type_id
autonomous_system: name|number
certificate: issuer serial_number
classifier_details: type
cloud: provider
cvss: version base_score
d3fend: d3f_tactic|d3f_technique
data_classification: category_id|confidentiality_id
device: type_id hostname|ip|name|uid|instance_uid|interface_uid|interface_name
digital_signature: algorithm_id
dns_answer: rdata
dns_query: hostname
domain_contact tls_extension: type_id
edge: source target name|uid
email: from|to
enrichment: name data value
environment_variable http_header metric: name value
epss: score
evidences: user|actor|api|connection_info|data|database|databucket|device|dst_endpoint|email|file|process|query|
  src_endpoint|url|job|script|reg_key|reg_value|win_service
extension: version name|uid
file os: name type_id
fingerprint: value algorithm_id
function_invocation: parameters|return_value|error
graph: nodes name|uid
http_response: code
ja4_fingerprint osint: value type_id
kb_article ticket: uid|src_url
key_value_object: name value|values
kill_chain_phase: phase_id
location: city|country|postal_code|region
long_string observation: value
malware: classification_ids name|uid
managed_entity: user|name|uid|device|group|org|policy
message_context: service|application
metadata: product version
module: load_type_id|function_name
network_connection_info: direction_id
network_endpoint network_proxy: ip|hostname|svc_name|name|uid|instance_uid|interface_uid|interface_name|domain
network_interface: name|uid|ip|hostname|mac
occurrence_details: cell_name|column_name|column_number|end_line|json_path|page_number|record_index_in_array|row_number|
  start_line
parameter: name|pre_value|post_value
policy: name|uid|type
port_info: port
process: uid|pid|cpid
process_entity: name|uid|pid|path|cmd_line|cpid
query_info: query_string name|uid
remediation: desc
reporter: name|uid|ip|hostname
reputation: base_score score_id
san: name type
sbom: package software_components
script: type_id script_content
span: uid start_time end_time
timespan: duration|duration_days|duration_hours|duration_mins|duration_months|duration_secs|duration_weeks|
  duration_years|end_time|start_time
tls: version
url: path|url_string
user: name|uid|account
vulnerability: advisory^cve^cwe
win/reg_key: path
win/reg_value: name path
win/win_service: name cmd_line|service_category_id|service_dependencies|service_error_control_id|service_start_name|
  service_start_type_id|service_type_id
"""

# Which attributes are objects or lists of objects, and of which kind, where attribute and kind have different names.
_OBJECTS = """
accessor=user account actor advisory affected_code affected_packages=affected_package agent_list=agent ai_model
analysis_targets=analysis_target analytic ancestry=process_entity anomalies=anomaly anomaly_analyses=anomaly_analysis
answers=dns_answer api application assignee=user assignee_group=group attack_graph=graph attacks=attack
auth_factors=auth_factor authentication_token authorizations=authorization autonomous_system avg_timespan=timespan
baselines=baseline campaign certificate cis_controls=cis_control classifier_details cloud
connection_info=network_connection_info container containers=container countermeasures=d3fend creator=user cve cves=cve cvss
cwe d3f_tactic d3f_technique data_classification data_classifications=data_classification database databucket
desktop_display=display device digest=fingerprint discovery_details domain_contacts=domain_contact
dst_endpoint=network_endpoint edges=edge email email_auth encryption_details enrichments=enrichment entity=managed_entity
entity_result=managed_entity environment_variables=environment_variable epss evidences extension
extension_list=tls_extension extensions=extension feature file files=file finding_info fingerprint fingerprints=fingerprint
firewall_rule function_invocation gpu_info_list=gpu_info group groups=group hash=fingerprint hashes=fingerprint
hosted_services=win/win_service hosting_process=process_entity http_headers=http_header http_request http_response
hw_info=device_hw_info idp image ja3_hash=fingerprint ja3s_hash=fingerprint ja4_fingerprint_list=ja4_fingerprint job
kb_article_list=kb_article keyboard_info kill_chain=kill_chain_phase ldap_person location loggers=logger
logon_process=process malware malware_scan_info manager=user message_context metadata metrics=metric mitigation
modifier=user module network_interfaces=network_interface nodes=node observations=observation occurrence_details
occurrences=occurrence_details open_ports=port_info org=organization os osint owner=user package packages=package
parameters=parameter parent_process=process policies=policy policy pool=group process product
programmatic_credentials=programmatic_credential proxy_endpoint=network_proxy query=dns_query query_info
raw_data_hash=fingerprint reg_key=win/reg_key reg_value=win/reg_value related_analytics=analytic related_cves=cve
related_cwes=cwe related_events=related_event remediation reporter reputation request resource=resource_details
resource_relationship=graph resources=resource_details response rule sans=san sbom scim script script_content=long_string
service service_dll_file=file service_file=file session signature=digital_signature signatures=digital_signature
software_components=software_component span src_endpoint=network_endpoint sso sub_technique subgroup=group table tactic
tactics=tactic tags=key_value_object technique threat_actor ticket tickets=ticket timespan tls
tls_extension_list=tls_extension token total_queued_duration=timespan trace traits=trait
transformation_info_list=transformation_info url urls=url user user_result=user vendor_attributes
vulnerabilities=vulnerability whois win_service=win/win_service
"""


class _Needs(NamedTuple):
    names: tuple[str, ...]
    one_of: tuple[str, ...]


_NOTHING = _Needs((), ())


def _needs(text: str) -> _Needs:
    words = text.split()
    last = words[-1] if words else ""
    separator = "|" if "|" in last else "^"
    if separator not in last:
        return _Needs(tuple(words), ())
    return _Needs(tuple(words[:-1]), tuple(last.split(separator)))


def _read_tables() -> dict[str, _Needs]:
    """What the object needs that an attribute holds, for every attribute that is one."""
    kinds: dict[str, _Needs] = {}
    for line in _REQUIRES.replace("|\n  ", "|").replace("\n  ", " ").strip().split("\n"):
        names, _, needs = line.partition(": ")
        kinds |= dict.fromkeys(names.split(), _needs(needs))
    found = {}
    for word in _OBJECTS.split():
        attribute, _, kind = word.partition("=")
        found[attribute] = kinds.get(kind or attribute, _NOTHING)
    return found


OBJECT_REQUIRES: dict[str, _Needs] = _read_tables()
"""What the object at an attribute requires, by the attribute's name, which in OCSF says the object's kind."""


_BASE_NEEDS = _Needs(BASE_REQUIRES, ())
_CLASS_NEEDS = {uid: _Needs(BASE_REQUIRES + kind.requires, kind.one_of) for uid, kind in CLASSES.items()}


def find_missing(event: Mapping[str, Any]) -> list[str]:
    """The dotted paths of required values that the event does not have: those of its class, and those of the objects it has.

    An object of which one of several attributes is needed is named with the customary one: `actor.user`. List elements are
    written `resources[].uid`, once however many lack it. At most MISSING_MAX. Never fails, whatever the event holds.
    """
    class_uid = event.get("class_uid")
    missing = _lacking(event, _CLASS_NEEDS.get(class_uid, _BASE_NEEDS) if type(class_uid) is int else _BASE_NEEDS)
    metadata = event.get("metadata")
    profiles = metadata.get("profiles") if type(metadata) is dict else None
    if type(profiles) is list:
        for profile, name in PROFILE_REQUIRES.items():
            if name not in event and profile in profiles:
                missing.append(name)
    return missing


def _lacking(value: Mapping[str, Any], needs: _Needs) -> list[str]:
    """What an object lacks of its needs, and what those within it lack of theirs: paths from this object on."""
    names, one_of = needs
    found = [name for name in names if name not in value] if names else []
    if one_of and one_of[0] not in value and value.keys().isdisjoint(one_of) and one_of[0] not in found:
        found.append(one_of[0])
    for name in value:
        if name in OBJECT_REQUIRES:
            below = value[name]
            if type(below) is dict:
                lacking = _lacking(below, OBJECT_REQUIRES[name])
                if lacking:
                    found += [f"{name}.{path}" for path in lacking]
            elif type(below) is list:
                unlike = {path: None for item in below if type(item) is dict for path in _lacking(item, OBJECT_REQUIRES[name])}
                found += [f"{name}[].{path}" for path in unlike]
    return found[:MISSING_MAX] if len(found) > MISSING_MAX else found


# --- observables ------------------------------------------------------------------------------------------------------------

HOSTNAME, IP, MAC, USER_NAME, EMAIL, URL, PROCESS_NAME, RESOURCE_UID, COMMAND_LINE, PID = 1, 2, 3, 4, 5, 6, 9, 10, 13, 15
USER_AGENT, CREDENTIAL_UID, USER_UID, GROUP_NAME, GROUP_UID, ACCOUNT_NAME, ACCOUNT_UID = 16, 19, 31, 32, 33, 34, 35
RESOURCE_NAME, DEVICE_UID, ENDPOINT_UID, OTHER = 38, 47, 48, 99

_ACCOUNT = {"uid": ACCOUNT_UID, "name": ACCOUNT_NAME}
_GROUP = {"uid": GROUP_UID, "name": GROUP_NAME}
_USER = {
    "uid": USER_UID,
    "name": USER_NAME,
    "uid_alt": USER_UID,
    "email_addr": EMAIL,
    "credential_uid": CREDENTIAL_UID,
    **{f"account.{name}": type_id for name, type_id in _ACCOUNT.items()},
    **{f"groups[].{name}": type_id for name, type_id in _GROUP.items()},
}
_ENDPOINT = {"ip": IP, "hostname": HOSTNAME, "svc_name": OTHER, "mac": MAC, "uid": ENDPOINT_UID}
_NAMED = {"uid": RESOURCE_UID, "name": RESOURCE_NAME}
_RESOURCE = {
    **_NAMED,
    "uid_alt": RESOURCE_UID,
    "hostname": HOSTNAME,
    "ip": IP,
    **{f"owner.{name}": type_id for name, type_id in _USER.items()},
}
_PROCESS = {"pid": PID, "name": PROCESS_NAME, "cmd_line": COMMAND_LINE, "uid": OTHER}
_SESSION = {"uid": OTHER, "issuer": OTHER, "credential_uid": CREDENTIAL_UID}

OBSERVED: dict[str, int] = {
    f"{place}.{name}": type_id
    for place, names in (
        ("metadata", {"correlation_uid": OTHER}),
        ("actor.user", _USER),
        ("actor.session", _SESSION),
        ("actor.process", _PROCESS),
        ("actor.process.parent_process", _PROCESS),
        ("actor", {"invoked_by": OTHER, "app_uid": OTHER}),
        ("user", _USER),
        ("user_result", _USER),
        ("group", _GROUP),
        ("entity", _NAMED),
        ("entity.user", _USER),
        ("entity.group", _GROUP),
        ("resource", _RESOURCE),
        ("process", _PROCESS),
        ("process.parent_process", _PROCESS),
        ("api.request", {"uid": OTHER}),
        ("resources[]", _RESOURCE),
        ("database", _NAMED),
        ("databucket", _NAMED),
        ("table", _NAMED),
        ("session", _SESSION),
        ("src_endpoint", _ENDPOINT),
        ("src_endpoint.proxy_endpoint", _ENDPOINT),
        ("src_endpoint", {"intermediate_ips[]": IP}),
        ("dst_endpoint", _ENDPOINT),
        ("http_request", {"user_agent": USER_AGENT, "uid": OTHER, "url.url_string": URL, "x_forwarded_for[]": IP}),
        ("cloud.account", _ACCOUNT),
        ("device", {"uid": DEVICE_UID, "hostname": HOSTNAME, "ip": IP, "mac": MAC}),
        ("finding_info", {"uid": OTHER}),
        ("trace", {"uid": OTHER, "span.uid": OTHER}),
        ("fed.on_behalf_of[]", _USER),
        ("fed.why", {"ticket": OTHER, "approval_uid": OTHER, "policy.uid": OTHER}),
    )
    for name, type_id in names.items()
}
"""The values that are worth a search, by path, with OCSF's type_id of an observable; OTHER where OCSF has none.
https://schema.ocsf.io/1.8.0/objects/observable"""


_Place = dict[str, "_Leaf | _Place"]


class _Leaf(NamedTuple):
    """An attribute to take."""

    path: str
    type_id: int


def _places() -> _Place:
    """OBSERVED as a tree by attribute: where to look, and what to take."""
    root: _Place = {}
    for path, type_id in OBSERVED.items():
        *above, leaf = path.replace("[]", "").split(".")
        place = root
        for name in above:
            below = place.setdefault(name, {})
            if isinstance(below, dict):
                place = below
        place[leaf] = _Leaf(path, type_id)
    return root


_PLACES = _places()


def find_observables(event: Mapping[str, Any]) -> list[JSONObject]:
    """Every value by which events can be joined: addresses, names, ids. Each as {"name", "type_id", "value"}, the value a
    string, the name a path of OBSERVED, in the event's order, of a list each once; at most OBSERVABLES_MAX, and none longer
    than OBSERVABLE_CHARS_MAX. Never fails."""
    found: list[JSONObject] = []
    _observe(event, _PLACES, found)
    return found[:OBSERVABLES_MAX] if len(found) > OBSERVABLES_MAX else found


def _observe(value: Mapping[str, Any], place: _Place, found: list[JSONObject]) -> None:
    for name in value:
        if name in place:
            wanted, inner = place[name], value[name]
            if type(inner) is list:
                found += _observe_list(inner, name, place)
            elif isinstance(wanted, dict):
                if type(inner) is dict:
                    _observe(inner, wanted, found)
            elif type(inner) is str or type(inner) is int:
                text = inner if type(inner) is str else str(inner)
                if 0 < len(text) <= OBSERVABLE_CHARS_MAX:
                    found.append({"name": wanted.path, "type_id": wanted.type_id, "value": text})


def _observe_list(items: list[Any], name: str, place: _Place) -> list[JSONObject]:
    """What there is in a list, each once."""
    found: list[JSONObject] = []
    for item in items:
        if type(item) is not list:
            _observe({name: item}, place, found)
    return list({(one["name"], one["value"]): one for one in found}.values())
