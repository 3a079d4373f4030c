"""Fingerprints: against plain integers, then invariances, then what must not go unseen.

The oracle is the formula at the head of ``fingerprint.py`` in Python's integers, with keys of its own making.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from hashlib import blake2b
from importlib import import_module

import pytest
import torch
import torch.distributed as dist
from bitwise import raw
from conftest import DTYPES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

import weightinit_cuda as wi
from weightinit_cuda.checkpoints.fingerprint import combine, fingerprint, tensor_hash
from weightinit_cuda.tensors.boxes import Region
from weightinit_cuda.tensors.shards import flat_parts

module = import_module("weightinit_cuda.checkpoints.fingerprint")  # wi.fingerprint is the function
P = 2**26 - 5
ANY_DTYPE = (*DTYPES, torch.complex32, torch.int64, torch.int32, torch.uint8, torch.bool)
each_dtype = pytest.mark.parametrize("dtype", ANY_DTYPE, ids=lambda dtype: str(dtype).removeprefix("torch."))


@cache
def key(lane: int, dim: int, index: int) -> int:
    z = int.from_bytes(blake2b(b"%d %d" % (lane, dim), digest_size=8, person=b"fingerprint 1").digest(), "little")
    z = (z + index * 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) % 2**64
    z ^= z >> 31
    return (z - (z >> 63 << 64)) % (P - 1) + 1


def oracle(tensor: Tensor) -> int:
    """The hash by its definition: indices of the dimensions, the last one as block and place in it, then of the word."""
    size = 1 if tensor.itemsize == 1 else 2
    data = bytes(raw(tensor.resolve_conj().resolve_neg()).tolist())
    words = [int.from_bytes(data[i : i + size], "little", signed=True) for i in range(0, len(data), size)]
    shape = tuple(tensor.shape) or (1,)
    total = 0
    for lane in range(5):
        places = itertools.product(*map(range, shape), range(tensor.itemsize // size))
        indices = ((*place[:-2], place[-2] // 1024, place[-2] % 1024, place[-1]) for place in places)
        value = sum(
            word * math.prod(key(lane, d, i) for d, i in enumerate(index)) for word, index in zip(words, indices, strict=True)
        )
        total |= value % P << 26 * lane
    return total


def random_bits(shape: Sequence[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Any bits, NaN included."""
    count = math.prod(shape) * dtype.itemsize
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(2, tuple(shape), generator=generator).bool()
    return torch.randint(256, (count,), dtype=torch.uint8, generator=generator).view(dtype).view(tuple(shape))


# ---- the definition -------------------------------------------------------------------------------------------------


