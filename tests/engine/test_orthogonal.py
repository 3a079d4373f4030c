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


def test_nobody_asks_the_device_in_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """`info` says whether the factorisation failed; to read it, the host would wait for the device, which ends a capture."""
    asked = []

    class Info:
        def item(self) -> int:
            asked.append(True)
            return 0

    class OnDevice(torch.Tensor):
        is_cuda = True

    factorise = torch.linalg.cholesky_ex
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda gram: (factorise(gram.as_subclass(torch.Tensor))[0], Info()))
    tall = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).as_subclass(OnDevice)
    for capturing in (False, True):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda capturing=capturing: capturing)
        q, right = orthogonal._cholesky_qr(tall)
        assert right
        assert torch.allclose(q.mH @ q, torch.eye(8), atol=1e-5)
        assert bool(asked) is not capturing
        asked.clear()
