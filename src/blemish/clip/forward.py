"""The forward pass of both towers, as plain functions of the modules' weights.

Nothing is hooked, replaced or cached: a call changes no module.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish import concurrency
from blemish.clip.blocks import Block, ModuleBlock, run
from blemish.clip.dinov2 import Dinov2Tower
from blemish.clip.model import Nonlinearity, TextTower, VisionTower
from blemish.clip.request import PositionMode, Tap
from blemish.errors import UsageError, WeightsError

#: Tokens that go through the blocks together, of images on a CPU and of windows. Enough to keep the matrix products
#: busy, few enough that the hidden layer of an MLP stays in the cache: twice as many were measured to be slower.
IMAGE_TOKENS = 2048
WINDOW_TOKENS = 2048
#: Sentences in one batch of text.
SENTENCES = 128

_INTERPOLATIONS: dict[str, tuple[str, bool]] = {
    "bilinear": ("bilinear", False),
    "bicubic": ("bicubic", False),
    "bicubic-antialias": ("bicubic", True),
    "bicubic-offset": ("bicubic", False),
}
#: What is added to the number of positions where `bicubic-offset` computes the scale.
_OFFSET = 0.1
#: What the code of DINOv2 does, without and with register tokens.
_DINOV2: dict[str, tuple[PositionMode, PositionMode]] = {
    "dinov2-hub": ("bicubic-offset", "bicubic-antialias"),
    "dinov2-transformers": ("bicubic", "bicubic-antialias"),
}


def embed_image(
    vision: VisionTower | Dinov2Tower, pixels: Tensor, position: PositionMode, precision: torch.dtype = torch.float32
) -> tuple[Tensor, tuple[int, int]]:
    """Compute class token, register tokens and patch tokens, with positions but for registers: the tower's input.

    Args:
        vision: The vision tower.
        pixels: (B, 3, H, W); pixels beyond the last whole patch are left out.
        position: How positional embeddings are resized.
        precision: Type of the product of patches and weights.

    Returns:
        Tokens (B, 1 + R + N, D) with R register tokens, and the grid (rows, columns).
    """
    embeddings = vision.embeddings
    layer = embeddings.patch_embedding
    side = layer.kernel_size[0]
    grid = (pixels.shape[-2] // side, pixels.shape[-1] // side)
    if precision == torch.float32:
        tokens = layer(pixels.to(layer.weight.dtype)).flatten(2).transpose(1, 2)
    else:
        # As one matrix product: several times as fast as the convolution, which half precision hardly helps.
        patches = pixels.to(precision).unfold(2, side, side).unfold(3, side, side)  # (B, 3, rows, columns, side, side)
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        tokens = F.linear(patches, layer.weight.to(precision).flatten(1)).to(layer.weight.dtype)
        tokens = tokens if layer.bias is None else tokens + layer.bias
    class_token = embeddings.class_embedding.expand(tokens.shape[0], 1, -1)
    positions = resize_positions(
        embeddings.position_embedding.weight, grid, resolve_position(position, vision.registers)
    )
    tokens = torch.cat([class_token, tokens], dim=1) + positions
    if isinstance(vision, Dinov2Tower) and vision.registers:
        registers = vision.embeddings.register_tokens.expand(tokens.shape[0], -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
    return tokens, grid


def resolve_position(mode: PositionMode, registers: int) -> PositionMode:
    """Return the interpolation itself for the modes that are named after code, given the number of register tokens."""
    return _DINOV2[mode][registers > 0] if mode in _DINOV2 else mode


def resize_positions(weight: Tensor, grid: tuple[int, int], mode: PositionMode) -> Tensor:
    """Resize positional embeddings, always from the checkpoint's own.

    Args:
        weight: (1 + n * n, D), the class token's position first.
        grid: Rows and columns of the result.
        mode: Interpolation, from `resolve_position`. `bicubic-antialias` differs from `bicubic` even when enlarging,
            because PyTorch then uses another cubic kernel.

    Returns:
        (1 + rows * columns, D); `weight` itself if the grid is the checkpoint's. Differentiable.

    Raises:
        UsageError: The mode is unknown.
        WeightsError: The checkpoint's grid is not square.
    """
    if mode not in _INTERPOLATIONS:
        known = ", ".join([*_INTERPOLATIONS, *_DINOV2])
        raise UsageError(f"there is no positional interpolation {mode!r}: choose one of {known}")
    side = math.isqrt(weight.shape[0] - 1)
    if side * side != weight.shape[0] - 1:
        raise WeightsError(f"the {weight.shape[0] - 1} patch positions of the model are not those of a square grid")
    if grid == (side, side):
        return weight
    name, antialias = _INTERPOLATIONS[mode]
    # Autocast does not touch interpolation, but the weights may be half: interpolate in float32.
    patches = weight[1:].float().T.reshape(1, -1, side, side)
    target: dict[str, Any] = {"size": grid}
    if mode == "bicubic-offset":
        target = {"scale_factor": tuple((length + _OFFSET) / side for length in grid)}
    resized = F.interpolate(patches, **target, mode=name, align_corners=False, antialias=antialias)
    return torch.cat([weight[:1], resized.flatten(2)[0].T.to(weight.dtype)])


def run_image_blocks(
    blocks: Sequence[Block], x: Tensor, taps: Collection[Tap], *, class_token: bool
) -> tuple[dict[Tap, Tensor], Tensor | None]:
    """Run the vision blocks as far as needed, and in each block only what is needed.

    On a CPU the parts of a large batch run in parallel.

    Args:
        blocks: All L blocks of the tower.
        x: (B, 1 + N, D), after the first layer norm.
        taps: Streams to return, of layers up to L.
        class_token: Whether to return the class token after block L.

    Returns:
        The taps, (B, 1 + N, D) each, and the class token (B, D) or None.
    """
    if x.device.type != "cpu" or not isinstance(x.shape[0], int):
        # While a graph is traced (`blemish.exporting`), the batch size is a symbol, so that the batch cannot be split.
        return _run_image_part(blocks, x, taps, class_token)
    workers = concurrency.num_workers(x.shape[0], x.device)
    count = workers * max(1, round(x.shape[0] * x.shape[1] / IMAGE_TOKENS / workers))
    run_part = partial(_run_image_part, blocks, taps=taps, class_token=class_token)
    parts = concurrency.parallel_map(run_part, x.tensor_split(min(count, x.shape[0])), workers)
    if len(parts) == 1:
        return parts[0]
    tokens = [token for _, token in parts if token is not None]
    joined = {tap: torch.cat([out[tap] for out, _ in parts]) for tap in parts[0][0]}
    return joined, torch.cat(tokens) if tokens else None


def _run_image_part(
    blocks: Sequence[Block], x: Tensor, taps: Collection[Tap], class_token: bool
) -> tuple[dict[Tap, Tensor], Tensor | None]:
    last = len(blocks)
    groups = sorted({(tap.start, tap.seeded) for tap in taps if tap.path == "value"})
    ends = {g: max(t.layer for t in taps if t.path == "value" and (t.start, t.seeded) == g) for g in groups}
    stop = last if class_token else max((min(t.layer + (t.path == "middle"), last) for t in taps), default=0)
    out: dict[Tap, Tensor] = {}
    sums: dict[tuple[int, bool], Tensor] = {}

    for number, block in enumerate(blocks[:stop], start=1):
        residual, ending = Tap(number), Tap(number, "middle")
        whole = number < stop or residual in taps or (number == last and ending in taps)
        middle = Tap(number - 1, "middle") if number > 1 else None
        middle = middle if middle in taps else None
        active = [group for group in groups if group[0] <= number <= ends[group]]

        plain = whole or middle is not None or class_token
        # If nobody taps the last block's patches, it computes the class token's row only.
        rows = None if whole or middle else 1
        query, key, value = block.inputs(x, rows) if plain else (x, x, block.value(x))
        if active:
            value_attention = block.attend(value, value, value)
            for group in active:
                before = sums.get(group, x if group[1] else None)
                # Not in place, because returned taps are these very tensors; in the stream's precision, as it is a sum.
                sums[group] = value_attention.to(x.dtype) if before is None else before + value_attention
                tap = Tap(number, "value", *group)
                if tap in taps:
                    out[tap] = sums[group]
        if plain:
            halfway = x[:, :rows] + block.attend(query, key, value)
            if middle:
                out[middle] = halfway
            if whole or class_token:
                rest = halfway if whole else halfway[:, :1]
                x = rest + block.mlp(rest)
        if residual in taps:
            out[residual] = x
        if number == last and ending in taps:
            out[ending] = x
    # A copy, so that the class token does not keep the patches in memory.
    return out, x[:, 0].clone() if class_token else None


def window_indices(grid: tuple[int, int], side: int) -> Tensor:
    """Return the patch numbers of all windows of side * side patches at stride 1.

    Returns:
        (n_windows, side * side) int64; windows and the patches in them are row-major.

    Raises:
        UsageError: No such window fits into the grid.
    """
    rows, columns = grid
    if side > min(grid):
        raise UsageError(f"windows of {side} x {side} patches do not fit into a grid of {rows} x {columns}")
    patches = torch.arange(rows * columns).reshape(grid)
    return patches.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


def run_windows(blocks: Sequence[Block], x: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Compute the class token of each window: only it and the window's patches go through the blocks (WinCLIP).

    Windows of all images share their batches. A token enters the first block with the same value in all its windows, so
    the part of that block that looks at single tokens (layer norm, query, key, value) is computed once per image.

    Args:
        blocks: All blocks of the tower.
        x: (B, 1 + N, D), after the first layer norm.
        grid: Rows and columns of the N patches.
        side: Side of the windows in patches.

    Returns:
        (B, n_windows, D), raw.

    Raises:
        UsageError: No such window fits into the grid.
    """
    index = window_indices(grid, side).to(x.device)
    # Position 0 is the class token, patches begin at 1.
    index = torch.cat([index.new_zeros(len(index), 1), index + 1], dim=1)
    batch, (count, length) = x.shape[0], index.shape
    tokens = (torch.arange(batch, device=x.device)[:, None, None] * x.shape[1] + index).flatten(0, 1)
    # While a graph is traced (`blemish.exporting`), the batch size is a symbol, so that the batch cannot be split.
    parts = torch.split(tokens, max(1, WINDOW_TOKENS // length)) if isinstance(batch, int) else (tokens,)
    shared = [each.flatten(0, 1) for each in blocks[0].inputs(x)]
    flat = x.flatten(0, 1)
    # The last block computes the class token's row only.
    rows = [None] * (len(blocks) - 1) + [1]

    def run_part(part: Tensor) -> Tensor:
        query, key, value = (each[part] for each in shared)
        window = flat[part][:, : rows[0]] + blocks[0].attend(query[:, : rows[0]], key, value)
        window = window + blocks[0].mlp(window)
        for block, kept in zip(blocks[1:], rows[1:], strict=True):
            window = run(block, window, rows=kept)
        return window[:, 0]

    class_tokens = concurrency.parallel_map(run_part, parts, concurrency.num_workers(len(parts), x.device))
    return torch.cat(class_tokens).reshape(batch, count, -1)


def run_text(
    text: TextTower,
    embeddings: Tensor,
    end: Tensor,
    deep: Sequence[Tensor],
    activation: Nonlinearity,
    *,
    inserted: Tensor | None = None,
    before_norm: Nonlinearity | None = None,
) -> Tensor:
    """Run the text tower over token embeddings and take the end tokens.

    Tokens after the last end token are left out: attention is causal, so they cannot matter.

    Args:
        text: The text tower.
        embeddings: (T, n, Wt), without positions.
        end: (T,) positions of the end tokens.
        deep: deep[k], (T, m, Wt), replaces the hidden states at positions 1..m before block k + 2.
        activation: The MLPs' nonlinearity.
        inserted: (T, m, Wt) tokens after the first one, without positions; `end` does not count them.
        before_norm: Function of the end tokens (T, Wt), applied before the final layer norm.

    Returns:
        (T, Wt) after the final layer norm, not projected.
    """
    length = int(end.max()) + 1
    x = embeddings[:, :length] + text.embeddings.position_embedding.weight[:length]
    if inserted is not None:
        x = _put_after_first(x, inserted)
        # A sentence that ends with its first token ends before the inserted ones.
        end = end + inserted.shape[1] * (end > 0)
    attn_mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    x = _run_text_blocks(text, x, attn_mask, deep, activation)
    return _norm_end_tokens(text, x[torch.arange(len(x), device=x.device), end], before_norm)


def run_endings(
    text: TextTower,
    embeddings: Tensor,
    endings: Tensor,
    deep: Sequence[Tensor],
    activation: Nonlinearity,
    *,
    inserted: Tensor | None = None,
    before_norm: Nonlinearity | None = None,
) -> Tensor:
    """Run the text tower over sentences that begin alike, computing the shared beginning once.

    All endings follow the beginning in one sequence. Each has the positions that it has in its own sentence and attends
    to the beginning and to itself, so the result is that of `run_text`.

    Args:
        text: The text tower.
        embeddings: (T, s, Wt) beginnings, without positions.
        endings: (T, B, r, Wt), each with its end token last.
        deep: As for `run_text`; the tokens lie in the beginnings.
        activation: The MLPs' nonlinearity.
        inserted: As for `run_text`; the tokens lie in the beginnings.
        before_norm: As for `run_text`.

    Returns:
        (T, B, Wt) after the final layer norm, not projected.
    """
    start, length = embeddings.shape[1], endings.shape[2]
    positions = text.embeddings.position_embedding.weight
    first, rest = embeddings + positions[:start], endings + positions[start : start + length]
    if inserted is not None:
        first = _put_after_first(first, inserted)
        start = first.shape[1]
    x = torch.cat([first, rest.flatten(1, 2)], dim=1)
    order = torch.arange(x.shape[1], device=x.device)
    ending = torch.where(order < start, -1, order.sub(start).clamp_min(0) // length)  # -1 in the beginning
    attn_mask = (order <= order[:, None]) & ((ending < 0) | (ending == ending[:, None]))
    x = _run_text_blocks(text, x, attn_mask, deep, activation)
    return _norm_end_tokens(text, x[:, start + length - 1 :: length], before_norm)


def _put_after_first(x: Tensor, tokens: Tensor, replaced: int = 0) -> Tensor:
    """Put tokens (T, m, Wt) after the first of each sentence (T, n, Wt), in place of the next `replaced` tokens."""
    return torch.cat([x[:, :1], tokens.to(x.dtype), x[:, 1 + replaced :]], dim=1)


def _run_text_blocks(
    text: TextTower, x: Tensor, attn_mask: Tensor, deep: Sequence[Tensor], activation: Nonlinearity
) -> Tensor:
    """Run the blocks over (T, n, Wt) with positions; `attn_mask` (n, n) is true where a row may look."""
    for number, layer in enumerate(text.encoder.layers):
        if 1 <= number <= len(deep):
            tokens = deep[number - 1][:, : x.shape[1] - 1]
            x = _put_after_first(x, tokens, replaced=tokens.shape[1])
        x = run(ModuleBlock(layer, activation), x, attn_mask=attn_mask.unsqueeze(0))
    return x


def _norm_end_tokens(text: TextTower, end_tokens: Tensor, before_norm: Nonlinearity | None) -> Tensor:
    out: Tensor = text.final_layer_norm(end_tokens if before_norm is None else before_norm(end_tokens))
    return out
