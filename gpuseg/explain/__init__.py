"""Why each segment is what it is: forest, SHAP, profiles."""
