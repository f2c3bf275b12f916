"""``python -m gpuseg`` is ``gpuseg``."""

from gpuseg.cli import main

main()