def test_without_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in deterministic mode on a GPU."""
    tensors = [torch.randn(3, 70, 41), torch.randn(20_000).bfloat16(), torch.arange(300, dtype=torch.uint8)]
    hashes = [tensor_hash(tensor) for tensor in tensors]
    monkeypatch.setattr(module, "_refuses_products", lambda device: True)
    monkeypatch.delattr(torch, "mm")
    assert [tensor_hash(tensor) for tensor in tensors] == hashes


@each_dtype
@pytest.mark.parametrize("shape", [(), (1,), (7,), (0, 3), (3, 5), (2, 3, 2, 2)], ids=str)
def test_hash_is_its_definition(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = random_bits(shape, dtype)
    assert tensor_hash(tensor) == oracle(tensor)


@pytest.mark.parametrize("shape", [(1024,), (1025,), (2, 2500), (2049, 1, 2)], ids=str)
def test_long_dimensions(shape: tuple[int, ...]) -> None:
    tensor = random_bits(shape, torch.bfloat16)
    assert tensor_hash(tensor) == oracle(tensor)


def test_largest_sums_are_exact() -> None:
    """Every word at its largest magnitude, in rows as long as they get: a single rounding would show."""
    for shape, dtype in (((8, 1024), torch.int16), ((1024,), torch.complex128), ((3, 2, 1024), torch.int64)):
        tensor = torch.full((math.prod(shape) * dtype.itemsize // 2,), -(2**15), dtype=torch.int16).view(dtype).view(shape)
        assert tensor_hash(tensor) == oracle(tensor)
    bound = module._ROW * 2**15 * (P // 2)
    assert bound < 2**53
    assert int(module._row_keys(((0, 0, 8), (1, 0, 1024)), 2, 1, torch.device("cpu")).abs().max()) <= P // 2


def test_modulus_is_prime() -> None:
    assert module.PRIME == P
    assert all(P % divisor for divisor in range(2, math.isqrt(P) + 1))


def test_golden() -> None:
    """The contract with those who stored fingerprints: another value is another VERSION."""
    tensor = torch.arange(3000, dtype=torch.int32).view(2, 1500).view(torch.float32)
    assert f"{tensor_hash(tensor):x}" == "371c49ef67cc0d3ca9ee065347b5f50a"
    assert fingerprint({"w": tensor, "b": torch.zeros(3, dtype=torch.bfloat16)}) == "c44c2443b8ef9bab32b92eb1dc26a48a"


# ---- what does not count --------------------------------------------------------------------------------------------


def views(tensor: Tensor) -> Iterator[Tensor]:
    """The same values at other places in memory."""
    yield tensor.clone()
    yield tensor.movedim(0, -1).contiguous().movedim(-1, 0)
    wide = torch.zeros((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), dtype=tensor.dtype)
    wide[..., 1::2] = tensor
    yield wide[..., 1::2]
    yield tensor.clone().requires_grad_(tensor.is_floating_point())


@pytest.mark.parametrize("dtype", [dtype for dtype in ANY_DTYPE if dtype != torch.complex32], ids=str)  # torch copies none
def test_layout_does_not_count(dtype: torch.dtype) -> None:
    tensor = random_bits((4, 3, 1030), dtype)
    for view in views(tensor):
        assert tensor_hash(view) == tensor_hash(tensor)


def test_lazy_conjugates_and_negatives_are_what_they_mean() -> None:
    tensor = torch.complex(torch.arange(6.0), torch.arange(6.0) + 1)
    assert tensor_hash(tensor.conj()) == tensor_hash(tensor.conj().resolve_conj()) != tensor_hash(tensor)
    assert tensor_hash(tensor.conj().imag) == tensor_hash(-tensor.imag)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((40, 300), torch.float32), ((3, 5000), torch.bfloat16), ((80, 500, 3, 3), torch.float32), ((70, 20, 9), torch.float64)],
    ids=str,
)
def test_chunks_do_not_count(shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = random_bits(shape, dtype)
    expected = tensor_hash(tensor)
    for piece, cached, row in ((5000, 700, 4096), (1 << 24, 1 << 16, 8192), (900, 100, 8192), (1 << 18, 1 << 12, 4096)):
        monkeypatch.setattr(module, "_PIECE", piece)
        monkeypatch.setattr(module, "_CACHED", cached)
        monkeypatch.setattr(module, "_ROW", row)
        assert tensor_hash(tensor) == expected


@pytest.mark.usefixtures("threads")
def test_ambient_state_does_not_count() -> None:
    tensor = random_bits((64, 2048))
    expected = tensor_hash(tensor)
    torch.set_num_threads(1)
    with torch.autocast("cpu"), torch.device("meta"):
        assert tensor_hash(tensor) == expected
    with torch.inference_mode():
        assert tensor_hash(tensor.clone()) == expected
    torch.set_flush_denormal(True)
    try:
        assert tensor_hash(tensor) == expected
    finally:
        torch.set_flush_denormal(False)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        module._row_keys.cache_clear()
        assert tensor_hash(tensor) == expected
    finally:
        torch.set_default_dtype(default)


Shape = tuple[int, ...]


@st.composite
def partitions(draw: st.DrawFn) -> tuple[Shape, list[tuple[Shape, Shape]]]:
    """A shape, and boxes (offset, shape) that cover it once."""
    sizes = st.lists(st.sampled_from((1, 2, 5, 1024, 1500)), min_size=1, max_size=3)
    shape = tuple(draw(sizes.filter(lambda sizes: math.prod(sizes) < 9999)))
    cuts = [sorted({0, n, *draw(st.lists(st.integers(0, n), max_size=2))}) for n in shape]
    runs = [list(itertools.pairwise(cut)) for cut in cuts]
    return shape, [(tuple(a for a, _ in box), tuple(b - a for a, b in box)) for box in itertools.product(*runs)]


@given(partitions(), st.sampled_from((torch.float32, torch.bfloat16, torch.float64)))
@settings(deadline=None, max_examples=60)
def test_parts_add_up(case: tuple[Shape, list[tuple[Shape, Shape]]], dtype: torch.dtype) -> None:
    shape, boxes = case
    tensor = random_bits(shape, dtype)
    hashes = [
        tensor_hash(tensor[tuple(slice(a, a + n) for a, n in zip(*box, strict=True))], Region(shape, box[0])) for box in boxes
    ]
    assert combine(hashes) == combine(reversed(hashes)) == tensor_hash(tensor)


def test_parts_that_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = random_bits((90, 500, 3, 3))
    expected = tensor_hash(tensor)
    monkeypatch.setattr(module, "_PIECE", 1000)
    parts = [
        (tensor[a:b, c:d], Region(tensor.shape, (a, c, 0, 0))) for a, b in ((0, 11), (11, 90)) for c, d in ((0, 7), (7, 500))
    ]
    assert combine(tensor_hash(*part) for part in parts) == expected


@given(st.lists(st.integers(0, 4 * 3 * 1100), max_size=3))
@settings(deadline=None, max_examples=15)
def test_flat_ranges_add_up(cuts: list[int]) -> None:
    tensor = random_bits((4, 3, 1100))
    edges = sorted({0, tensor.numel(), *cuts})
    parts = [part for a, b in itertools.pairwise(edges) for part in flat_parts(tensor.view(-1)[a:b], tensor.shape, a)]
    assert combine(tensor_hash(*part) for part in parts) == tensor_hash(tensor)


def test_combining_nothing() -> None:
    assert combine([]) == 0
    assert tensor_hash(torch.empty(0, 4)) == 0


# ---- what counts ----------------------------------------------------------------------------------------------------


def exchanged(a: tuple[int, ...], b: tuple[int, ...]) -> Callable[[Tensor], None]:
    def change(w: Tensor) -> None:
        w[a], w[b] = w[b].clone(), w[a].clone()

    return change


def flipped(*places: tuple[int | slice, ...]) -> Callable[[Tensor], None]:
    """The sign bits of some elements."""

    def change(w: Tensor) -> None:
        for place in places:
            w.view(torch.int32)[place] ^= -(2**31)

    return change


def shards(dim: int) -> Callable[[Tensor], None]:
    """Halves exchanged, as if two ranks had each other's checkpoint."""

    def change(w: Tensor) -> None:
        w.copy_(w.roll(w.shape[dim] // 2, dim))

    return change


CHANGES: dict[str, Callable[[Tensor], None]] = {
    "one bit": lambda w: w.view(torch.int32)[3, 5].bitwise_xor_(1),
    "neighbours exchanged": exchanged((0, 0), (0, 1)),
    "same column exchanged": exchanged((0, 7), (63, 7)),
    "far exchanged": exchanged((1, 2), (33, 44)),
    "rows exchanged": exchanged((4,), (5,)),
    "transposed": lambda w: w.copy_(w.T.clone()),
    "reversed": lambda w: w.copy_(w.flip(0)),
    "one sign": flipped((0, 0)),
    "two signs": flipped((0, 0), (0, 1)),
    "a row of signs": flipped((3, slice(None))),
    "all signs": flipped((slice(None), slice(None))),
    "upper and lower shards": shards(0),
    "left and right shards": shards(1),
    "shifted by one": lambda w: w.copy_(w.view(-1).roll(1).view_as(w)),
    "a shard twice": lambda w: w[32:].copy_(w[:32]),
    "a step of one ulp everywhere": lambda w: w.view(torch.int32).add_(1),
    "through bfloat16": lambda w: w.copy_(w.bfloat16().float()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_seen_in_every_lane(change: Callable[[Tensor], None]) -> None:
    """A lane misses one with 2^-25, so all five see these."""
    before = wi.init.normal_(torch.empty(64, 64), seed=0, stream="w")
    after = before.clone()
    change(after)
    lanes = zip(module._lanes(tensor_hash(before)), module._lanes(tensor_hash(after)), strict=True)
    assert all(a != b for a, b in lanes)


def test_lanes_are_independent() -> None:
    """Of 20000 exchanges none agrees in a lane; 2^-26 each is expected to give 0.002 of them."""
    keys = module._row_keys(((0, 0, 200),), 1, 1, torch.device("cpu")).T
    differences = keys[:, :, None] - keys[:, None, :]
    upper = torch.ones(200, 200).triu(1).bool()
    assert (differences[:, upper] % P != 0).all()
    correlation = torch.corrcoef(keys)
    assert (correlation - torch.eye(5, dtype=torch.float64)).abs().max() < 0.3  # 4 sigma


def test_every_bit_counts() -> None:
    zero = fingerprint({"w": torch.zeros(2)})
    assert fingerprint({"w": torch.tensor([0.0, -0.0])}) != zero
    nan = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert len({fingerprint({"w": nan[i]}) for i in range(2)}) == 2


def test_names_shapes_and_dtypes_count() -> None:
    zeros = torch.zeros(4)
    variants = [
        {"w": zeros},
        {"v": zeros},
        {"w": zeros.half()},
        {"w": zeros.int()},
        {"w": zeros.view(2, 2)},
        {"w": zeros, "v": zeros},
        {"w": zeros[:2]},
        {"w": torch.zeros(0, 4)},
        {"w": torch.zeros(0, 5)},
        {},
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)


# ---- models ---------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("angles", torch.arange(3.0), persistent=False)


def test_a_model_is_its_state_dict() -> None:
    net = Net()
    assert fingerprint(net) == fingerprint(net.state_dict()) == fingerprint(dict(reversed(net.state_dict().items())))
    assert fingerprint(net, buffers="none") == fingerprint(dict(net.named_parameters(remove_duplicate=False)))
    everything = {**net.state_dict(), "angles": net.angles}
    assert fingerprint(net, buffers="all") == fingerprint(everything) != fingerprint(net)


def test_tied_names_count() -> None:
    net, untied = Net(), Net()
    untied.load_state_dict(net.state_dict())
    untied.head.weight = nn.Parameter(net.embed.weight.detach().clone())
    assert fingerprint(net) == fingerprint(untied)
    del untied.head
    assert fingerprint(net) != fingerprint(untied)


def test_refusals_name_every_tensor() -> None:
    with pytest.raises(ValueError, match=r"fingerprint: .*strided and have memory, got a \(.*meta\), c \(torch.sparse_coo"):
        fingerprint({"a": torch.empty(2, device="meta"), "b": torch.ones(2), "c": torch.ones(2).to_sparse()})
    freed = torch.ones(8)
    freed.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="have memory, got freed"):
        fingerprint({"freed": freed})
    with pytest.raises(TypeError, match=r"model must be tensors by name, got 3 \('step'\)"):
        fingerprint({"step": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="buffers must be 'persistent', 'all' or 'none', got 'some'"):
        fingerprint(nn.Linear(1, 1), buffers="some")  # type: ignore[arg-type]


# ---- ranks ----------------------------------------------------------------------------------------------------------


def fingerprint_of_ranks(whole: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, replicas: int, shards: int) -> set[str]:
    """The fingerprints of all ranks of a mesh (replicas, shards), run one after the other: the first round records what each
    rank would send, the second gives it the sum. `tests/distributed` has real ones.
    """
    sent: dict[tuple[int, int], Tensor] = {}
    found = set()
    for receiving in (False, True):
        for replica, shard in itertools.product(range(replicas), range(shards)):
            rank = replica * shards + shard
            dist.init_process_group("fake", rank=rank, world_size=replicas * shards, store=FakeStore())

            def reduce(sums: Tensor, group: dist.ProcessGroup, at: tuple[int, int] = (replica, shard)) -> None:
                assert dist.get_process_group_ranks(group) == [at[0] * shards + s for s in range(shards)]
                if not receiving:  # noqa: B023
                    sent[at] = sums.clone()
                else:
                    sums.copy_(torch.stack([sent[at[0], s] for s in range(shards)]).sum(0))

            try:
                mesh = init_device_mesh("cpu", (replicas, shards), mesh_dim_names=(f"a{rank}", f"b{rank}"))
                tensors = {}
                for name, tensor in whole.items():
                    local = tensor.tensor_split([-(-tensor.shape[0] // shards) * s for s in range(1, shards)])[shard]
                    placements = [Replicate(), Shard(0)]
                    tensors[name] = DTensor.from_local(
                        local, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
                    )
                monkeypatch.setattr(dist, "all_reduce", reduce)
                mine = fingerprint(tensors)
            finally:
                dist.destroy_process_group()
            if receiving:
                found.add(mine)
    return found


@pytest.mark.parametrize(("replicas", "shards"), [(1, 2), (2, 3), (3, 1)])
def test_ranks_agree_with_one_process(replicas: int, shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"w": random_bits((7, 6)), "b": random_bits((5,), torch.bfloat16)}
    assert fingerprint_of_ranks(whole, monkeypatch, replicas, shards) == {fingerprint(whole)}
