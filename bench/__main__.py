"""Run every benchmark: ``python -m bench --quick``, or in full with JSON results.

python -m bench --quick
python -m bench --out bench/results
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SUITES = ("silhouette", "intervals", "kmeans", "shap_means", "whole_run", "scale")
ON_A_GPU = ("gpu",)  # when asked for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, a few minutes in all")
    parser.add_argument("--only", choices=SUITES + ON_A_GPU)
    parser.add_argument("--out", type=Path, help="folder for one JSON file per benchmark")
    options = parser.parse_args()
    for suite in (options.only,) if options.only else SUITES:
        print(f"\n== {suite}", flush=True)
        command = [sys.executable, str(HERE / f"{suite}.py")]
        if options.quick:
            command.append("--quick")
        if options.out:
            command += ["--out", str(options.out / f"{suite}.json")]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
