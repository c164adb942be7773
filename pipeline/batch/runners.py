"""Where the jobs of a batch run: threads of this machine, the workers of Dask, or those of Ray.

Whichever it is, a job is a process of its own there, so threads are enough to wait for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.batch.request import Where
from pipeline.errors import ConfigError
from pipeline.names import printable

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

_EXTRAS = {"dask": "prefect_dask", "ray": "prefect_ray"}
_CONNECT_SECONDS = 5.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def check_where(where: Where, prefect: bool = True) -> None:
    """Refuse a runner that cannot work, before anything runs.

    Raises:
        ConfigError: its extra is not installed, it is not for this runner, nothing answers at the
            address, or the workers could not reach Prefect's server.
    """
    if where.runner == "process":
        if where.address is not None:
            raise ConfigError("--address is a cluster's; add --runner dask or --runner ray")
        return
    if not prefect:
        raise ConfigError(f"--runner {where.runner} goes through Prefect; leave --no-prefect out")
    if importlib.util.find_spec(_EXTRAS[where.runner]) is None:
        raise ConfigError(
            f"--runner {where.runner} needs an extra: pip install -e '.[{where.runner}]'"
        )
    if where.address is not None:
        _check_address(where.runner, where.address)


def _check_address(runner: str, address: str) -> None:
    shown = f"--address {printable(address)}"
    if runner == "ray" and address == "auto":
        return
    try:
        host, port = urlsplit(address).hostname, urlsplit(address).port
    except ValueError:
        host, port = None, None
    if host is None or port is None:
        form = "tcp://HOST:8786" if runner == "dask" else "ray://HOST:10001, or auto"
        raise ConfigError(f"{shown}: write the scheduler's address as {form}")
    if host not in _LOOPBACK and not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            f"{shown}: its workers report to a Prefect server that they can reach; start one with "
            "`prefect server start --host 0.0.0.0` and set PREFECT_API_URL to its address"
        )
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(f"{shown}: no scheduler answers there ({error})") from error


def task_runner(where: Where, limit: int) -> TaskRunner[Any]:
    """Prefect's task runner for it; where there is no cluster yet, one of this machine."""
    if where.runner == "dask":
        runner = _runner("prefect_dask.task_runners", "DaskTaskRunner")
        if where.address is not None:
            return runner(address=where.address)
        local: dict[str, Any] = {"n_workers": limit, "threads_per_worker": 1, "host": "127.0.0.1"}
        quiet: dict[str, Any] = {"dashboard_address": None, "silence_logs": logging.ERROR}
        quiet["env"] = {"PREFECT_LOGGING_LEVEL": "WARNING"}
        return runner(cluster_kwargs={**local, **quiet})
    if where.runner == "ray":
        return _ray(where.address, limit)
    from prefect.task_runners import ThreadPoolTaskRunner

    return ThreadPoolTaskRunner(max_workers=limit)


def _runner(module: str, name: str) -> Callable[..., TaskRunner[Any]]:
    """A task runner of an extra, which may not be installed where types are checked."""
    found: Callable[..., TaskRunner[Any]] = getattr(importlib.import_module(module), name)
    return found


def _ray(address: str | None, limit: int) -> TaskRunner[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    runner = _runner("prefect_ray", "RayTaskRunner")
    if address is not None:
        return runner(address=address)
    quiet = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
    local = {"num_cpus": limit, "_node_ip_address": "127.0.0.1", **quiet}
    return runner(init_kwargs=local)
