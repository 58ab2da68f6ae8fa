"""V-JEPA 2-AC's predictor: action and state are tokens of their frame.

arXiv 2506.09985, section 3.1. Parameter names are those of the published weights.

Shapes: B trajectories, T model steps, P patch tokens and S tokens in all per frame, D latent width,
A action width, Q proprio width, W width of the predictor.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm.encoders.frozen import layer_norm
from vjepa_wm.errors import SettingError
from vjepa_wm.frame_predictor import Cache, FramePredictor
from vjepa_wm.nn.blocks import NORM_EPS, Block, attend, attend_past, init_transformer
from vjepa_wm.nn.kv_cache import cached
from vjepa_wm.nn.rope import Rope, grid_positions, rope_3d

MLP_RATIO = 4.0


class FrameCausalBlock(Block):
    """Pre-norm block over frames: tokens see the frames before and all of their own."""

    def forward(self, x: Tensor, rope: Rope, cache: Cache = None) -> Tensor:
        """Map frames (B, T, S, W) to (B, T, S, W)."""
        frames = x.shape[1:3]
        query, key, value = self.attn.project(self.norm1(x).flatten(1, 2), rope)
        key, value, past = cached(key, value, cache)
        if past is None:
            h = attend_frames(query, key, value, tokens_per_frame=frames[1])
        else:  # one frame, which sees all
            h = attend_past(query, key, value, past)
        x = x + self.attn.proj(h.transpose(1, 2).flatten(2)).unflatten(1, frames)
        return x + self.mlp(self.norm2(x))


def attend_frames(query: Tensor, key: Tensor, value: Tensor, *, tokens_per_frame: int) -> Tensor:
    """Block-causal attention of (B, heads, L, head_dim), frame by frame.

    The queries are those of the last frames among the keys. No mask is made (the published
    code's, for 256 frames, takes 4 GB), and what a mask would hide is never computed.
    """
    past = key.shape[2] - query.shape[2]
    ends = range(tokens_per_frame, query.shape[2] + 1, tokens_per_frame)
    attended = [
        attend(
            query[:, :, end - tokens_per_frame : end],
            key[:, :, : past + end],
            value[:, :, : past + end],
            None,
        )
        for end in ends
    ]
    return torch.cat(attended, dim=2) if attended else query


def _in_float32(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a layer to actions or poses, of which bfloat16 would keep 2 mm and a degree."""
    return F.linear(x.float(), layer.weight.float(), layer.bias.float())


class TokenPredictor(FramePredictor):
    """Block-causal transformer over frames whose action and state are tokens.

    Frame t is the tokens [action, state, patches], all of which see each other and all frames
    before. Action and state tokens are turned by time alone, in the `tiled` style of V-JEPA 2. The
    output is the next frame itself, not a change of the last one; the next state is not predicted
    but integrated outside (`vjepa_wm.poses`).

    Args:
        latent_dim: width D of latents.
        grid: rows and columns of the tokens of a frame; P is their product.
        action_dim: width A of actions.
        proprio_dim: width Q of states; None has no state token, as in JEPA-WMs' `vjepa2_ac_droid`.
        width: width W of the predictor.
        depth: number of blocks.
        num_heads: attention heads per block.
        max_frames: longest sequence of input frames it is trained on; more raises.
        has_extrinsics: whether to hold the camera encoder of the released weights, which nothing
            uses, so that they load strictly.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        grid: tuple[int, int],
        action_dim: int,
        proprio_dim: int | None,
        width: int,
        depth: int,
        num_heads: int,
        max_frames: int,
        has_extrinsics: bool = False,
    ) -> None:
        if width % num_heads:
            raise SettingError(f"width {width} must be a multiple of num_heads {num_heads}")
        super().__init__(
            latent_dim=latent_dim,
            grid=grid,
            action_dim=action_dim,
            proprio_dim=proprio_dim,
            num_conditions=1 if proprio_dim is None else 2,
            width=width,
            max_frames=max_frames,
        )
        self.head_dim = width // num_heads
        self.predictor_embed = nn.Linear(latent_dim, width)
        self.action_encoder = nn.Linear(action_dim, width)
        self.state_encoder = None if proprio_dim is None else nn.Linear(proprio_dim, width)
        self.extrinsics_encoder = nn.Linear(action_dim - 1, width) if has_extrinsics else None
        self.predictor_blocks = nn.ModuleList(
            FrameCausalBlock(width, num_heads, mlp_ratio=MLP_RATIO) for _ in range(depth)
        )
        self.predictor_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.predictor_proj = nn.Linear(width, latent_dim)
        init_transformer(self, self.predictor_blocks)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The blocks, first to last."""
        return self.predictor_blocks

    def _condition(self, actions: Tensor, proprio: Tensor | None) -> Tensor:
        """Return the tokens of each frame's action and, where it takes states, state."""
        tokens = [_in_float32(self.action_encoder, actions)]
        if proprio is not None:
            tokens.append(_in_float32(self.state_encoder, proprio))
        return torch.stack(tokens, dim=2).to(self.predictor_embed.weight.dtype)

    def _embed(self, latents: Tensor, condition: Tensor) -> Tensor:
        patches = self.predictor_embed(latents.to(self.predictor_embed.weight.dtype))
        return torch.cat([condition, patches], dim=2)

    def _rope(self, first: int, end: int) -> Rope:
        device = self.predictor_embed.weight.device
        ids = torch.arange(first * self.num_patches, end * self.num_patches, device=device)
        patches = grid_positions(ids, rows=self.grid[0], columns=self.grid[1])
        patches = patches.view(-1, self.num_patches, 3)
        # Row 0, column 0 turns nothing: action and state tokens are turned by time alone
        conditions = patches[:, :1].repeat(1, self.tokens_per_frame - self.num_patches, 1)
        positions = torch.cat([conditions, patches], dim=1).flatten(0, 1)
        return rope_3d(positions, head_dim=self.head_dim, style="tiled")

    def _through_blocks(
        self, x: Tensor, condition: Tensor, rope: Rope, caches: Sequence[Cache]
    ) -> Tensor:
        for block, cache in zip(self.predictor_blocks, caches, strict=True):
            x = block(x, rope, cache)
        return x

    def _output(self, latents: Tensor, x: Tensor) -> Tensor:
        patches = x[:, :, -self.num_patches :]
        return layer_norm(self.predictor_proj(self.predictor_norm(patches)).float())
