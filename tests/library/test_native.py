"""The native engine on a CPU: every preset in real dtypes, near emulation, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from oracles.reference_models import SCALE, autoencoder, classifier, conv_net, distance, images, labels
from torch import Tensor, nn

from mpkit import BF16, E4M3, FP16, FP32, Meter, Policy, fit
from mpkit.course.nets.transformer import Transformer
from mpkit.training.batches import Batches

PRESETS = ["fp32", "fp16-true", "fp16-master", "fp16-mixed", "bf16-true", "bf16-mixed", "article"]


def gradients(make: Callable[[], nn.Module], policy: str, engine: str) -> Tensor:
    model, target = make(), images() if make is autoencoder else labels()
    loss_fn = F.mse_loss if make is autoencoder else F.cross_entropy
    with Policy.preset(policy).apply(model, engine=engine):
        (SCALE * loss_fn(model(images()), target)).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(grad.dtype == torch.float32 for grad in grads)
    return torch.cat([grad.flatten() for grad in grads]) / SCALE


@pytest.mark.parametrize("make", [classifier, autoencoder, conv_net])
@pytest.mark.parametrize("policy", PRESETS)
def test_native_and_emulated_gradients_agree_within_the_rounding(make: Callable[[], nn.Module], policy: str) -> None:
    native, emulated = gradients(make, policy, "native"), gradients(make, policy, "emulated")
    limit = 1e-6 if policy == "fp32" else 2 * (BF16 if policy.startswith("bf16") else FP16).epsilon
    assert distance(native, emulated) < limit
    if policy != "fp32":  # and both really rounded
        assert distance(native, gradients(make, "fp32", "native")) > 1e-5


def seen(policy: str) -> dict[str, torch.dtype]:
    """Dtypes inside a real step: a hidden layer's weight, output and the gradient there."""
    model, found = classifier(), {}
    hidden = model[2]

    def look(module: nn.Module, _: object, out: Tensor) -> None:
        found["weight"], found["output"] = module.weight.dtype, out.dtype  # type: ignore[union-attr, assignment]
        out.register_hook(lambda grad: found.__setitem__("gradient", grad.dtype))

    hidden.register_forward_hook(look)
    with Policy.preset(policy).apply(model, engine="native"):
        F.cross_entropy(model(images()), labels()).backward()
    assert hidden.weight.dtype == torch.float32
    assert "weight" not in hidden.__dict__
    return found


def test_the_dtypes_of_a_step() -> None:
    half, full = torch.float16, torch.float32
    assert seen("fp16-mixed") == {"weight": full, "output": half, "gradient": half}
    assert seen("fp16-true") == {"weight": half, "output": half, "gradient": half}
    assert seen("bf16-true") == {"weight": torch.bfloat16, "output": torch.bfloat16, "gradient": torch.bfloat16}
    assert seen("article") == {"weight": full, "output": full, "gradient": full}


def test_the_article_rounds_forward_and_not_backward() -> None:
    x, w = torch.full((1, 1), 1 + 2.0**-11 + 2.0**-20), torch.full((1, 1), 3.0, requires_grad=True)
    layer = nn.Linear(1, 1, bias=False)
    layer.weight = nn.Parameter(w.detach())
    with Policy.preset("article").apply(layer, engine="native"):
        out = layer(x)
        (out * 1e-9).sum().backward()
    rounded = x.half().float()
    assert out.item() == (rounded.half() * 3).float().item()
    assert layer.weight.grad is not None
    assert layer.weight.grad.item() == pytest.approx(1e-9 * rounded.item(), rel=1e-6)  # FP16 would have flushed it


def test_a_transformer_under_the_articles_policy() -> None:
    def grads(engine: str) -> Tensor:
        model = Transformer(20, seed=1)
        tokens = torch.randint(0, 20, (4, 12), generator=torch.Generator().manual_seed(1))
        with Policy.preset("article").apply(model, engine=engine):
            model.loss(model(tokens), tokens).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    assert distance(grads("native"), grads("emulated")) < 2 * FP16.epsilon


def test_fit_trains_natively_and_stores_what_the_policy_says() -> None:
    model = classifier()
    data = Batches(images(), labels(), 32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    policy = Policy.preset("bf16-true")
    records = list(fit(model, data, optimizer=optimizer, steps=60, policy=policy, engine="native"))
    assert records[-1].loss < records[0].loss
    for p in model.parameters():
        assert torch.equal(p, p.bfloat16().float())


def test_tf32_flags_are_set_inside_and_restored() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with Policy().apply(nn.Identity(), engine="native"):
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False)
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"TF32 is a mode of NVIDIA's tensor cores .*, and this model is on the cpu"):
        Policy.preset("tf32").apply(classifier(), engine="native").__enter__()
    with pytest.raises(ValueError, match="no engine of the hardware runs params FP32, forward E4M3, backward FP32"):
        Policy(FP32, E4M3, FP32).apply(classifier(), engine="native")
    with pytest.raises(ValueError, match='real FP16 does not tell what it flushes; a meter needs engine="emulated"'):
        Policy.preset("fp16-mixed").apply(classifier(), engine="native", meter=Meter())
    net, data = classifier(), Batches(images(), labels(), 32)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, fused=True)
    with pytest.raises(ValueError, match="measure_every=0; use a whole number from 1 on, such as 20"):
        fit(net, data, optimizer=sgd, steps=1, engine="native", measure_flushed=True, measure_every=0)
    with pytest.raises(ValueError, match="read_every=2 needs capture=True"):
        fit(net, data, optimizer=sgd, steps=1, read_every=2)
    with pytest.raises(ValueError, match="a CUDA graph needs a CUDA device, and this model is on the cpu"):
        next(fit(net, data, optimizer=sgd, steps=1, capture=True))
