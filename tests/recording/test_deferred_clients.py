"""``deferred()`` under real code: twelve models of transformers and torch's own modules.

The truth comes from eager construction, watched by ``Watch``: which fill reached each storage last, with its numbers. What is
the same for two torch seeds is deterministic and must be equal bit for bit; what is not must have eager's mean and spread.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.numerics.distributions import Computed, Constant, Normal, Orthogonal, TruncNormal, Uniform
from weightinit_cuda.plans.table import table
from weightinit_cuda.tensors.named import named_tensors

transformers = pytest.importorskip("transformers", "5")
Build = Callable[[], nn.Module]


WHISPER = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
WHISPER |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_start_token_id": 4}
WHISPER |= {"max_source_positions": 30, "max_target_positions": 20}
WAV2VEC2 = {"conv_dim": [16, 16], "conv_stride": [2, 2], "conv_kernel": [3, 3], "num_feat_extract_layers": 2}
WAV2VEC2 |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}


def config(name: str, **numbers: Any) -> Any:
    return getattr(transformers, f"{name}Config")(**numbers)


def model(kind: str, name: str, **numbers: Any) -> Build:
    return lambda: getattr(transformers, kind)(config(name, **numbers))


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TOKENS = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
IMAGE = {"image_size": 32, "patch_size": 8}
TRANSFORMERS: dict[str, Build] = {
    "gpt2": model("GPT2LMHeadModel", "GPT2", n_embd=32, n_layer=2, n_head=4, n_positions=40, **TOKENS),
    "llama": model("LlamaForCausalLM", "Llama", num_key_value_heads=2, **SMALL, **TOKENS),
    "bert": model("BertForMaskedLM", "Bert", **SMALL, **TOKENS),
    "t5": model("T5ForConditionalGeneration", "T5", d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=99),
    "vit": model("ViTForImageClassification", "ViT", **SMALL, **IMAGE),
    "resnet": model("ResNetForImageClassification", "ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2]),
    "whisper": model("WhisperForConditionalGeneration", "Whisper", **WHISPER, **TOKENS),
    "mixtral": model("MixtralForCausalLM", "Mixtral", num_key_value_heads=2, num_local_experts=4, **SMALL, **TOKENS),
    "mamba": model("MambaForCausalLM", "Mamba", hidden_size=32, num_hidden_layers=2, state_size=8, **TOKENS),
    "clip": model(
        "CLIPModel",
        "CLIP",
        text_config={**SMALL, **TOKENS, "max_position_embeddings": 16},
        vision_config={**SMALL, **IMAGE},
        projection_dim=16,
    ),
    "convnext": model("ConvNextForImageClassification", "ConvNext", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
    "wav2vec2": model("Wav2Vec2ForCTC", "Wav2Vec2", **WAV2VEC2, **SMALL, **TOKENS),
}
TORCH: dict[str, Build] = {
    "transformer": lambda: nn.Transformer(16, 2, 2, 2, 32, batch_first=True),
    "lstm": lambda: nn.LSTM(6, 8, num_layers=2, bidirectional=True, proj_size=3),
    "gru": lambda: nn.GRU(6, 8),
    "attention": lambda: nn.MultiheadAttention(16, 4, kdim=8, vdim=6, add_bias_kv=True),
    "embedding": lambda: nn.Embedding(20, 8, padding_idx=3),
    "batchnorm": lambda: nn.Sequential(nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.InstanceNorm1d(4, affine=True), nn.PReLU(3)),
    "bilinear": lambda: nn.Bilinear(5, 6, 7),
    "conv_transpose": lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Conv3d(2, 4, (1, 2, 3), bias=False)),
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)),
    "spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5)),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 4)),
    "softmax": lambda: nn.AdaptiveLogSoftmaxWithLoss(16, 30, [5, 10]),
}
CLIENTS = TRANSFORMERS | TORCH
each_client = pytest.mark.parametrize("name", CLIENTS)


class Watch(TorchDispatchMode):
    """What eager construction writes to each storage: the fills and copies of them that were last, else "computed"."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, list[tuple[tuple[Any, ...], Any]]] = defaultdict(list)
        self.alive: list[Tensor] = []
        self.inside = 0

    def wrote(self, tensor: Tensor, what: Any) -> None:
        self.alive.append(tensor)
        place = tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())
        writes = self.last[tensor.untyped_storage()._cdata]
        if tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes():
            writes.clear()
        writes.append((place, what))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        fills = {
            "normal_": lambda mean=0.0, std=1.0: Normal(float(mean), float(std)),
            "uniform_": lambda a=0.0, b=1.0: Uniform(float(a), float(b)),
            "zero_": lambda: Constant(0.0),
            "fill_": lambda value: Constant(float(value)),
            "zeros": lambda *_: Constant(0.0),
            "ones": lambda *_: Constant(1.0),
        }
        if isinstance(result, Tensor) and not self.inside:
            new = not any(isinstance(a, Tensor) and a.untyped_storage()._cdata == result.untyped_storage()._cdata for a in args)
            if name == "clone":  # of a whole tensor in its own layout, as deep copies make it
                self.alive.append(result)
                self.last[result.untyped_storage()._cdata] = list(self.last[args[0].untyped_storage()._cdata])
            elif name in fills:
                self.wrote(result, fills[name](*args[not new :]))
            elif new or name.endswith("_"):
                self.wrote(result, "empty" if name.startswith("empty") else "computed")
        return result


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()
    truncated = nn.init._no_grad_trunc_normal_

    def trunc_normal_(tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any = None) -> Tensor:
        watch.inside += 1
        truncated(tensor, mean, std, a, b, generator)
        watch.inside -= 1
        watch.wrote(tensor, TruncNormal(*map(float, (mean, std, a, b))))
        return tensor

    with pytest.MonkeyPatch.context() as patch, watch:
        patch.setattr(nn.init, "_no_grad_trunc_normal_", trunc_normal_)
        yield watch


