"""From certification records to tables and figures. Never imports torch."""
