"""The HTTP interface: one aiohttp application, one module per API."""
