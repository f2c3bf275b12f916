"""The table as numbers: column roles, decisions with reasons, the fitted encoder."""

from gpuseg.features.encoder import Encoder
from gpuseg.features.prepare import encode_features, prepare, prepare_again
from gpuseg.features.roles import decide
from gpuseg.features.settings import FeatureSettings

__all__ = ["Encoder", "FeatureSettings", "decide", "encode_features", "prepare", "prepare_again"]
