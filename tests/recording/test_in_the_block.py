"""More that code in the block must not be able to tell: storages, text, pickles, casts. Eager code says what is right."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorded import made, recorded
from torch import Tensor, nn

import weightinit_cuda as wi


def saved(w: Tensor) -> Any:
    file = io.BytesIO()
    torch.save({"all": w, "part": w[1:]}, file)
    file.seek(0)
    read = torch.load(file)
    return read["all"].tolist(), read["part"].tolist(), read["part"].data_ptr() - read["all"].data_ptr()


def pickled(w: Tensor) -> Any:
    plain, parameter = pickle.loads(pickle.dumps([w, nn.Parameter(w)]))
    return plain.tolist(), parameter.tolist(), parameter.requires_grad, type(parameter)


ANSWERS: dict[str, Callable[[Tensor], Any]] = {
    "storage sizes": lambda w: (w.untyped_storage().size(), len(w.storage()), w.storage().nbytes()),
    "storage device": lambda w: (w.untyped_storage().device, w.storage().device, w.storage().type(), w.storage_type()),
    "storage address": lambda w: (
        w.untyped_storage().data_ptr() == w.data_ptr() == w.storage().data_ptr() != 0,
        w[1:].untyped_storage().data_ptr() == w.data_ptr(),
    ),
    "storage values": lambda w: (w.storage().tolist(), w.storage()[1], w.untyped_storage().tolist()),
    "set_": lambda w: (torch.empty(0).set_(w).tolist(), torch.empty(0).set_(w.storage()).tolist()),
    "repr": lambda w: (repr(w), str(w), f"{w}", repr(nn.Parameter(w)), repr(nn.Parameter(w) * 2), repr(w > 1)),
    "repr of a list": lambda w: repr(nn.ParameterList([w])),
    "copy": lambda w: copy.copy(w).tolist(),
    "copies share memory": lambda w: (copy.copy(w).fill_(5.0), w.tolist())[1],
    "deepcopy": lambda w: copy.deepcopy(w).tolist(),
    "pickle": pickled,
    "torch.save": saved,
    "dlpack": lambda w: (torch.from_dlpack(w).tolist(), np.from_dlpack(w).tolist()),
    "a recorded size": lambda w: torch.zeros(w.sum().to(torch.int64), 2).shape,
    "pinned and shared": lambda w: (w.is_pinned(), w.is_shared()),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_eagers(name: str) -> None:
    expected = ANSWERS[name](torch.arange(3.0))
    with wi.deferred():
        assert ANSWERS[name](torch.arange(3.0)) == expected
    assert ANSWERS[name](torch.arange(3.0)) == expected


def test_nothing_is_left_on_torchs_classes() -> None:
    before = Tensor.__repr__, Tensor.__reduce_ex__, vars(torch.UntypedStorage).copy()
    with wi.deferred():
        assert Tensor.__repr__ is not before[0]
    assert before == (Tensor.__repr__, Tensor.__reduce_ex__, vars(torch.UntypedStorage).copy())


def test_memory_is_not_shared_before_it_exists() -> None:
    with wi.deferred(), pytest.raises(NotImplementedError, match=r"share_memory_\(\) in the block \(test_in_the_block.py:"):
        nn.Linear(2, 2).share_memory()


def test_the_default_generator_seeded_by_its_own_method() -> None:
    def build() -> Tensor:
        torch.default_generator.manual_seed(7)
        return torch.randn(3)

    state = torch.get_rng_state()
    try:
        torch.manual_seed(1)
        expected = build()
        torch.manual_seed(1)
        assert torch.equal(made(build).w, expected)
    finally:
        torch.set_rng_state(state)


def test_expanded_buffers() -> None:
    holder = made(lambda: {"e": torch.randn(1, 4).expand(3, 4), "c": torch.arange(3.0).expand(2, 3)})
    assert holder.e.stride() == (0, 1)
    assert holder.e.std(0).max() == 0
    assert holder.e.std() > 0
    assert torch.equal(holder.c, torch.arange(3.0).expand(2, 3))


def test_bits_seen_as_another_dtype() -> None:
    def build() -> dict[str, Tensor]:
        w, z = torch.randn(4), torch.randn(3, dtype=torch.complex64)
        return {"w": w, "bits": w.view(torch.int32), "z": z, "parts": torch.view_as_real(z)}

    holder = made(build)
    assert torch.equal(holder.w.view(torch.int32), holder.bits)
    assert torch.equal(torch.view_as_real(holder.z), holder.parts)
    assert holder.w.data_ptr() == holder.bits.data_ptr()


@pytest.mark.parametrize(("drawn", "cast"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float64)])
def test_casts_to_more_digits_make_no_digits(drawn: torch.dtype, cast: torch.dtype) -> None:
    holder = made(lambda: {"w": torch.randn(100, dtype=drawn).to(cast), "twice": torch.randn(9).bfloat16().float()})
    assert torch.equal(holder.w.to(drawn).to(cast), holder.w)
    assert torch.equal(holder.twice.bfloat16().float(), holder.twice)


def test_casts_to_fewer_digits_stay_fills() -> None:
    recording, holder = recorded(lambda: {"w": torch.randn(100), "h": torch.randn(9).half()})
    assert all(line.distribution.is_random for line in recording.plan(holder, seed=0))


STRIDED: dict[str, Callable[[], Tensor]] = {
    "svd": lambda: torch.linalg.svd(torch.eye(3, 4), full_matrices=False)[2],
    "eig": lambda: torch.linalg.eig(torch.eye(3))[1],
    "rfft2": lambda: torch.fft.rfft2(torch.eye(4)),
    "fftn": lambda: torch.fft.fftn(torch.ones(2, 3, 4)),
    "irfft": lambda: torch.fft.irfft2(torch.ones(4, 3, dtype=torch.complex64)),
}


@pytest.mark.parametrize("name", STRIDED)
def test_strides_are_the_cpus(name: str) -> None:
    if name == "eig" and torch.__version__ < (2, 7):
        pytest.skip("fake tensors of torch 2.6 have other strides themselves")
    expected = STRIDED[name]()
    ours = made(STRIDED[name]).w
    assert ours.stride() == expected.stride()
    torch.testing.assert_close(ours, expected)


def test_packed_sequences() -> None:
    def build() -> Tensor:
        layer = nn.LSTM(3, 4)
        for p in layer.parameters():
            nn.init.constant_(p, 0.1)
        packed = nn.utils.rnn.pack_sequence([torch.ones(3, 3), torch.ones(2, 3)])
        return layer(packed)[0].data.detach()

    torch.testing.assert_close(made(build).w, build())


# ---- dtypes by name ---------------------------------------------------------------------------------------------------


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj, self.lazy = nn.Linear(2, 2), nn.LazyLinear(2)
        self.register_buffer("inv_freq", 1.0 / (10000 ** (torch.arange(0, 8, 2).float() / 8)))
        self.register_buffer("given", GIVEN.clone())
        self.plain = torch.arange(3.0) / 3


GIVEN = torch.ones(2)


def test_keep_leaves_dtypes_by_name() -> None:
    with wi.deferred() as recording:
        net = Rotary()
    values = recording.values(net, seed=0, dtype=torch.bfloat16, keep="*inv_freq")
    recording.materialize_(net, dtype=torch.bfloat16, seed=0, keep=("*inv_freq", "given"))
    assert [t.dtype for t in (net.inv_freq, net.given, net.plain)] == [torch.float32] * 3
    assert net.proj.weight.dtype == net.lazy.weight.dtype == torch.bfloat16
    assert torch.equal(net.inv_freq, Rotary().inv_freq)
    assert torch.equal(values("inv_freq"), net.inv_freq)
    assert torch.equal(values("proj.weight"), net.proj.weight)


def test_views_of_what_is_kept_are_cast_from_it() -> None:
    with wi.deferred() as recording:
        m: Any = nn.Module()
        w, z = torch.randn(4), torch.randn(3, dtype=torch.complex64)
        m.w, m.v, m.z = nn.Parameter(w), nn.Parameter(w[1:3]), nn.Parameter(z)
        m.register_buffer("pairs", torch.view_as_real(z).reshape(-1)[:3])
        m.register_buffer("negative", z.conj().imag)
        m.register_buffer("again", z.imag)
    values = recording.values(m, seed=1, dtype=torch.bfloat16, keep=["w", "negative"])
    recording.materialize_(m, seed=1, dtype=torch.bfloat16, keep=["w", "negative"])
    expected = {"v": m.w[1:3], "pairs": torch.view_as_real(m.z).reshape(-1)[:3], "again": m.z.imag}
    for name, tensor in expected.items():
        assert torch.equal(getattr(m, name), tensor.bfloat16()), name
        assert torch.equal(values(name), tensor.bfloat16()), name
    assert torch.equal(m.negative, -m.z.imag)
    assert m.w.dtype == m.negative.dtype == torch.float32


def test_views_that_count_other_elements() -> None:
    """Bits of a draw as wider numbers, which go on where the other view ends."""
    with wi.deferred() as recording:
        m: Any = nn.Module()
        w = torch.rand(8)
        m.register_buffer("w", w[:4])
        m.register_buffer("bits", w.view(torch.int64)[:4])
    values = recording.values(m, seed=1)
    recording.materialize_(m, seed=1)
    assert torch.equal(m.bits.view(torch.float32)[:4], m.w)
    assert m.bits.view(torch.float32).min() > 0
    assert torch.equal(values("bits"), m.bits)
    assert torch.equal(values("w"), m.w)


@pytest.mark.parametrize(("keep", "error"), [(5, TypeError), ([3], TypeError), (b"x", TypeError), ("none.*", ValueError)])
def test_bad_keep_allocates_nothing(keep: Any, error: type[Exception]) -> None:
    with wi.deferred() as recording:
        net = Rotary()
    with pytest.raises(error, match=r"materialize_: .*keep"):
        recording.materialize_(net, dtype=torch.bfloat16, keep=keep)
    assert net.proj.weight.is_meta


# ---- from_pretrained in a constructor ---------------------------------------------------------------------------------


def test_from_pretrained_in_a_constructor(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", "5")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 11}
    config = transformers.BertConfig(**small, max_position_embeddings=8)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = transformers.BertModel.from_pretrained(tmp_path)  # a pooler is missing in the file
            self.head = nn.Linear(16, 2)

    eager = Net()
    with wi.deferred() as recording:
        net = Net()
    recording.materialize_(net, seed=0)
    ours, expected = ({**dict(n.named_parameters()), **dict(n.named_buffers())} for n in (net, eager))
    assert ours.keys() == expected.keys()
    differing = {key for key, tensor in expected.items() if not torch.equal(ours[key], tensor)}
    assert differing == {"bert.pooler.dense.weight", "head.weight", "head.bias"}
    assert ours["bert.pooler.dense.weight"].detach().std().item() == pytest.approx(0.02, rel=0.3)


def test_an_array_of_a_recorded_tensor_is_read_only() -> None:
    """What is written into it would reach no tensor: NumPy refuses at that line."""
    with wi.deferred() as recording:
        layer = nn.Linear(3, 2)
        array = layer.weight.detach().numpy()
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0
        layer.doubled = nn.Parameter(torch.from_numpy(array * 2))
    recording.materialize_(layer, device="cpu", seed=1)
    assert torch.equal(layer.doubled, 2 * layer.weight)


def test_functorch_asks_with_numbers_alone() -> None:
    with wi.deferred() as recorded:
        module = nn.Module()
        module.register_buffer("w", torch.func.vmap(lambda x: x.sum() * 2)(torch.arange(6.0).view(2, 3)))
    assert recorded.materialize_(module).w.tolist() == [6, 24]
