"""Measures how good an answer is: scores against truth, agreement of two answers, and certificates."""
