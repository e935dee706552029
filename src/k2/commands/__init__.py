"""The verbs of the command line: thin, one file a theme."""
