"""The action-conditioned predictor: latents and actions in, the next latents out.

Shapes: B trajectories, T model steps, P tokens per frame, D latent width, A action width,
W width of the predictor.
"""

import torch
from torch import Tensor, nn

from vjepa_wm.encoders.frozen import layer_norm
from vjepa_wm.errors import SettingError
from vjepa_wm.nn.blocks import NORM_EPS, Attention, Mlp, init_transformer
from vjepa_wm.nn.kv_cache import KVCache
from vjepa_wm.nn.rope import Rope, grid_positions, rope_3d


class ModulatedBlock(nn.Module):
    """Pre-norm block whose shift, scale and gate are set per frame by the action (AdaLN).

    The gates are one plus a learned term that starts at zero, so the block works from the first
    step and conditioning grows (after DiT, arXiv 2212.09748, whose gates start closed).
    """

    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS, elementwise_affine=False)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS, elementwise_affine=False)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        rope: Rope,
        *,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Map frames (B, T, P, W) to (B, T, P, W) under a condition per frame (B, T, 1, W)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=-1)
        h = (self.norm1(x) * (1 + scale1) + shift1).flatten(1, 2)  # (B, T * P, W)
        h = self.attn(h, rope, mask=mask, cache=cache).unflatten(1, x.shape[1:3])
        x = x + (1 + gate1) * h
        h = self.norm2(x) * (1 + scale2) + shift2
        return x + (1 + gate2) * self.mlp(h)


class ActionPredictor(nn.Module):
    """Block-causal transformer over frames, conditioned on actions by AdaLN.

    Tokens of frame t see all tokens of frames <= t. Frame t is modulated by the action taken at t,
    and its output is the prediction of frame t + 1: the input plus a learned change, layer-normed
    as latents are. The layout follows V-JEPA 2-AC (arXiv 2506.09985, section 3.1), with AdaLN in
    place of its action tokens.

    Args:
        latent_dim: width D of latents.
        grid: rows and columns of the tokens of a frame; P is their product.
        action_dim: width A of actions.
        width: width W of the predictor.
        depth: number of blocks.
        num_heads: attention heads per block.
        max_frames: longest sequence of input frames it is trained on; more raises.
        mlp_ratio: hidden width of the MLP as a multiple of W.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        grid: tuple[int, int],
        action_dim: int,
        width: int,
        depth: int,
        num_heads: int,
        max_frames: int,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise SettingError(f"width {width} must be a multiple of num_heads {num_heads}")
        self.grid = tuple(grid)
        self.num_patches = grid[0] * grid[1]
        self.action_dim = action_dim
        self.max_frames = max_frames
        self.latent_embed = nn.Linear(latent_dim, width)
        self.position_embed = nn.Parameter(torch.zeros(self.num_patches, width))
        self.action_embed = nn.Sequential(
            nn.Linear(action_dim, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(
            ModulatedBlock(width, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Linear(width, latent_dim)
        self._init_weights()
        ids = torch.arange(max_frames * self.num_patches)
        positions = grid_positions(ids, rows=grid[0], columns=grid[1])
        cos, sin = rope_3d(positions, head_dim=width // num_heads, style="interleaved")
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)

    def _init_weights(self) -> None:
        init_transformer(self, self.blocks)
        nn.init.normal_(self.position_embed, std=0.02)
        nn.init.xavier_uniform_(self.action_embed[0].weight)
        nn.init.xavier_uniform_(self.action_embed[2].weight)
        for block in self.blocks:
            nn.init.zeros_(block.modulation.weight)
        nn.init.zeros_(self.head.weight)  # starts as copy-last-frame, the floor it has to beat

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Predict every next frame in parallel.

        Args:
            latents: (B, T, P, D).
            actions: (B, T, A), the action taken at each of these frames.

        Returns:
            (B, T, P, D); the output at t predicts frame t + 1.

        Raises:
            SettingError: more frames than trained on, or shapes that disagree.
        """
        frames = latents.shape[1]
        self._check(latents, actions, first=0)
        x, condition = self._embed(latents, actions)
        rope = self._rope(0, frames)
        mask = self._mask(frames, x.device)
        for block in self.blocks:
            x = block(x, condition, rope, mask=mask)
        return self._output(latents, x)

    def prefill(
        self, latents: Tensor, actions: Tensor, *, max_frames: int, copies: int
    ) -> list[KVCache]:
        """Compute the keys and values of the observed past, once per problem.

        Args:
            latents: (B, C, P, D) past frames; C may be 0.
            actions: (B, C, A) the actions taken at them.
            max_frames: how many frames the caches must hold in the end.
            copies: candidates per problem that will share this past.

        Returns:
            One cache per block, for B * copies rows.
        """
        self._check(latents, actions, first=0)
        frames = latents.shape[1]
        x, condition = self._embed(latents, actions)
        rope = self._rope(0, frames)
        mask = self._mask(frames, x.device)
        caches = []
        for block in self.blocks:
            recorder = _Recorder()
            x = block(x, condition, rope, mask=mask, cache=recorder)
            caches.append(
                KVCache(
                    recorder.keys,
                    recorder.values,
                    max_tokens=max_frames * self.num_patches,
                    copies=copies,
                )
            )
        return caches

    def step(self, latents: Tensor, action: Tensor, caches: list[KVCache]) -> Tensor:
        """Predict one frame further, computing only the newest frame's tokens.

        Args:
            latents: (B, P, D) the newest frame.
            action: (B, A) the action taken at it.
            caches: keys and values of the frames before; the newest frame's are added.

        Returns:
            (B, P, D), the next frame: what `forward` gives at its last position.
        """
        latents, action = latents.unsqueeze(1), action.unsqueeze(1)
        first = caches[0].length // self.num_patches
        self._check(latents, action, first=first)
        x, condition = self._embed(latents, action)
        rope = self._rope(first, first + 1)
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, condition, rope, cache=cache)
        return self._output(latents, x).squeeze(1)

    def _embed(self, latents: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self.head.weight.dtype
        condition = self.action_embed(actions.to(dtype)).unsqueeze(2)  # (B, T, 1, W)
        x = self.latent_embed(latents.to(dtype)) + self.position_embed + condition
        return x, condition

    def _output(self, latents: Tensor, x: Tensor) -> Tensor:
        return layer_norm(latents + self.head(self.norm(x)).float())

    def _rope(self, first: int, end: int) -> Rope:
        part = slice(first * self.num_patches, end * self.num_patches)
        return self.rope_cos[:, :, part], self.rope_sin[:, :, part]

    def _mask(self, frames: int, device: torch.device) -> Tensor | None:
        """Block-causal mask (L, L), True where a token may attend."""
        if frames <= 1:
            return None
        frame = torch.arange(frames, device=device).repeat_interleave(self.num_patches)
        return frame.unsqueeze(1) >= frame.unsqueeze(0)

    def _check(self, latents: Tensor, actions: Tensor, *, first: int) -> None:
        frames = latents.shape[1]
        if first + frames > self.max_frames:
            raise SettingError(
                f"{first + frames} frames were given to a predictor trained on {self.max_frames}: "
                "shorten the context or the planning horizon"
            )
        wanted = (*latents.shape[:2], self.action_dim)
        if actions.shape != wanted or latents.shape[2] != self.num_patches:
            raise SettingError(
                f"wanted latents (B, T, {self.num_patches}, D) and actions (B, T, "
                f"{self.action_dim}), got {tuple(latents.shape)} and {tuple(actions.shape)}"
            )


class _Recorder:
    """Stands in for a cache while the past is computed, and keeps its keys and values."""

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.keys, self.values = keys, values
        return keys, values
