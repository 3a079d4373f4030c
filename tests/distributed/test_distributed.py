"""Every flow, in worlds of 1, 2, 3, 4 and 8 processes: what the ranks gather has the bits of a single process."""

from __future__ import annotations

import pytest
import torch
from flows import FLOWS, single
from worlds import Worlds, sizes, worlds

import weightinit_cuda as wi

__all__ = ["worlds"]  # a fixture

pytestmark = pytest.mark.skipif(
    torch.__version__ < torch.torch_version.TorchVersion("2.7"), reason="FSDP2 of torch 2.6 does not run on CPUs"
)
PEERS = ("torch_on_a_cpu_mesh",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("size", sizes(metafunc.config), scope="session")


SINGLE = ("fsdp2", "fsdp2_hybrid", "fsdp2_offload", "fsdp2_tensor_parallel", "seed_plan", "checkpoint")


@pytest.mark.parametrize("flow", SINGLE)
def test_fingerprint_of_a_single_process(flow: str, size: int, worlds: Worlds) -> None:
    assert {report[flow]["fingerprint"] for report in worlds(size)} == {wi.fingerprint(single())}


def test_checkpoints_of_other_worlds_were_loaded(size: int, worlds: Worlds, pytestconfig: pytest.Config) -> None:
    loaded = worlds(size)[0]["checkpoint"]["loaded"]
    assert {f"checkpoint-{other}" for other in sizes(pytestconfig) if other >= size} <= set(loaded)


def test_a_rank_holds_its_share(size: int, worlds: Worlds) -> None:
    """Uneven shards differ by a row; the one buffer is not sharded."""
    rotation = single().rotation.numel()
    held = [report["fsdp2"]["held"] - rotation for report in worlds(size)]
    whole = sum(parameter.numel() for parameter in single().parameters())
    assert sum(held) == whole
    assert max(held) < 1.15 * whole / size


@pytest.mark.parametrize("flow", [name for name in FLOWS if name not in PEERS])
def test_bits_of_a_single_process(flow: str, size: int, worlds: Worlds) -> None:
    for rank, report in enumerate(worlds(size)):
        found = report.get(flow, {"error": "never got that far"})
        assert "error" not in found, f"rank {rank}: {found['error']}"
        assert found["compared"] > 0
        assert found["differing"] == 0, f"rank {rank}: {found}"


def test_the_peer_on_a_cpu_mesh(size: int, worlds: Worlds) -> None:
    """torch's nn.init gives all shards the same values (pytorch #168058), and two functions are not made for shards at all."""
    found = worlds(size)[0]["torch_on_a_cpu_mesh"]
    assert found["alike"] == {"torch": True, "weightinit_cuda": size == 1}
    assert found["sparse_"].startswith(("aten.index_put_.default", "aten.index_fill_.int_Scalar"))  # of its third line
    if isinstance(found["eye_"], list):  # until torch 2.14 every rank then holds a whole matrix, as its shard
        assert found["eye_"] == [2 * size, 3]
    else:
        assert found["eye_"].startswith("aten.eye.m_out: no valid sharding strategy")
