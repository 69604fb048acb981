#!/usr/bin/env python3
"""Makes tests/oracle/student_*.safetensors: what PyTorch computes for the students of models/model_table.h.

Both sides make weights, images and teacher depths from an integer hash, so a file holds results only. Everything is
computed in float64 from float32 inputs, so the errors that a test sees are those of the implementation under test.

  value(key, i) = top 24 bits of splitmix64(fnv1a64(key) + i) / 2^23 - 1, in [-1, 1); i runs over PyTorch's element order
  digest of a tensor = its L2 norm, then 16 sums of its elements with signs: element i has sign bit k of
                       splitmix64(fnv1a64(key + "#signs") + i), set = plus. For the difference of two tensors the mean of
                       the squared sums estimates the squared norm.

Biases are large enough that a few percent of the ReLUs are off, not half of them: with half, a rounding error flips
masks, and even PyTorch in float32 and in float64 differ by 1e-2 in the gradients.

Usage: make_student_fixture.py [FOLDER]     Needs PyTorch and NumPy; versions are stored in each file's metadata.
"""
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

N, H, W, BINS, D_MIN, D_MAX = 2, 64, 96, 257, 1e-3, 80.0
FIRST_ROW, SIGMA, ALPHA, BETA, STEPS = 20, 0.5, 0.1, 10.0, 10
SAMPLES, PROJECTIONS = 512, 16
LEARNING_RATE = 4e-5  # the start of the recipe's one-cycle


