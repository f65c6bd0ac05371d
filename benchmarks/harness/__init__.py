"""How it is measured: pairs in turns, recordings, reports and tables."""
