#!/usr/bin/env python3
"""Makes tests/oracle/losses.safetensors: what PyTorch computes for the losses of losses/tie_kd.h.

Formulas are written out from the paper (Eq. 1-6) and from the description of the published code; gradients are
PyTorch's. Everything is computed in float64 from the float32 inputs that the file holds.

Usage: make_loss_fixtures.py [FILE]     Needs PyTorch, NumPy and safetensors; versions are stored in the metadata.
"""
import math
import sys
from pathlib import Path

import numpy as np
import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

KITTI, NYU = (257, 1e-3, 80.0), (49, 1e-3, 10.0)
FLOOR, EPS = 1e-16, 1e-7
out = {}


def store(name, x):
    out[name] = x.detach().to(torch.float32).contiguous().clone()


def inputs(name, *shape, low, high, rng):
    """Random values that float32 holds exactly, as float64."""
    x = torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))
    store(name, x)
    return x.double()


# ---- depth probability maps ---------------------------------------------------------------------------------------
def edges_and_centres(bins):
    count, low, high = bins
    edges = torch.linspace(float(np.float32(low)), float(np.float32(high)), count + 1, dtype=torch.float64)
    return edges, (edges[1:] + edges[:-1]) / 2


def teacher_map(teacher, bins, target, sigma):
    sigma = float(np.float32(sigma))
    edges, centres = edges_and_centres(bins)
    d = teacher[..., None]
    if target == "mass":
        # Right of d the difference of the upper tails keeps its digits; torch.special.ndtr loses them at 8 sigma.
        z = (edges - d) / (sigma * math.sqrt(2))
        cdf, tail = 0.5 * torch.special.erfc(-z), 0.5 * torch.special.erfc(z)
        mass = torch.where(centres > d, tail[..., :-1] - tail[..., 1:], cdf[..., 1:] - cdf[..., :-1])
        return mass / mass.sum(-1, keepdim=True)
    density = torch.exp(-((centres - d) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    return torch.softmax(torch.where(density < FLOOR, torch.tensor(-1000.0, dtype=torch.float64), density), -1)


def kl_and_depth(logits, teacher, bins, target, kl, sigma, eps=EPS):
    t = teacher_map(teacher, bins, target, sigma)
    log_q, q = torch.log_softmax(logits, -1), torch.softmax(logits, -1)
    if kl == "student_teacher":
        per_pixel = (q * (log_q - torch.log(t.clamp(min=FLOOR)))).sum(-1)
    else:
        on = (q != 0) & (t > FLOOR)
        per_pixel = torch.where(on, t * torch.log(t.clamp(min=FLOOR) / (q + eps) + eps), 0.0).sum(-1)
    return per_pixel.mean(), (q * edges_and_centres(bins)[1]).sum(-1)


def record_dpm(rng):
    logits = inputs("dpm/logits", 1, 2, 3, KITTI[0], low=-3, high=5, rng=rng)
    teacher = inputs("dpm/teacher", 1, 2, 3, low=1, high=80, rng=rng)
    ddepth = inputs("dpm/ddepth", 1, 2, 3, low=-0.02, high=0.03, rng=rng)
    for target, sigma in (("mass", 0.8), ("softmax_pdf", 0.5)):
        for kl in ("student_teacher", "teacher_student"):
            x = logits.clone().requires_grad_()
            value, depth = kl_and_depth(x, teacher, KITTI, target, kl, sigma)
            (value + (ddepth * depth).sum()).backward()
            key = f"dpm/{target}/{kl}/"
            store(key + "kl", value[None])
            store(key + "depth", depth)
            store(key + "dlogits", x.grad)


# ---- depth maps ---------------------------------------------------------------------------------------------------
def ssim(a, b, absolute):
    g = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    g = g / g.sum()
    window = (g[:, None] * g[None, :])[None, None]

    def blur(x):
        return F.conv2d(x[:, None], window, padding=5)

    mu_a, mu_b = blur(a), blur(b)
    var_a, var_b = (blur(a * a) - mu_a**2).abs(), (blur(b * b) - mu_b**2).abs()
    cov = blur(a * b) - mu_a * mu_b
    cov = cov.abs() if absolute else cov
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mu_a * mu_b + c1) * (2 * cov + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))).mean()


def si(p, y):
    g = (torch.log(p + 1e-3) - torch.log(y + 1e-3))[y > 0]
    return torch.sqrt(torch.var(g) + 0.15 * g.mean() ** 2)


def record_depth_losses(rng):
    first_row = 3
    pred = inputs("depth/pred", 2, 14, 13, low=1, high=60, rng=rng)
    noise = torch.from_numpy(rng.uniform(-0.5, 0.5, pred.shape))
    target = (0.8 * pred + noise).float().double()
    sparse = torch.where(torch.from_numpy(rng.uniform(0, 1, pred.shape)) < 0.6, 0.0, target)
    store("depth/target", target)
    store("depth/sparse", sparse)
    losses = {
        "ssim_centred": lambda p: 1 - ssim(p[:, first_row:], target[:, first_row:], False),
        "ssim_reference": lambda p: 1 - ssim(p[:, first_row:], target[:, first_row:], True),
        "si": lambda p: si(p, sparse),
        "mse": lambda p: ((p - target) ** 2).mean(),
        "l1": lambda p: (p - target)[:, first_row:].abs().mean(),
    }
    for name, loss in losses.items():
        p = pred.clone().requires_grad_()
        value = loss(p)
        value.backward()
        store(f"depth/{name}/loss", value[None])
        store(f"depth/{name}/dpred", p.grad)


# ---- the combined loss ----------------------------------------------------------------------------------------------
def record_tie_kd(rng):
    top_rows, alpha, beta = 2, 0.1, 10.0
    logits = inputs("tie_kd/logits", 1, 8, 7, NYU[0], low=-2, high=3, rng=rng)
    teacher = inputs("tie_kd/teacher", 1, 8, 7, low=0.5, high=9.5, rng=rng)
    for name, target, kl, absolute in (
        ("paper", "mass", "student_teacher", False),
        ("published", "softmax_pdf", "teacher_student", True),
    ):
        x = logits.clone().requires_grad_()
        value, depth = kl_and_depth(x[:, top_rows:], teacher[:, top_rows:], NYU, target, kl, 0.5)
        depth_loss = 1 - ssim(depth, teacher[:, top_rows:], absolute)
        total = beta * (alpha * value + (1 - alpha) * depth_loss)
        total.backward()
        store(f"tie_kd/{name}/dpm", value[None])
        store(f"tie_kd/{name}/ssim", depth_loss[None])
        store(f"tie_kd/{name}/total", total[None])
        store(f"tie_kd/{name}/dlogits", x.grad)


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "losses.safetensors"
    record_dpm(np.random.default_rng(1))
    record_depth_losses(np.random.default_rng(2))
    record_tie_kd(np.random.default_rng(3))
    versions = {"torch": torch.__version__, "numpy": np.__version__, "safetensors": safetensors.__version__}
    save_file(out, str(path), metadata=versions | {"made_by": Path(__file__).name})
    path.chmod(0o644)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
