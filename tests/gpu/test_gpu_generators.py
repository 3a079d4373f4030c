"""Drop-in calls on a GPU draw their seed as nn.init's do: from the default generator of the device, or from the user's."""

from __future__ import annotations

import pytest
import torch
from on_device import on_gpu

import weightinit_cuda as wi

pytestmark = [*on_gpu]


def draws(generator: torch.Generator | None = None, count: int = 3) -> list[torch.Tensor]:
    return [wi.init.normal_(torch.empty(100, device="cuda"), generator=generator) for _ in range(count)]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("manual_seed", [torch.manual_seed, torch.cuda.manual_seed, torch.cuda.manual_seed_all])
def test_seeding_reproduces(manual_seed: object) -> None:
    assert callable(manual_seed)
    manual_seed(11)
    first = draws()
    assert not torch.equal(first[0], first[1]), "the state advances"
    manual_seed(11)
    assert equal(draws(), first)
    manual_seed(12)
    assert not torch.equal(draws()[0], first[0])


def test_state_is_saved_and_restored() -> None:
    torch.cuda.manual_seed(11)
    torch.rand(1000, device="cuda")
    state = torch.cuda.get_rng_state()
    first, after = draws(), torch.rand(10, device="cuda")
    torch.cuda.set_rng_state(state)
    assert equal(draws(), first)
    assert torch.equal(torch.rand(10, device="cuda"), after), "torch's own draws go on from the same place"
    with torch.random.fork_rng(devices=[torch.cuda.current_device()]):
        torch.cuda.set_rng_state(state)
        assert equal(draws(), first)


def test_the_users_generator() -> None:
    default = torch.cuda.get_rng_state()
    generator = torch.Generator("cuda").manual_seed(7)
    first = draws(generator)
    assert generator.get_offset() == 12
    assert equal(draws(torch.Generator("cuda").manual_seed(7)), first)
    assert not equal(draws(generator), first)
    assert torch.equal(torch.cuda.get_rng_state(), default), "the default generator is left alone"
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
        wi.init.normal_(torch.empty(3, device="cuda"), generator=torch.Generator())


def test_seeds_do_not_depend_on_what_is_filled() -> None:
    torch.cuda.manual_seed(3)
    large = wi.init.normal_(torch.empty(1000, device="cuda"))
    torch.cuda.manual_seed(3)
    assert torch.equal(wi.init.normal_(torch.empty(10, device="cuda")), large[:10])


def test_the_short_way_draws_as_the_careful_one() -> None:
    """Contiguous tensors take the one, transposed ones the other."""
    torch.cuda.manual_seed(3)
    short = [wi.init.uniform_(torch.empty(30, 7, device="cuda")) for _ in range(2)]
    offset = torch.cuda.default_generators[torch.cuda.current_device()].get_offset()
    torch.cuda.manual_seed(3)
    careful = [wi.init.uniform_(torch.empty(7, 30, device="cuda").T) for _ in range(2)]
    assert equal(short, careful)
    assert offset == torch.cuda.default_generators[torch.cuda.current_device()].get_offset() == 8
    assert [tensor._version for tensor in short] == [1, 1]


def test_patched_modules() -> None:
    weights = []
    for _ in range(2):
        torch.cuda.manual_seed(5)
        with wi.patched():
            weights.append(torch.nn.Linear(300, 200, device="cuda").weight.detach())
    assert torch.equal(*weights)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_each_device_has_its_own_default_generator() -> None:
    torch.cuda.manual_seed_all(9)
    a = wi.init.normal_(torch.empty(100, device="cuda:0")).cpu()
    assert torch.equal(wi.init.normal_(torch.empty(100, device="cuda:1")).cpu(), a)
