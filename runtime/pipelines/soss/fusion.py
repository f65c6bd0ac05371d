"""Soft and hard voting, which give each segment a class."""

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.sets import KernelSet
from maskrt.kernels.voting import runs_of
from maskrt.runtime.bundle.specs import VotingSpec
from maskrt.runtime.types import Segments


def fuse(
    probabilities: NDArray[np.float32], segments: Segments, spec: VotingSpec, kernels: KernelSet = sets.CPU
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Give every segment the class with the most votes, and paint it.

    A segment's votes for class c are the sum over its pixels of P[c] ("soft") or of [argmax P == c] ("hard"); ties go
    to the lower class. Where segments overlap, with two classes a pixel has class 1 if any covering segment has it;
    with more, segments are painted in descending area, so that the smaller one wins. Pixels that no segment covers
    become class 0 (`uncovered="background"`, the source document's) or keep the segmenter's answer (`"segmenter"`).

    Args:
        probabilities: float32 [C, H, W].
        segments: masks of size [H, W].

    Returns:
        The labels, uint8 [H, W], and the class of each segment, int64 [N].

    Source: algorithm 1 of the SOSS document; where it is silent on overlaps and uncovered pixels, the rules are ours.
    """
    classes = probabilities.shape[0]
    winners = probabilities.argmax(axis=0).astype(np.uint8)
    ballots = probabilities
    if spec.vote == "hard":
        ballots = (winners[None] == np.arange(classes, dtype=np.uint8)[:, None, None]).astype(np.float32)
    label = winners if spec.uncovered == "segmenter" else np.zeros_like(winners)
    runs = runs_of([rle["counts"] for rle in segments.rles])
    votes = np.zeros((len(segments), classes), np.float64)
    kernels.count_votes(ballots, runs, votes)
    segment_classes = votes.argmax(axis=1)
    # Stable, so that equal areas keep the order of their predicted IoU.
    order = np.argsort(segment_classes if classes == 2 else -segments.area, kind="stable")
    kernels.paint(runs, segment_classes.astype(np.uint8), order, label)
    return label, segment_classes
