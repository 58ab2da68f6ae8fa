"""The one video ViT of the toolkit; every V-JEPA encoder is a setting of its switches.

Shapes: B videos, C H W image, T frames, L tokens (t-major, then row, then column), D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vjepa_wm.errors import SettingError
from vjepa_wm.nn.blocks import NORM_EPS, Block, init_transformer
from vjepa_wm.nn.positions import Grid, resize_table, sincos_table
from vjepa_wm.nn.rope import Rope, RopeStyle, token_rope


class PatchEmbed(nn.Module):
    """Cut a video into tubelets of frames by square patches, and embed each."""

    def __init__(self, *, patch_size: int, tubelet_size: int, dim: int) -> None:
        super().__init__()
        self.kernel = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(3, dim, kernel_size=self.kernel, stride=self.kernel)

    def forward(self, video: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to tokens (B, L, D)."""
        t, h, w = self.kernel
        x = video.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)  # (B, L, C * t * h * w)
        # A strided convolution over disjoint patches is one matrix product; on a CPU that is faster
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class VideoViT(nn.Module):
    """Vision transformer over video tubelets; its switches make it any published V-JEPA encoder.

    Pre-norm, exact GELU, no class token, a final layer norm (V-JEPA 2, arXiv 2506.09985, section 2
    and appendix A). Parameter names are those of the published checkpoints. The defaults are what
    is trained here; `vjepa_wm.encoders.families` lists the published settings.

    Args:
        patch_size: side of a patch in pixels.
        tubelet_size: frames per token.
        embed_dim: width D.
        depth: number of blocks.
        num_heads: attention heads per block.
        mlp_ratio: hidden width of the MLP as a multiple of D.
        rope_style: see `vjepa_wm.nn.rope`; without effect where `sincos_grid` is given.
        sincos_grid: tokens along (time, rows, columns) of a fixed table that is added to the tokens
            instead of rotary positions (V-JEPA 1); other inputs get it resized.
        image_path: whether single images have a patch embedding of their own, and images and videos
            are marked by a learned vector (V-JEPA 2.1).
        taps: blocks, counted from 0 and ending with the last, that have a norm each, in place of
            the final norm (V-JEPA 2.1).

    Attributes:
        recomputes: whether training keeps only what goes into each block and computes the rest
            again on the way back: less memory, more time.

    Raises:
        SettingError: the taps do not ascend to the last block.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        tubelet_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        rope_style: RopeStyle = "interleaved",
        sincos_grid: Sequence[int] | None = None,
        image_path: bool = False,
        taps: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size
        self.embed_dim = embed_dim
        self.head_dim = embed_dim // num_heads
        self.rope_style: RopeStyle = rope_style
        self.sincos_grid: Grid | None = None if sincos_grid is None else tuple(sincos_grid)
        self.image_path = image_path
        self.taps = tuple(taps)
        self.recomputes = False
        if taps and (sorted(set(taps)) != list(taps) or taps[0] < 0 or taps[-1] != depth - 1):
            raise SettingError(
                f"taps must ascend from 0 or more to the last block, {depth - 1}; got {list(taps)}"
            )
        self.patch_embed = PatchEmbed(
            patch_size=patch_size, tubelet_size=tubelet_size, dim=embed_dim
        )
        if image_path:
            self.patch_embed_img = PatchEmbed(patch_size=patch_size, tubelet_size=1, dim=embed_dim)
            self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, embed_dim))
            self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, embed_dim))
        if self.sincos_grid is not None:
            self.register_buffer("pos_embed", sincos_table(self.sincos_grid, dim=embed_dim))
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        if taps:
            self.norms_block = nn.ModuleList(nn.LayerNorm(embed_dim, eps=NORM_EPS) for _ in taps)
        else:
            self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        init_transformer(self, self.blocks)

    def grid(self, video_shape: torch.Size) -> Grid:
        """Number of tokens along time, rows and columns of a video (B, C, T, H, W).

        Raises:
            SettingError: the video has another number of axes, or cannot be cut into whole
                tubelets.
        """
        if len(video_shape) != 5:
            raise SettingError(
                f"video must be (B, C, T, H, W), got {tuple(video_shape)}; an image is a video of "
                "one frame"
            )
        sizes, kernel = tuple(video_shape[2:]), self._patch_embed(video_shape).kernel
        if any(size % step for size, step in zip(sizes, kernel, strict=True)):
            raise SettingError(
                f"video of (frames, height, width) = {sizes} cannot be cut into tubelets of "
                f"{kernel}: each size must be a multiple"
            )
        return sizes[0] // kernel[0], sizes[1] // kernel[1], sizes[2] // kernel[2]

    def forward(
        self, video: Tensor, token_ids: Tensor | None = None, *, hierarchical: bool = False
    ) -> Tensor:
        """Encode a normalised video, or an image as a video of one frame.

        Args:
            video: float (B, C, T, H, W).
            token_ids: (B, L) ids of the tokens to keep; the others are never computed. Kept tokens
                keep their true positions. None keeps all.
            hierarchical: return the outputs of all taps, each normed, side by side on channels. In
                the distilled V-JEPA 2.1 (B and L) only the last tap was trained.

        Returns:
            Tokens (B, L, D) after the final norm; (B, L, taps * D) if hierarchical.

        Raises:
            SettingError: the video has a wrong size, or there are no taps to return.
        """
        if hierarchical and not self.taps:
            raise SettingError("hierarchical output needs a network with taps, as V-JEPA 2.1 has")
        grid = self.grid(video.shape)
        x = self._embed(video, grid)
        if token_ids is None:
            ids = torch.arange(grid[0] * grid[1] * grid[2], device=video.device)
        else:
            ids = token_ids
            x = gather_tokens(x, token_ids)
        rope = self._rope(ids, grid)
        outputs = []
        for index, block in enumerate(self.blocks):
            x = self._run(block, x, rope)
            if hierarchical and index in self.taps:
                outputs.append(self.norms_block[len(outputs)](x))
        if hierarchical:
            return torch.cat(outputs, dim=-1)
        return self.norms_block[-1](x) if self.taps else self.norm(x)

    def _run(self, block: Block, x: Tensor, rope: Rope | None) -> Tensor:
        if self.recomputes and torch.is_grad_enabled():
            return checkpoint(block, x, rope, use_reentrant=False)
        return block(x, rope)

    def _patch_embed(self, video_shape: torch.Size) -> PatchEmbed:
        is_image = self.image_path and video_shape[2] == 1
        return self.patch_embed_img if is_image else self.patch_embed

    def _embed(self, video: Tensor, grid: Grid) -> Tensor:
        """Embed the patches and add what does not depend on them; (B, L, D)."""
        x = self._patch_embed(video.shape)(video)
        if self.image_path:
            x = x + (self.img_mod_embed if video.shape[2] == 1 else self.video_mod_embed)
        if self.sincos_grid is not None:
            x = x + resize_table(self.pos_embed, grid=self.sincos_grid, to=grid)
        return x

    def _rope(self, ids: Tensor, grid: Grid) -> Rope | None:
        if self.sincos_grid is not None:
            return None
        return token_rope(
            ids, rows=grid[1], columns=grid[2], head_dim=self.head_dim, style=self.rope_style
        )


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Pick tokens (B, L, D) by ids (B, K), giving (B, K, D)."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
