"""The pipeline as a whole: how many threads it takes."""

from dataclasses import fields

import numba
import numpy as np
import pytest

from maskrt.kernels import sets
from maskrt.kernels.jit import thread_limit
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle import open_bundle
from maskrt.runtime.soss import SossPipeline


@pytest.mark.parametrize("threads", [1, None])
def test_threads_bound_the_kernels(tiny_bundle, threads):
    """Those that the calling thread starts; the others run in the pool of the decoder, one thread each."""
    seen = {}

    def counted(name):
        def kernel(*arguments):
            seen[name] = numba.get_num_threads()
            return getattr(sets.CPU, name)(*arguments)

        return kernel

    kernels = KernelSet(**{field.name: counted(field.name) for field in fields(KernelSet)})
    usual = numba.get_num_threads()
    with SossPipeline(open_bundle(tiny_bundle), threads=threads, kernels=kernels) as pipeline:
        pipeline(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    assert {seen[name] for name in ("resize_bilinear", "count_votes", "paint")} == {threads or usual}
    assert numba.get_num_threads() == usual


def test_thread_limit_ends_with_its_block():
    usual = numba.get_num_threads()
    with thread_limit(10 * usual):
        assert numba.get_num_threads() == usual
    with thread_limit(1):
        assert numba.get_num_threads() == 1
    with pytest.raises(KeyError), thread_limit(1):
        raise KeyError
    assert numba.get_num_threads() == usual
