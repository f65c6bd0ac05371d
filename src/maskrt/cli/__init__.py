"""The command line: the only code that sees all parts of maskrt."""
