"""The configuration: YAML files by group, and the way from a command line to a plain dictionary."""