# ---- the hash ---------------------------------------------------------------------------------------------------
def fnv1a64(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def splitmix64(key, count):
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(key)) + np.arange(count, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def values(key, shape, offset=0.0, scale=1.0):
    u = (splitmix64(key, math.prod(shape)) >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0
    x = (offset + scale * u).astype(np.float32).astype(np.float64)
    return torch.from_numpy(x.reshape(shape))


def digest(key, x):
    x = x.detach().numpy().reshape(-1)
    h = splitmix64(key + "#signs", x.size)
    sums = [np.sum(np.where((h >> np.uint64(k)) & np.uint64(1), x, -x)) for k in range(PROJECTIONS)]
    return np.array([np.linalg.norm(x), *sums], dtype=np.float32)


def samples(key, x):
    x = x.detach().numpy().reshape(-1)
    return x[splitmix64(key + "#samples", SAMPLES) % np.uint64(x.size)].astype(np.float32)


# ---- the networks -----------------------------------------------------------------------------------------------
class ConvModule(nn.Module):
    def __init__(self, cin, cout, k=1, stride=1, dilation=1, groups=1, norm=True, act=None):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, k, stride, dilation * (k - 1) // 2, dilation, groups, bias=not norm)
        self.bn = nn.BatchNorm2d(cout) if norm else None
        self.act = act

    def forward(self, x):
        x = self.conv(x)
        x = self.bn(x) if self.bn else x
        return self.act(x) if self.act else x


class InvertedResidual(nn.Module):
    def __init__(self, cin, cout, expand, stride, dilation):
        super().__init__()
        hidden = cin * expand
        layers = [ConvModule(cin, hidden, act=F.relu6)] if expand != 1 else []
        layers.append(ConvModule(hidden, hidden, 3, stride, dilation, groups=hidden, act=F.relu6))
        layers.append(ConvModule(hidden, cout))
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and cin == cout

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    DILATED = [(1, 16, 1, 1, 1), (6, 24, 2, 2, 1), (6, 32, 3, 2, 1), (6, 64, 4, 1, 2), (6, 96, 3, 1, 2),
               (6, 160, 3, 1, 4), (6, 320, 1, 1, 4)]
    CLASSIFIER = [(1, 16, 1, 1, 1), (6, 24, 2, 2, 1), (6, 32, 3, 2, 1), (6, 64, 4, 2, 1), (6, 96, 3, 1, 1),
                  (6, 160, 3, 2, 1), (6, 320, 1, 1, 1)]

    def __init__(self, dilated=True):
        super().__init__()
        stages = self.DILATED if dilated else self.CLASSIFIER
        self.taps = (2, 3, 5, 7) if dilated else (1, 2, 3, 5, 7)
        self.CHANNELS = [stages[s - 1][1] for s in self.taps]
        self.conv1 = ConvModule(3, 32, 3, 2, act=F.relu6)
        cin = 32
        for s, (expand, cout, blocks, stride, dilation) in enumerate(stages, 1):
            stage = []
            for b in range(blocks):
                stage.append(InvertedResidual(cin, cout, expand, stride if b == 0 else 1, dilation if b == 0 else 1))
                cin = cout
            self.add_module(f"layer{s}", nn.Sequential(*stage))

    def forward(self, x):
        x = self.conv1(x)
        taps = []
        for s in range(1, 8):
            x = getattr(self, f"layer{s}")(x)
            if s in self.taps:
                taps.append(x)
        return taps


class ResNetBlock(nn.Module):
    def __init__(self, cin, width, cout, stride, bottleneck):
        super().__init__()
        kernels = [(cin, width, 1, 1), (width, width, 3, stride), (width, cout, 1, 1)] if bottleneck else \
                  [(cin, width, 3, stride), (width, cout, 3, 1)]
        self.count = len(kernels)
        for i, (a, b, k, s) in enumerate(kernels, 1):
            self.add_module(f"conv{i}", nn.Conv2d(a, b, k, s, k // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return F.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
    def __init__(self, depth):
        super().__init__()
        bottleneck = depth == 50
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        cin, self.CHANNELS = 64, [64]
        for s, blocks in enumerate([3, 4, 6, 3] if bottleneck else [2, 2, 2, 2]):
            width = 64 * 2**s
            cout = width * (4 if bottleneck else 1)
            stage = []
            for b in range(blocks):
                stage.append(ResNetBlock(cin, width, cout, 2 if s > 0 and b == 0 else 1, bottleneck))
                cin = cout
            self.add_module(f"layer{s + 1}", nn.Sequential(*stage))
            self.CHANNELS.append(cin)

    def forward(self, x):
        taps = [F.relu(self.bn1(self.conv1(x)))]
        x = F.max_pool2d(taps[0], 3, 2, 1)
        for s in range(1, 5):
            x = getattr(self, f"layer{s}")(x)
            taps.append(x)
        return taps


class UpBlock(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.convA = ConvModule(cin, cout, 3, norm=False, act=F.relu)
        self.convB = ConvModule(cout, cout, 3, norm=False, act=F.relu)

    def forward(self, x, size, skip=None):
        x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        return self.convB(self.convA(x if skip is None else torch.cat([x, skip], 1)))


class Decoder(nn.Module):
    def __init__(self, taps, widths, doublings, dpm):
        super().__init__()
        blocks, width = [ConvModule(taps[-1], widths[-1], norm=False)], widths[-1]
        for tap, out in list(zip(taps, widths))[-2::-1]:
            blocks.append(UpBlock(width + tap, out))
            width = out
        self.conv_list = nn.ModuleList(blocks)
        self.upsample_custom = UpBlock(width, width)
        if doublings == 2:
            self.upsample_custom2 = UpBlock(width, width)
        if dpm:
            self.conv_out = nn.Sequential(nn.Conv2d(width, BINS, 1))
        else:
            self.conv_depth = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, taps):
        x = self.conv_list[0](taps[-1])
        for block, skip in zip(list(self.conv_list)[1:], taps[-2::-1]):
            x = block(x, skip.shape[2:], skip)
        for name in ("upsample_custom", "upsample_custom2"):
            if hasattr(self, name):
                x = getattr(self, name)(x, [2 * s for s in x.shape[2:]])
        if hasattr(self, "conv_out"):
            return self.conv_out(x).permute(0, 2, 3, 1)
        return D_MAX * torch.sigmoid(self.conv_depth(x))[:, 0]


class Student(nn.Module):
    def __init__(self, backbone, widths, doublings, dpm):
        super().__init__()
        self.backbone = backbone
        self.decode_head = Decoder(backbone.CHANNELS, widths, doublings, dpm)
        self.double()
        state = self.state_dict()
        for key, x in state.items():
            if key.endswith("num_batches_tracked"):
                continue
            scale_of_norm = key.endswith("weight") and key[:-6] + "running_var" in state
            shift_of_norm = key.endswith("bias") and key[:-4] + "running_var" in state
            if x.dim() == 4:
                gain = 6.0 if key.startswith("backbone") else 1.0
                state[key] = values(key, x.shape, 0.0, math.sqrt(gain / (x.shape[1] * x.shape[2] * x.shape[3])))
            elif key.endswith("running_var") or scale_of_norm:
                state[key] = values(key, x.shape, 1.0, 0.25)
            elif key.endswith("bias"):
                state[key] = values(key, x.shape, 3.0 if shift_of_norm else 1.0, 0.125)
            else:
                state[key] = values(key, x.shape, 0.0, 0.125)
        self.load_state_dict(state)

    def forward(self, image):
        return self.decode_head(self.backbone(image))


# ---- the loss, from the published code's description ------------------------------------------------------------------
def teacher_depth():
    n, y, x = np.meshgrid(np.arange(N), np.arange(H), np.arange(W), indexing="ij")
    far = 1.0 - y / H
    wave = np.abs(((x + 7 * n) % 32) / 16.0 - 1.0)
    noise = values("teacher", (N, H, W), 0.0, 0.5).numpy()
    return torch.from_numpy((2.0 + 60.0 * far * far + 3.0 * wave + noise).astype(np.float32).astype(np.float64))


EDGES = torch.linspace(D_MIN, D_MAX, BINS + 1, dtype=torch.float64)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2


def ssim(a, b):
    g = torch.exp(-(torch.arange(11, dtype=torch.float64) - 5) ** 2 / (2 * 1.5**2))
    g = g / g.sum()
    window = (g[:, None] * g[None, :])[None, None]
    blur = lambda x: F.conv2d(x[:, None], window, padding=5)
    mu_a, mu_b = blur(a), blur(b)
    var_a, var_b = (blur(a * a) - mu_a**2).abs(), (blur(b * b) - mu_b**2).abs()
    cov = (blur(a * b) - mu_a * mu_b).abs()
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mu_a * mu_b + c1) * (2 * cov + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))).mean()


def tie_kd(logits, teacher):
    logits, teacher = logits[:, FIRST_ROW:], teacher[:, FIRST_ROW:]
    density = torch.exp(-((CENTRES - teacher[..., None]) ** 2) / (2 * SIGMA**2)) / (SIGMA * math.sqrt(2 * math.pi))
    t = torch.softmax(torch.where(density < 1e-16, -1000.0, density), -1)
    q = torch.softmax(logits, -1)
    kl = torch.where(q != 0, t * torch.log(t / (q + 1e-7) + 1e-7), 0.0).sum(-1).mean()
    depth = (q * CENTRES).sum(-1)
    return BETA * (ALPHA * kl + (1 - ALPHA) * (1 - ssim(depth, teacher))), kl


# ---- what is recorded -----------------------------------------------------------------------------------------------
def record_gradients(out, prefix, model):
    for key, p in model.named_parameters():
        out[f"{prefix}{key}"] = digest(key, p.grad)


def record_linear(model, out):
    """Eval-mode output; then the gradients of <dy, y> in train mode, and the running statistics that step leaves."""
    image = values("image", (N, H, W, 3), 0.0, 2.0).permute(0, 3, 1, 2)
    model.eval()
    with torch.no_grad():
        out["eval_output"] = samples("output", model(image))
    model.train()
    y = model(image)
    out["train_output"] = samples("output", y)
    model.zero_grad()
    (y * values("dy", tuple(y.shape), 1.0, 1.0)).sum().backward()
    record_gradients(out, "grad/", model)
    for key, b in model.named_buffers():
        if not key.endswith("num_batches_tracked"):
            out["after/" + key] = digest(key, b)


def record_training(model, out):
    image = values("image", (N, H, W, 3), 0.0, 2.0).permute(0, 3, 1, 2)
    teacher = teacher_depth()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.95, 0.99), eps=1e-8, weight_decay=0.01)
    model.train()
    losses, kls, norms = [], [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss, kl = tie_kd(model(image), teacher)
        loss.backward()
        if step == 0:
            record_gradients(out, "tie_kd_grad/", model)
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 35.0)))
        losses.append(loss.item())
        kls.append(kl.item())
        optimizer.step()
    out["learning_rate"] = np.array([LEARNING_RATE], dtype=np.float32)
    out["losses"], out["kl"], out["grad_norms"] = (np.array(x, dtype=np.float32) for x in (losses, kls, norms))
    print("losses", losses, "\nkl", kls, "\nnorms", norms)


def write_safetensors(path, tensors, about={}):
    meta = {"torch": torch.__version__, "numpy": np.__version__, "made_by": Path(__file__).name, **about}
    header, data = {"__metadata__": meta}, b""
    for key in sorted(tensors):
        x = np.ascontiguousarray(tensors[key], dtype="<f4")
        header[key] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(path.name, path.stat().st_size, "bytes")


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    students = {
        "mobilenet_unet": lambda: Student(MobileNetV2(), [128, 256, 512, 2048], 2, True),
        "mobilenet_unet_small": lambda: Student(MobileNetV2(False), [16, 32, 64, 128, 256], 1, True),
        "resnet18_unet": lambda: Student(ResNet(18), [128, 128, 256, 256, 512], 1, True),
        "resnet50_unet": lambda: Student(ResNet(50), [128, 256, 512, 1024, 2048], 1, False),
    }
    for name, make in students.items():
        out = {}
        record_linear(make(), out)
        if name == "mobilenet_unet":
            record_training(make(), out)
        write_safetensors(folder / f"student_{name}.safetensors", out)


if __name__ == "__main__":
    main()
