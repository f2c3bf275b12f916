"""A stored model as one JSON document, for programs that are not gpuseg."""

from __future__ import annotations

from typing import Any

from gpuseg.outputs.models import StoredModel, describe
from gpuseg.outputs.reuse import encoder_of

FORMAT = "gpuseg-model-document"
FORMAT_VERSION = 1


def model_document(model: StoredModel) -> dict[str, Any]:
    """Return everything that places rows, JSON-able; see docs/decisions/scoring-in-sql.md.

    Raises
    ------
    ModelError
        If the model is damaged.
    """
    encoder = encoder_of(model)
    arrays = {name: array.tolist() for name, array in encoder.arrays().items()}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **describe(model),
        "features": list(encoder.feature_names),
        "encoder": encoder.to_dict()["columns"],
        "projection": arrays or None,
        "centroids": model.centroids.tolist(),
    }
