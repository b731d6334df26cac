"""The forward passes, as plain functions over transformer blocks and the modules of a `transformers.CLIPModel`.

Nothing is hooked, replaced or remembered: the modules are called, that is all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish import concurrency
from blemish.clip.blocks import Block, ModuleBlock, Nonlinearity, run
from blemish.clip.position import resize_positions
from blemish.clip.request import PositionMode, Tap
from blemish.errors import UsageError

#: Tokens that go through the blocks together, of pictures on a CPU, and of windows: enough to keep the matrix products
#: busy, few enough that what lies between the layers of an MLP stays near the processor (measured: from twice as many
#: on, the memory is what one waits for).
PICTURE_TOKENS = 2048
WINDOW_TOKENS = 2048
#: Sentences in one batch of text.
SENTENCES = 128


def embed_image(
    vision: Any, pixels: Tensor, position: PositionMode, precision: torch.dtype = torch.float32
) -> tuple[Tensor, tuple[int, int]]:
    """Class token and patch tokens with positions, before the first layer norm.

    Args:
        vision: the vision tower.
        pixels: (B, 3, H, W); pixels beyond the last whole patch are left out.
        position: how positional embeddings are resized.
        precision: of the product of patches and weights.

    Returns:
        tokens (B, 1 + N, D) and the grid (rows, columns).
    """
    embeddings = vision.embeddings
    layer = embeddings.patch_embedding
    side = layer.kernel_size[0]
    grid = (pixels.shape[-2] // side, pixels.shape[-1] // side)
    if precision == torch.float32:
        tokens = layer(pixels.to(layer.weight.dtype)).flatten(2).transpose(1, 2)
    else:
        # As one matrix product: several times as fast as the convolution, which half precision hardly helps.
        cut = pixels.to(precision).unfold(2, side, side).unfold(3, side, side)  # (B, 3, rows, columns, side, side)
        rows = cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        tokens = F.linear(rows, layer.weight.to(precision).flatten(1)).to(layer.weight.dtype)
    first = embeddings.class_embedding.expand(tokens.shape[0], 1, -1)
    positions = resize_positions(embeddings.position_embedding.weight, grid, position)
    return torch.cat([first, tokens], dim=1) + positions, grid


def run_image_blocks(
    blocks: Sequence[Block], x: Tensor, taps: Collection[Tap], *, class_token: bool
) -> tuple[dict[Tap, Tensor], Tensor | None]:
    """Run the vision blocks as far as needed, and in each block only what is needed.

    On a CPU a large batch is run in parts, which hand out what the whole would.

    Args:
        blocks: all L blocks of the tower.
        x: (B, 1 + N, D), after the first layer norm.
        taps: streams to hand out, layers at most L.
        class_token: also hand out the class token after block L.

    Returns:
        taps, each (B, 1 + N, D), and the class token (B, D) or None.
    """
    if x.device.type != "cpu" or not isinstance(x.shape[0], int):
        # While a graph is made (`blemish.exporting`), the batch is no number yet and cannot be parted.
        return _run_together(blocks, x, taps, class_token)
    together = concurrency.num_workers(x.shape[0], x.device)
    count = together * max(1, round(x.shape[0] * x.shape[1] / PICTURE_TOKENS / together))
    run_part = partial(_run_together, blocks, taps=taps, class_token=class_token)
    parts = concurrency.parallel_map(run_part, x.tensor_split(min(count, x.shape[0])), together)
    if len(parts) == 1:
        return parts[0]
    tokens = [token for _, token in parts if token is not None]
    joined = {tap: torch.cat([out[tap] for out, _ in parts]) for tap in parts[0][0]}
    return joined, torch.cat(tokens) if tokens else None


def _run_together(
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
        # The last block computes the class token's row only, if no one taps its patches.
        rows = None if whole or middle else 1
        query, key, value = block.inputs(x, rows) if plain else (x, x, block.value(x))
        if active:
            added = block.attend(value, value, value)
            for group in active:
                before = sums.get(group, x if group[1] else None)
                # Never in place: taps handed out earlier are these very tensors. Never in half precision: it is a sum.
                sums[group] = added.to(x.dtype) if before is None else before + added
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
    # A copy, so that keeping the class token does not keep the patches.
    return out, x[:, 0].clone() if class_token else None


def window_indices(grid: tuple[int, int], side: int) -> Tensor:
    """Patch numbers of all windows of side * side patches at stride 1: (n_windows, side * side), all row-major.

    Raises:
        UsageError: if no such window fits into the grid.
    """
    rows, columns = grid
    if side > min(grid):
        raise UsageError(f"windows of {side} x {side} patches do not fit into a grid of {rows} x {columns}")
    patches = torch.arange(rows * columns).reshape(grid)
    return patches.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


def run_windows(blocks: Sequence[Block], x: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Class token of each window: only the class token and the window's patches go through the blocks.

    Windows of all pictures share their batches. A token enters the first block the same in every window that it lies
    in, so what that block makes of it alone (layer norm, query, key, value) is made once per picture and handed out.

    Args:
        blocks: all blocks of the tower.
        x: (B, 1 + N, D), after the first layer norm (it acts on tokens one by one, so it commutes with choosing them).
        grid: (rows, columns) of the N patches.
        side: of the windows in patches.

    Returns:
        (B, n_windows, D), raw.
    """
    index = window_indices(grid, side).to(x.device)
    # Position 0 is the class token, patches begin at 1.
    index = torch.cat([index.new_zeros(len(index), 1), index + 1], dim=1)
    batch, (count, length) = x.shape[0], index.shape
    places = (torch.arange(batch, device=x.device)[:, None, None] * x.shape[1] + index).flatten(0, 1)
    # While a graph of it is made (`blemish.exporting`), the batch is no number yet and cannot be parted.
    parts = torch.split(places, max(1, WINDOW_TOKENS // length)) if isinstance(batch, int) else (places,)
    shared = [each.flatten(0, 1) for each in blocks[0].inputs(x)]
    flat = x.flatten(0, 1)
    # Of the last block only the class token's row is wanted.
    rows = [None] * (len(blocks) - 1) + [1]

    def run_part(part: Tensor) -> Tensor:
        query, key, value = (each[part] for each in shared)
        window = flat[part][:, : rows[0]] + blocks[0].attend(query[:, : rows[0]], key, value)
        window = window + blocks[0].mlp(window)
        for block, wanted in zip(blocks[1:], rows[1:], strict=True):
            window = run(block, window, rows=wanted)
        return window[:, 0]

    done = concurrency.parallel_map(run_part, parts, concurrency.num_workers(len(parts), x.device))
    return torch.cat(done).reshape(batch, count, -1)


def run_text(
    text: Any,
    embeddings: Tensor,
    end: Tensor,
    deep: Sequence[Tensor],
    activation: Nonlinearity,
    *,
    inserted: Tensor | None = None,
    before_norm: Nonlinearity | None = None,
) -> Tensor:
    """Run the text tower over token embeddings and take the end token.

    What comes after the last end token is left out: attention is causal, so it cannot matter.

    Args:
        text: the text tower.
        embeddings: (T, n, Wt), without positions.
        end: (T,) position of the end token.
        deep: deep[k], (T, m, Wt), replaces the hidden states at positions 1..m before block k + 2.
        activation: the MLPs' nonlinearity.
        inserted: (T, m, Wt), tokens that come after the first one and have no positions; `end` does not count them.
        before_norm: acts on the end tokens (T, Wt) before the final layer norm.

    Returns:
        (T, Wt) after the final layer norm, not projected.
    """
    length = int(end.max()) + 1
    x = embeddings[:, :length] + text.embeddings.position_embedding.weight[:length]
    if inserted is not None:
        x = _after_first(x, inserted)
        # A sentence that ends with its first token ends before them.
        end = end + inserted.shape[1] * (end > 0)
    seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    x = _run_text_blocks(text, x, seen, deep, activation)
    return _finished(text, x[torch.arange(len(x), device=x.device), end], before_norm)


def run_endings(
    text: Any,
    embeddings: Tensor,
    endings: Tensor,
    deep: Sequence[Tensor],
    activation: Nonlinearity,
    *,
    inserted: Tensor | None = None,
    before_norm: Nonlinearity | None = None,
) -> Tensor:
    """`run_text` for sentences that begin alike: what they share goes through the tower once.

    All endings follow the beginning in one sequence, each at the positions that it would have by itself, and see the
    beginning and themselves.

    Args:
        embeddings: (T, s, Wt) beginnings, without positions.
        endings: (T, B, r, Wt), each with its end token last.
        text, deep, activation, inserted, before_norm: as in `run_text`; deep and inserted tokens lie in the beginnings.

    Returns:
        (T, B, Wt).
    """
    start, length = embeddings.shape[1], endings.shape[2]
    positions = text.embeddings.position_embedding.weight
    first, rest = embeddings + positions[:start], endings + positions[start : start + length]
    if inserted is not None:
        first = _after_first(first, inserted)
        start = first.shape[1]
    x = torch.cat([first, rest.flatten(1, 2)], dim=1)
    order = torch.arange(x.shape[1], device=x.device)
    ending = torch.where(order < start, -1, order.sub(start).clamp_min(0) // length)  # -1 in the beginning
    seen = (order <= order[:, None]) & ((ending < 0) | (ending == ending[:, None]))
    x = _run_text_blocks(text, x, seen, deep, activation)
    return _finished(text, x[:, start + length - 1 :: length], before_norm)


def _after_first(x: Tensor, tokens: Tensor, instead_of: int = 0) -> Tensor:
    """Puts tokens (T, m, Wt) behind the first of each sentence (T, n, Wt), in place of as many as are told."""
    return torch.cat([x[:, :1], tokens.to(x.dtype), x[:, 1 + instead_of :]], dim=1)


def _run_text_blocks(text: Any, x: Tensor, seen: Tensor, deep: Sequence[Tensor], activation: Nonlinearity) -> Tensor:
    """(T, n, Wt), positions added, through the blocks; `seen` (n, n) says which places each place looks at."""
    for number, block in enumerate(text.encoder.layers):
        if 1 <= number <= len(deep):
            tokens = deep[number - 1][:, : x.shape[1] - 1]
            x = _after_first(x, tokens, instead_of=tokens.shape[1])
        x = run(ModuleBlock(block, activation), x, seen=seen.unsqueeze(0))
    return x


def _finished(text: Any, end_tokens: Tensor, before_norm: Nonlinearity | None) -> Tensor:
    out: Tensor = text.final_layer_norm(end_tokens if before_norm is None else before_norm(end_tokens))
    return out
