"""A run on a Dask cluster: rows stay on the workers, what is small comes here.

Only this package imports Dask. What is done and why is in ``docs/decisions/dask.md``.
"""
