"""A network of logs, witnesses and clients on a virtual clock."""
