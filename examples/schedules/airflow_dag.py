"""Segment customers every night: an Airflow DAG (2.4 or later)."""

import subprocess
from datetime import datetime, timedelta

from airflow.decorators import dag, task
from airflow.exceptions import AirflowException, AirflowFailException

COMMAND = ["gpuseg", "run", "--config", "/etc/gpuseg/clustering.dig", "--quiet", "--json"]
SERVICE_FAILED = 4


@dag(
    schedule="30 4 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["gpuseg"],
)
def segment_customers():
    """Run gpuseg; the worker's environment has TD_API_KEY, TD_API_SERVER, GPUSEG_WAREHOUSE."""

    @task(retries=2, retry_delay=timedelta(minutes=30), execution_timeout=timedelta(hours=12))
    def segment() -> str:
        ran = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
        if ran.returncode == SERVICE_FAILED:
            raise AirflowException(ran.stderr)  # running again is safe
        if ran.returncode != 0:
            raise AirflowFailException(ran.stderr)  # the same again would fail again
        return ran.stdout

    segment()


segment_customers()
