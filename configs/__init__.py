"""The configuration: YAML files by group, and the code that turns a command line into a dictionary."""
