"""Views derived from the log: each can be deleted and rebuilt."""
