"""Counting a segment's votes and painting its class, straight from run lengths."""

from maskrt.kernels.voting.cpu import count_votes, paint
from maskrt.kernels.voting.reference import runs_of
from maskrt.kernels.voting.types import Runs

__all__ = ["Runs", "count_votes", "paint", "runs_of"]
