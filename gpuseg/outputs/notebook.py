"""A small table for notebooks: what a `Segmentation` looks like when it is shown."""

from __future__ import annotations

from gpuseg.outputs.palette import cluster_colors
from gpuseg.outputs.report import templates
from gpuseg.outputs.report_segments import strongest
from gpuseg.outputs.report_view import structure
from gpuseg.outputs.wording import percent, shown
from gpuseg.records import Segmentation


def segmentation_html(result: Segmentation) -> str:
    """Return sizes and strongest features of the segments as escaped HTML.

    It needs nothing from the page around it and keeps that page's text colour.
    """
    sizes, colors = result.cluster_sizes, cluster_colors(result.cluster_ids)
    shap = strongest(result.explanation.shap_values) if result.explanation else {}
    return (
        templates()
        .get_template("segmentation.html")
        .render(
            model_name=shown(result.model_name),
            n_rows=f"{sum(sizes):,}",
            silhouette=f"{result.silhouette:.3f}",
            structure=structure(result.silhouette),
            reason=shown(result.reason),
            warnings=[shown(text) for text in result.warnings],
            segments=[
                {
                    "id": cluster,
                    "color": colors[cluster],
                    "size": f"{size:,}",
                    "share": percent(size / max(sum(sizes), 1)),
                    "features": ", ".join(shown(row["feature"]) for row in shap.get(cluster, [])),
                }
                for cluster, size in zip(result.cluster_ids, sizes, strict=True)
            ],
        )
    )
