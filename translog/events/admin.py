"""Administrative events: what was done to the log itself, as sealed events of member `log`, stream `admin`.

Rules: the person who acted is the actor; the event's id follows from what was done, so that doing it again after a crash logs
it once. Pure: the time and the actor come in. specs/formats.md, "Administration is logged".
"""

from typing import Any

from translog.events.jsontext import JSONObject
from translog.events.mapping import CREATE, DELETE, OTHER
from translog.events.model import OCSF_VERSION
from translog.events.normalize import in_order

ADMIN_STREAM = "admin"
_PRODUCT = {"name": "translog", "vendor_name": "translog"}
_CLASS_UID = 6003
_ACTIVITY = {"log.create": CREATE, "key.add": CREATE, "key.retire": DELETE}


def admin_event(
    operation: str, *, uid: str, origin: str, actor: JSONObject, time_ms: int, host: str, data: dict[str, Any] | None = None
) -> JSONObject:
    """The event that `operation` was done to the log `origin`. `actor` is an OCSF user; `host` where it was done."""
    activity = _ACTIVITY.get(operation, OTHER)
    event: JSONObject = {
        "metadata": {"version": OCSF_VERSION, "uid": uid, "product": _PRODUCT, "log_name": ADMIN_STREAM},
        "class_uid": _CLASS_UID,
        "category_uid": _CLASS_UID // 1000,
        "activity_id": activity,
        "type_uid": _CLASS_UID * 100 + activity,
        "severity_id": 1,
        "time": time_ms,
        "message": f"{operation} {origin}",
        "actor": {"user": actor, "app_name": "translog"},
        "api": {"operation": operation, "service": {"name": "translog"}},
        "resources": [{"uid": origin, "type": "transparency log"}],
        "src_endpoint": {"hostname": host},
        "status_id": 1,
    }
    if data:
        event["unmapped"] = data
    return in_order(event)
