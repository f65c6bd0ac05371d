"""The command line, the only code that imports all parts of maskrt."""
