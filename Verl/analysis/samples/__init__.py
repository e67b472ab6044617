"""Questions and responses of a run, to read. Start at cli.py."""
