"""verl on a CPU, as fast as it goes. README.md has the files in reading order; device.py is the one door."""
