#!/usr/bin/env python3
"""Makes tests/oracle/midas_small.safetensors: what PyTorch computes for MiDaS v2.1 small (models/midas_small.h).

The encoder is timm's tf_efficientnet_lite3 without weights, the decoder is written from the published layer table. The
hash, the digests and the file format are those of make_student_fixture.py; everything is computed in float64.

Usage: make_midas_fixture.py [FOLDER]     Needs PyTorch, timm and NumPy; versions are stored in the file's metadata.
"""
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn
import torch.nn.functional as F

from make_student_fixture import H, N, W, digest, samples, values

PARAMETERS = 21_320_545
TAPS, WIDTHS, OUT_WIDTHS = (32, 48, 136, 384), (64, 128, 256, 512), (64, 64, 128, 256)


class ResidualUnit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.out_conv = nn.Conv2d(width, out, 1)
        self.resConfUnit1 = ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)

    def forward(self, path, skip):
        x = skip if path is None else path + self.resConfUnit1(skip)
        x = F.interpolate(self.resConfUnit2(x), scale_factor=2, mode="bilinear", align_corners=True)
        return self.out_conv(x)


class Double(nn.Module):
    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class MidasSmall(nn.Module):
    def __init__(self):
        super().__init__()
        net = timm.create_model("tf_efficientnet_lite3", pretrained=False)
        self.pretrained = nn.Module()
        self.pretrained.layer1 = nn.Sequential(net.conv_stem, net.bn1, nn.Identity(), *net.blocks[0:2])
        self.pretrained.layer2 = nn.Sequential(*net.blocks[2:3])
        self.pretrained.layer3 = nn.Sequential(*net.blocks[3:5])
        self.pretrained.layer4 = nn.Sequential(*net.blocks[5:7])
        self.scratch = nn.Module()
        for k in range(4):
            setattr(self.scratch, f"layer{k + 1}_rn", nn.Conv2d(TAPS[k], WIDTHS[k], 3, padding=1, bias=False))
            setattr(self.scratch, f"refinenet{k + 1}", Fusion(WIDTHS[k], OUT_WIDTHS[k]))
        self.scratch.output_conv = nn.Sequential(nn.Conv2d(64, 32, 3, padding=1), Double(),
                                                 nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1))
        for module in self.modules():  # modules in place would overwrite what float64 gradients need
            if hasattr(module, "inplace"):
                module.inplace = False
        assert sum(p.numel() for p in self.parameters()) == PARAMETERS
        self.double()
        self.fill()

    def fill(self):
        """The rule of make_student_fixture.py; everything but the decoder has the gain of ReLU6 networks."""
        state = self.state_dict()
        for key, x in state.items():
            if key.endswith("num_batches_tracked"):
                continue
            if x.dim() == 4:
                gain = 1.0 if key.startswith("scratch") else 6.0
                state[key] = values(key, x.shape, 0.0, math.sqrt(gain / math.prod(x.shape[1:])))
            elif key.endswith("running_var") or (key.endswith("weight") and key[:-6] + "running_var" in state):
                state[key] = values(key, x.shape, 1.0, 0.25)
            elif key.endswith("bias"):
                state[key] = values(key, x.shape, 3.0 if key[:-4] + "running_var" in state else 1.0, 0.125)
            else:
                state[key] = values(key, x.shape, 0.0, 0.125)
        self.load_state_dict(state)

    def forward(self, x):
        taps = []
        for k in range(4):
            x = getattr(self.pretrained, f"layer{k + 1}")(x)
            taps.append(getattr(self.scratch, f"layer{k + 1}_rn")(x))
        path = None
        for k in (3, 2, 1, 0):
            path = getattr(self.scratch, f"refinenet{k + 1}")(path, taps[k])
        return self.scratch.output_conv(path).permute(0, 2, 3, 1)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    model, out = MidasSmall(), {}
    image = values("image", (N, H, W, 3), 0.0, 2.0).permute(0, 3, 1, 2)
    model.eval()
    with torch.no_grad():
        out["eval_output"] = samples("output", model(image))
    model.train()
    y = model(image)
    out["train_output"] = samples("output", y)
    target = y.mean().item()  # float32, so that both sides subtract the same
    target = np.float32(target).item() + values("target", tuple(y.shape), 0.0, 1.0)
    out["target_mean"] = np.array([np.float32(y.mean().item())])
    loss = (y - target).abs().mean()
    out["l1_loss"] = np.array([loss.item()])
    loss.backward()
    for key, p in model.named_parameters():
        if p.grad is not None:
            out["grad/" + key] = digest(key, p.grad)
    for key, b in model.named_buffers():
        if not key.endswith("num_batches_tracked"):
            out["after/" + key] = digest(key, b)

    meta = {"torch": torch.__version__, "timm": timm.__version__, "numpy": np.__version__, "made_by": Path(__file__).name}
    header, data = {"__metadata__": meta}, b""
    for key in sorted(out):
        x = np.ascontiguousarray(out[key], dtype="<f4")
        header[key] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = folder / "midas_small.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(path.name, path.stat().st_size, "bytes; loss", loss.item(), "output", y.mean().item(), y.std().item(),
          "share of positive", (y > target).double().mean().item())


if __name__ == "__main__":
    main()
