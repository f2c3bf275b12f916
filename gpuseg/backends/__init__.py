"""The seam and its engines: NumPy with Numba on any machine, RAPIDS on a GPU node."""
