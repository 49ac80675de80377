"""The command line: a command is parse, call, print. No module here imports torch before a command
runs."""
