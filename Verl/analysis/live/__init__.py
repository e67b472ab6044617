"""Runs that are going on, drawn in the terminal. Start at cli.py."""
