"""translog: a transparency log for audit events.

The package root holds the version and nothing else; import what you need from its modules
(`translog.core` for the protocol and offline verification, `translog.client` for talking to a log).
"""

__version__ = "0.1.0"
