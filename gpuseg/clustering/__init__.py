"""The sweep: seeding, k-means for every k, the silhouette, and the choice of k."""
