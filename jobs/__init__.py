"""The commands: each file here is one, `python jobs/<name>.py --help`."""
