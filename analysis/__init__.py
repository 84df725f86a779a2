"""Tables and figures from certification records. Never imports torch."""
