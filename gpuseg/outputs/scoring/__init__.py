"""A stored model as one SQL query, or as one JSON document."""

from gpuseg.outputs.scoring.dialects import DIALECTS
from gpuseg.outputs.scoring.document import model_document
from gpuseg.outputs.scoring.query import scoring_query

__all__ = ["DIALECTS", "model_document", "scoring_query"]
