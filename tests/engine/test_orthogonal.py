"""Linear algebra of `orthogonal_`: in full precision whatever the user has allowed, and without waiting for the device."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch

from weightinit_cuda.engine import orthogonal

SETTINGS = {
    "allow_tf32": "torch.backends.cuda.matmul.allow_tf32 = True",
    "medium": "torch.set_float32_matmul_precision('medium')",
    "of CUDA": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "of all": "torch.backends.fp32_precision = 'tf32'",
}
NEW = hasattr(torch.backends.cuda.matmul, "fp32_precision")


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_products_are_in_full_precision_whatever_is_allowed(name: str) -> None:
    """torch's settings are of the process, so each is tried in a new one; they are afterwards as the user has left them."""
    if "fp32_precision" in SETTINGS[name] and not NEW:
        pytest.skip("torch has no such setting")
    code = f"""
    import torch
    import weightinit_cuda as wi
    from weightinit_cuda.engine import orthogonal

    def asked(question):
        try:
            return question()
        except RuntimeError:
            return "refused"

    def settings():
        backends = torch.backends
        return [
            asked(lambda: backends.cuda.matmul.allow_tf32),
            asked(lambda: getattr(backends.cuda.matmul, "fp32_precision", None)),
            asked(lambda: backends.mkldnn.matmul.fp32_precision if {NEW} else None),
            asked(torch.get_float32_matmul_precision),
        ]

    expected = wi.init.orthogonal_(torch.empty(1024, 128), seed=3)
    {SETTINGS[name]}
    before = settings()
    seen = []
    factorise = torch.linalg.cholesky_ex
    within = orthogonal._full_precision

    class Watched:
        def __enter__(self):
            self.inner = within()
            self.inner.__enter__()
            seen.append(settings())
        def __exit__(self, *error):
            return self.inner.__exit__(*error)

    orthogonal._full_precision = Watched
    made = wi.init.orthogonal_(torch.empty(1024, 128), seed=3)
    assert settings() == before, (before, settings())
    assert len(seen) == 2, seen
    assert all(one[1:3] == ["ieee", "ieee"] if {NEW} else one[0] is False for one in seen), seen
    assert torch.equal(made, expected)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


class OnDevice(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    is_cuda = True


def test_nobody_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`info` says whether the factorisation failed; to read it, the host would wait, which also ends a capture."""

    class Info(torch.Tensor):
        def item(self) -> int:
            raise AssertionError("somebody waits")

        __bool__ = __int__ = item

    factorise = torch.linalg.cholesky_ex

    def watched(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        factor, info = factorise(gram.as_subclass(torch.Tensor))
        return factor, info.as_subclass(Info)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", watched)
    tall = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).as_subclass(OnDevice)
    q, right = orthogonal._cholesky_qr(tall)
    assert right
    assert torch.allclose(q.mH @ q, torch.eye(8), atol=1e-5)


def test_a_factorisation_that_fails_is_never_silent() -> None:
    singular = torch.zeros(64, 8)
    assert orthogonal._cholesky_qr(singular) == (singular, False), "Householder's then does it"
    with pytest.raises(RuntimeError, match="Expected Tensor with single nonzero value"):
        orthogonal._cholesky_qr(singular.as_subclass(OnDevice))
