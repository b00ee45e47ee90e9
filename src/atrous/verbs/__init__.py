"""The verbs of the command line, one file each: `arguments(words)` builds the parser, `run(given)` does the work."""
