"""Agreement between the processes of one command before the process group exists."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ...modules.core.errors import InputError

_PATIENCE = timedelta(minutes=5)


def shared_by_processes(choose: Callable[[], Any] | None) -> Any:
    """Share the first process's choice with all processes that torchrun, SLURM or the user has started.

    Args:
        choose: Makes the choice in the first process; the result must be JSON. None in the other processes; they wait.

    Raises:
        InputError: The error that ``choose`` raises, in all processes; or if the first process does not answer.
    """
    place = _meeting_place()
    if place is None:
        return choose() if choose is not None else None
    address, port, others = place
    is_first = choose is not None
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    key = f"recipes/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if not is_first:
        try:
            store = TCPStore(address, port, is_master=False, timeout=_PATIENCE)
            answer = json.loads(store.get(key))
            store.add(f"{key}/read", 1)
        except RuntimeError as error:
            raise InputError(f"process {rank_zero_only.rank} got no answer from the first one: {error}") from error
        if "error" in answer:
            raise InputError(answer["error"])
        return answer["choice"]
    store = TCPStore(address, port, is_master=not hosted, timeout=_PATIENCE, wait_for_workers=False)
    try:
        choice = choose()
    except InputError as error:
        store.set(key, json.dumps({"error": str(error)}))
        _wait_for(store, f"{key}/read", others)
        raise
    store.set(key, json.dumps({"choice": choice}))
    _wait_for(store, f"{key}/read", others)
    return choice


def _meeting_place() -> tuple[str, int, int] | None:
    """Return address and port of the first process, and the number of other processes.

    None if there are no others, or if Lightning's strategy starts them.
    """
    if SLURMEnvironment.detect():
        environment = SLURMEnvironment()
        others = environment.world_size() - 1
        return (environment.main_address, environment.main_port, others) if others else None
    others = int(os.environ.get("WORLD_SIZE", "1")) - 1
    by_hand = "LOCAL_RANK" in os.environ and "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ
    if others < 1 or not by_hand:
        return None
    return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), others


def _wait_for(store: TCPStore, key: str, count: int) -> None:
    """Keep the store alive until all processes have read."""
    end = time.monotonic() + _PATIENCE.total_seconds()
    while store.add(key, 0) < count and time.monotonic() < end:
        time.sleep(0.02)
