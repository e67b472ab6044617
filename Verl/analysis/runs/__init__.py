"""The runs of a result folder, read into tables, with what they stood on and which of them are identical. Start at table.py."""
