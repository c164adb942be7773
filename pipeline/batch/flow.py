"""The Prefect flow `metaworld-batch`: many presets through the pipeline, side by side.

It takes any presets; Meta-World's families are what it is for. To Dask's workers Prefect sends the
flow with every global that it names, so what cannot travel is left to another module.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect import runtime as runtime_of
from pydantic import PositiveInt

from pipeline.batch.carry_out import carry_out
from pipeline.batch.request import Runner, Where, batch_request
from pipeline.config import RuntimeConfig
from pipeline.flows import Seeds

_RUNTIME = RuntimeConfig(quiet=True)


def _flow_run_name() -> str:
    """`ml1/eleven, seed 0, 1`, as it stands in Prefect's lists."""
    given = runtime_of.flow_run.parameters
    named = ", ".join(given["families"])
    short = named if len(named) <= 60 else f"{given['families'][0]} and others"
    return f"{short}, seed {', '.join(map(str, given['seeds']))}"


@flow(
    name="metaworld-batch",
    flow_run_name=_flow_run_name,
    persist_result=False,
    result_serializer="json",
)
def metaworld_batch(
    families: list[str],
    seeds: Seeds = [0],  # noqa: B006 (Prefect shows it as the form's default)
    overrides: list[str] = [],  # noqa: B006
    runner: Runner = "process",
    address: str | None = None,
    concurrency: PositiveInt | None = None,
    name: str | None = None,
    runtime: RuntimeConfig = _RUNTIME,
) -> Any:
    """Run many presets, each with several seeds; one that fails leaves the others alone.

    Args:
        families: presets such as ml1/reach-wall, or ml1/eleven and ml1/all.
        seeds: every preset is run once for each.
        overrides: settings of all of them as KEY=VALUE, such as vae.kl_weight=0.1.
        runner: process (this machine), dask or ray.
        address: the scheduler's, such as tcp://host:8786; workers of this machine if empty.
        concurrency: runs at once; as many as the processors or the cluster allow if empty.
        name: the batch's name.
        runtime: device, precision, threads and workers of each run.

    Returns:
        A state: completed, or failed if any preset has failed, with one sentence.
    """
    where = Where(runner, address, concurrency)
    return carry_out(batch_request(families, seeds, overrides, name, where, runtime))
