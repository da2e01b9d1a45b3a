"""The known answers of sealed-event.json, which was written from the page and shares nothing with the package."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

Case = dict[str, Any]


def cases(shared: Path) -> list[Case]:
    """Each case, with its base64 members decoded, and what entry and texts say under `parsed` and `event`."""
    found: list[Case] = json.loads((shared / "vectors" / "sealed-event.json").read_text("utf-8"))
    assert found
    for case in found:
        for name in ("seed", "event_root", "payload_whole", "payload_last_field_erased", "data_key", "nonce", "record"):
            case[name] = b64decode(case[name])
        for name in ("entry_leaf_hash", "stream_leaf_hash", "payload_key"):
            case[name] = b64decode(case[name])
        case["salts"] = [b64decode(value) for value in case["salts"]]
        case["leaves"] = [b64decode(value) for value in case["leaves"]]
        case["texts"] = [text.encode() for text in case["texts"]]
        case["entry"] = case["entry"].encode()
        case["key_id"] = case["key_id"].encode()
        case["parsed"] = json.loads(case["entry"])
        case["event"] = dict(json.loads(text) for text in case["texts"][1:])
    return found
