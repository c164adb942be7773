"""Runs the contract that every task family must pass, for `omrl check-env` and for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from environments.base import TaskFamily
from environments.contract import CHECKS
from environments.requirements import BrokenContractError


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check of the contract."""

    name: str  # what is promised
    ok: bool
    message: str  # why it failed, empty if it passed


def check_family(family: TaskFamily, seed: int = 0) -> list[CheckResult]:
    """Every check of the contract on a family, in order; a failed one does not stop the rest."""
    return [_run(name, family, seed) for name in CHECKS]


def _run(name: str, family: TaskFamily, seed: int) -> CheckResult:
    """One check; whatever a family under test raises is its failure, not ours."""
    try:
        CHECKS[name](family, np.random.SeedSequence(seed))
    except BrokenContractError as broken:
        return CheckResult(name, False, str(broken))
    except Exception as error:
        return CheckResult(name, False, f"{type(error).__name__}: {error}")
    return CheckResult(name, True, "")
