"""The hot loops of the NumPy backend, compiled by Numba. Import these modules lazily."""
