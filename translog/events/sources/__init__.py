"""Sources of audit events: a module each, and the table that names them."""
