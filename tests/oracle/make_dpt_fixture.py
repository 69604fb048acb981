#!/usr/bin/env python3
"""Makes tests/oracle/dpt_*.safetensors: what Hugging Face's DepthAnythingForDepthEstimation computes, in float64, for the
networks of models/depth_anything.h: sampled outputs and a digest of every parameter's gradient of an L1 loss.

Weights, images and targets come from the integer hash of make_student_fixture.py, keyed by the published (canonical)
names, so a file holds results only. `transformers` resizes positional embeddings to the exact grid; the published code
passes PyTorch the scale (n + 0.1) / 37 instead, and so does this script.

Usage: make_dpt_fixture.py [FOLDER]     Needs PyTorch, transformers and NumPy; versions are in each file's metadata.
"""
import math
import re
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
from transformers.models.dinov2 import modeling_dinov2

from make_student_fixture import digest, samples, values, write_safetensors

SIZES = {  # name: dim, layers, heads, grid, features, out_channels, head, image sizes
    "dpt_tiny_relative": (48, 4, 3, 4, 16, [8, 12, 16, 24], "relative", [(70, 42)]),
    "dpt_tiny_metric": (48, 4, 3, 4, 16, [8, 12, 16, 24], "metric", [(56, 56)]),
    "dpt_s": (384, 12, 6, 37, 64, [48, 96, 192, 384], "relative", [(518, 518), (280, 504)]),
    "dpt_b": (768, 12, 12, 37, 128, [96, 192, 384, 768], "relative", [(280, 504)]),
}
MAX_DEPTH = 20


def resize_positions(self, embeddings, height, width):
    positions = self.position_embeddings
    count, dim = positions.shape[1] - 1, positions.shape[2]
    if embeddings.shape[1] - 1 == count and height == width:
        return positions
    grid = math.isqrt(count)
    patches = positions[:, 1:].reshape(1, grid, grid, dim).permute(0, 3, 1, 2)
    scale = tuple((side // self.config.patch_size + 0.1) / grid for side in (height, width))
    patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", antialias=False)
    assert patches.shape[2:] == (height // self.config.patch_size, width // self.config.patch_size)
    return torch.cat([positions[:, :1], patches.permute(0, 2, 3, 1).reshape(1, -1, dim)], 1)


modeling_dinov2.Dinov2Embeddings.interpolate_pos_encoding = resize_positions


def make(dim, layers, heads, grid, features, out_channels, head):
    stages = [f"stage{(i + 1) * layers // 4}" for i in range(4)]
    backbone = Dinov2Config(hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads, image_size=14 * grid,
                            patch_size=14, out_features=stages, reshape_hidden_states=False, apply_layernorm=True)
    config = DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=dim, patch_size=14,
                                 neck_hidden_sizes=out_channels, fusion_hidden_size=features, head_hidden_size=32,
                                 depth_estimation_type=head, max_depth=MAX_DEPTH if head == "metric" else 1)
    return DepthAnythingForDepthEstimation(config).double().eval()


RENAMES = [
    (r"backbone\.embeddings\.cls_token", "pretrained.cls_token"),
    (r"backbone\.embeddings\.position_embeddings", "pretrained.pos_embed"),
    (r"backbone\.embeddings\.mask_token", "pretrained.mask_token"),
    (r"backbone\.embeddings\.patch_embeddings\.projection\.(.*)", r"pretrained.patch_embed.proj.\1"),
    (r"backbone\.encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1", r"pretrained.blocks.\1.ls\2.gamma"),
    (r"backbone\.encoder\.layer\.(\d+)\.attention\.o_proj\.(.*)", r"pretrained.blocks.\1.attn.proj.\2"),
    (r"backbone\.encoder\.layer\.(\d+)\.attention\.([qkv])_proj\.(.*)", r"pretrained.blocks.\1.attn.qkv.\3#\2"),
    (r"backbone\.encoder\.layer\.(\d+)\.((norm|mlp\.fc)[12]\..*)", r"pretrained.blocks.\1.\2"),
    (r"backbone\.layernorm\.(.*)", r"pretrained.norm.\1"),
    (r"neck\.reassemble_stage\.layers\.(\d)\.projection\.(.*)", r"depth_head.projects.\1.\2"),
    (r"neck\.reassemble_stage\.layers\.(\d)\.resize\.(.*)", r"depth_head.resize_layers.\1.\2"),
    (r"neck\.convs\.(\d)\.weight", lambda m: f"depth_head.scratch.layer{int(m[1]) + 1}_rn.weight"),
    (r"neck\.fusion_stage\.layers\.(\d)\.projection\.(.*)",
     lambda m: f"depth_head.scratch.refinenet{4 - int(m[1])}.out_conv.{m[2]}"),
    (r"neck\.fusion_stage\.layers\.(\d)\.residual_layer(\d)\.convolution(\d)\.(.*)",
     lambda m: f"depth_head.scratch.refinenet{4 - int(m[1])}.resConfUnit{m[2]}.conv{m[3]}.{m[4]}"),
    (r"head\.conv1\.(.*)", r"depth_head.scratch.output_conv1.\1"),
    (r"head\.conv2\.(.*)", r"depth_head.scratch.output_conv2.0.\1"),
    (r"head\.conv3\.(.*)", r"depth_head.scratch.output_conv2.2.\1"),
]


def canonical(name):
    for pattern, to in RENAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, to, name)
    raise KeyError(name)


def grouped(model):
    """Canonical name -> its parameters: one, or query, key and value, which the published code keeps as one."""
    groups = {}
    for name, p in model.named_parameters():
        key, _, part = canonical(name).partition("#")
        groups.setdefault(key, {})["qkv".index(part) if part else 0] = p
    return {key: [parts[i] for i in sorted(parts)] for key, parts in groups.items()}


def weight(key, shape):
    if key.endswith("gamma"):
        return values(key, shape, 0.5, 0.1)
    if "norm" in key and key.endswith("weight"):
        return values(key, shape, 1.0, 0.1)
    if key.endswith(("pos_embed", "cls_token")):
        return values(key, shape, 0.0, 0.2)
    if key.endswith("bias"):
        return values(key, shape, 0.0, 0.1)
    return values(key, shape, 0.0, math.sqrt(3.0 / math.prod(shape[1:])))


def record(model, height, width):
    groups = grouped(model)
    with torch.no_grad():
        for key, parts in groups.items():
            shape = (len(parts) * parts[0].shape[0], *parts[0].shape[1:])
            for p, x in zip(parts, weight(key, shape).chunk(len(parts))):
                p.copy_(x)
    image = values("image", (1, height, width, 3), 0.0, 2.0).permute(0, 3, 1, 2)
    y = model(image).predicted_depth
    (y - values("target", tuple(y.shape), 1.0, 1.0)).abs().mean().backward()
    out = {"output": samples("output", y)}
    for key, parts in groups.items():
        if parts[0].grad is not None:  # layers that are never run have none
            out["grad/" + key] = digest(key, torch.cat([p.grad for p in parts]))
    print(f"output {y.min():.4f} .. {y.max():.4f}, {len(out) - 1} gradients")
    return out


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, (*config, sizes) in SIZES.items():
        for height, width in sizes:
            out = record(make(*config), height, width)
            write_safetensors(folder / f"{name}_{height}x{width}.safetensors", out,
                              {"transformers": transformers.__version__, "made_by": Path(__file__).name})


if __name__ == "__main__":
    main()
