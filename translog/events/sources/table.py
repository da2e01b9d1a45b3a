"""Every source by name: a source is one file beside this one, and one row here. specs/adding-a-source.md shows how."""

from translog.events.mapping import Source
from translog.events.sources.audit import AUDIT
from translog.events.sources.cloudevents import CLOUDEVENTS
from translog.events.sources.cloudtrail import CLOUDTRAIL
from translog.events.sources.collector import COLLECTOR, COLLECTOR_RAW
from translog.events.sources.github import GITHUB
from translog.events.sources.kubernetes import KUBERNETES
from translog.events.sources.ocsf import OCSF
from translog.events.sources.otlp import OTLP
from translog.events.sources.short import EVENTS

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        AUDIT,
        CLOUDEVENTS,
        CLOUDTRAIL,
        COLLECTOR,
        COLLECTOR_RAW,
        EVENTS,
        GITHUB,
        KUBERNETES,
        OCSF,
        OTLP,
    )
}
"""The sources whose mappings are part of this program, by the name that a path or a header gives."""