def eager(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return CLIENTS[name]()


@pytest.fixture(scope="module")
def recordings() -> dict[str, tuple[wi.Recording, nn.Module, wi.Plan]]:
    made = {}
    for name, build in CLIENTS.items():
        state = torch.get_rng_state()
        with wi.deferred() as recorded:
            built = build()
        assert torch.equal(state, torch.get_rng_state()), "nothing is drawn while recording"
        made[name] = recorded, built, recorded.plan(built, seed=3)
    return made


@each_client
def test_the_recorded_distributions_are_eagers(name: str, recordings: Any) -> None:
    _, _, plan = recordings[name]
    with watched() as watch:
        built = CLIENTS[name]()
    compared = 0
    for named in named_tensors(built):
        if nn.parameter.is_lazy(named.tensor):
            continue
        writes = watch.last[named.tensor.untyped_storage()._cdata]
        lines = plan[named.name]
        assert lines[0].aliases == named.aliases
        assert lines[0].shape == tuple(named.tensor.shape)
        assert lines[0].dtype == named.tensor.dtype
        if not writes or any(what in ("computed", "empty") for _, what in writes):  # torch.tensor(data) shows no write
            continue
        compared += 1
        assert [line.distribution for line in lines] == [what for _, what in writes], named.name
        for line, (place, _) in zip(lines, writes, strict=True):
            view = named.tensor[line.box.slices()] if line.box else named.tensor
            assert view.storage_offset() == place[0]
            assert view.numel() == math.prod(place[1])
    computed = {line.name for line in plan if isinstance(line.distribution, Computed)}
    assert compared + len(computed) >= 0.7 * len(plan.names())


@each_client
def test_values_are_eagers(name: str) -> None:
    """Deterministic tensors bit for bit; of the others mean and spread, and that they depend on the seed."""
    with wi.deferred() as recorded:
        built = CLIENTS[name]()
    recorded.materialize_(built, seed=3)
    with wi.deferred() as recorded:
        other = CLIENTS[name]()
    recorded.materialize_(other, seed=4)
    one, two = (dict(tensors(eager(name, seed))) for seed in (0, 1))
    ours, reseeded = dict(tensors(built)), dict(tensors(other))
    assert ours.keys() == one.keys()
    for key, tensor in ours.items():
        expected = one[key]
        assert not tensor.is_meta
        assert (tensor.shape, tensor.dtype, tensor.stride()) == (expected.shape, expected.dtype, expected.stride()), key
        assert tensor.requires_grad == expected.requires_grad
        assert type(tensor) is type(expected)
        if torch.equal(expected, two[key]):
            assert torch.equal(tensor, expected), key
        else:
            assert not torch.equal(tensor, reseeded[key]), key
            assert alike(tensor.detach(), expected.detach(), two[key].detach()), key


def tensors(built: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers, and plain attributes that are tensors."""
    for named in named_tensors(built):
        if not nn.parameter.is_lazy(named.tensor):
            yield named.name, named.tensor
    for prefix, module in built.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"{prefix}.{key}", value.detach()


def alike(a: Tensor, *others: Tensor) -> bool:
    """Whether mean, root mean square and extremes differ by what chance explains: 6 sigma of a mean over so many values."""
    b = torch.cat([other.reshape(-1) for other in others]).double()
    a = a.reshape(-1).double()
    spread = b.std().item()
    chance = 6 * math.sqrt(1 / a.numel() + 1 / b.numel()) + 1e-6
    means = abs(a.mean() - b.mean()).item() <= chance * spread
    squares = abs((a**2).mean() - (b**2).mean()).item() <= chance * ((b**2).std().item() + 1e-12) * 2
    return means and squares and bool(a.isfinite().all())


@each_client
def test_nothing_is_filled_twice_or_left_out(name: str, recordings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, built, plan = recordings[name]
    shapes = {n.name: n.tensor for n in named_tensors(built) if not nn.parameter.is_lazy(n.tensor)}
    assert plan.names() == list(shapes)
    real = {key: torch.full(t.shape, -77, dtype=t.dtype) for key, t in shapes.items()}
    written: list[Any] = []
    monkeypatch.setattr(engine, "fill", written.extend)

    def columns(tensors: Any, distributions: Any, seed: int, streams: Any, names: Any) -> None:
        rows = zip(tensors, distributions, streams, names, strict=True)
        written.extend(engine.FillJob(tensor, made, seed, stream, None, name) for tensor, made, stream, name in rows)

    monkeypatch.setattr(engine, "fill_whole", columns)
    plan.fill_({key: t for key, t in real.items() if not isinstance(plan[key][0].distribution, Orthogonal)})
    for key, tensor in real.items():
        count = torch.zeros(tensor.shape, dtype=torch.int32)
        for line in plan[key]:
            if isinstance(line.distribution, Computed | Orthogonal):  # not among the jobs that were noted
                count[line.box.slices() if line.box else ...] += 1
        for job in written:
            if job.name == key:
                where = job.region.slices(job.tensor.shape) if job.region else ...
                count[where] += 1
        assert bool((count == 1).all()), key


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "bert", "t5", "vit", "resnet", "whisper", "mamba", "clip", "convnext", "wav2vec2"]
)
def test_dead_fills_are_dropped(name: str, recordings: Any) -> None:
    """Half of what eager construction fills is overwritten; the plan has none of it."""
    recorded, _, plan = recordings[name]
    live = sum(math.prod(plan[key][0].shape) for key in plan.names())
    assert 0.4 < 1 - live / recorded.filled < 0.8


def test_the_scheme_is_transformers_own(recordings: Any) -> None:
    """Under torch.device("meta") transformers skips it, and the modules' defaults would be left."""
    _, _, plan = recordings["llama"]
    line = plan["model.layers.0.self_attn.q_proj.weight"][0]
    assert line.distribution == Normal(0.0, 0.02)
    assert line.source.startswith("modeling_utils.py:")
    _, _, plan = recordings["gpt2"]
    assert plan["transformer.h.0.mlp.c_proj.weight"][0].distribution == Normal(0.0, 0.02 / math.sqrt(4))
    assert plan["lm_head.weight"][0].name == "transformer.wte.weight"


def test_a_default_device_of_meta_is_taken_for_cpu() -> None:
    with torch.device("meta"), wi.deferred() as recorded:
        net = TRANSFORMERS["llama"]()
    assert recorded.plan(net)["model.layers.0.self_attn.q_proj.weight"][0].distribution == Normal(0.0, 0.02)


def test_lazy_modules_stay_lazy() -> None:
    with wi.deferred() as recorded:
        net = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    recorded.materialize_(net, dtype=torch.bfloat16)
    assert nn.parameter.is_lazy(net[0].weight)
    assert net(torch.ones(3, 5, dtype=torch.bfloat16)).shape == (3, 2)


def test_a_model_runs() -> None:
    with wi.deferred() as recorded:
        net = TRANSFORMERS["llama"]()
    recorded.materialize_(net, seed=0)
    loss = net(torch.arange(8)[None], labels=torch.arange(8)[None]).loss
    loss.backward()
    assert 3 < loss.item() < 7
    assert all(p.grad is not None for p in net.parameters())


GOLDEN = Path(__file__).parent / "plans"


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_golden_plans(name: str, recordings: Any) -> None:
    """What each architecture's own code means, as text to be read. After a change of transformers that is meant: delete the
    files and run this once."""
    _, _, plan = recordings[name]
    text = table((line._replace(source="") for line in plan), name) + "\n"
    path = GOLDEN / f"{name}.txt"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{path.name} was missing: written, to be read and committed")
    assert text == path.read_text()


def test_a_layer_more_changes_nothing_else() -> None:
    """Dead fills, other parameters and their number do not matter: names decide."""
    small, large = ({"n_embd": 32, "n_layer": n, "n_head": 4, "n_positions": 40, **TOKENS} for n in (2, 3))
    made = []
    for numbers in (small, large):
        with wi.deferred() as recorded:
            net = model("GPT2Model", "GPT2", **numbers)()
        made.append(recorded.materialize_(net, seed=0).state_dict())
    residual = "c_proj.weight"  # scaled by the number of layers, in GPT-2's own code
    same = [name for name in made[0] if not name.endswith(residual)]
    assert len(same) > 20
    assert all(torch.equal(made[0][name], made[1][name]) for name in same)
    for name in set(made[0]) - set(same):
        torch.testing.assert_close(made[0][name] * math.sqrt(2 / 3), made[1][name])
