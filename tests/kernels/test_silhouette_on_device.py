"""The launcher on a real device: skipped, with the reason, where there is none."""

import os

import numpy as np
import pytest

from gpuseg.backends.cuda_device import CupyDevice
from gpuseg.backends.cuda_silhouette import distance_sums
from gpuseg.records import no_progress
from kernels import distance_oracle as oracle

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device():
    try:
        import cupy  # noqa: TID251

        found = cupy.cuda.is_available()
        reason = "no CUDA device"
    except ImportError as error:
        found, reason = False, f"CuPy cannot be imported: {error}"
    if not found and os.environ.get("GPUSEG_REQUIRE_GPU") == "1":
        pytest.fail(reason)
    if not found:
        pytest.skip(reason)
    return CupyDevice()


@pytest.mark.parametrize("d", [3, 20, 300])
def test_sums_are_the_oracles_and_the_same_bits_twice(device, d):
    rng = np.random.default_rng(d)
    X = rng.normal(size=(3000, d)).astype(np.float32)
    labels = np.array([rng.integers(0, k, 3000) for k in (2, 5, 9)], dtype=np.int32)
    rows = rng.integers(0, 3000, 500)

    def run():
        on_device = (device.xp.asarray(array) for array in (X, labels, rows))
        X_there, labels_there, rows_there = on_device
        sums = distance_sums(
            X_there, labels_there, (2, 5, 9), rows=rows_there, progress=no_progress, device=device
        )
        return device.xp.asnumpy(sums)

    once, again = run(), run()

    assert np.isfinite(once).all()
    np.testing.assert_allclose(once, oracle.distance_sums(X, labels, (2, 5, 9), rows), rtol=1e-5)
    np.testing.assert_array_equal(once, again)
