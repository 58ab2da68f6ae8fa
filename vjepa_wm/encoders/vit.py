"""The one video ViT of the toolkit; every V-JEPA encoder is a setting of its switches.

Shapes: B videos, C H W image, T frames, L tokens (t-major, then row, then column), D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm.errors import SettingError
from vjepa_wm.nn.blocks import NORM_EPS, Block, init_transformer
from vjepa_wm.nn.rope import RopeStyle, grid_positions, rope_3d


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
    """Vision transformer over video tubelets with 3-axis rotary positions.

    Pre-norm, exact GELU, no class token, a final layer norm (V-JEPA 2, arXiv 2506.09985, section 2
    and appendix A). Parameter names are those of the published checkpoints.

    Args:
        patch_size: side of a patch in pixels.
        tubelet_size: frames per token.
        embed_dim: width D.
        depth: number of blocks.
        num_heads: attention heads per block.
        mlp_ratio: hidden width of the MLP as a multiple of D.
        rope_style: see `vjepa_wm.nn.rope.rope_3d`.
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
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size
        self.embed_dim = embed_dim
        self.head_dim = embed_dim // num_heads
        self.rope_style: RopeStyle = rope_style
        self.patch_embed = PatchEmbed(
            patch_size=patch_size, tubelet_size=tubelet_size, dim=embed_dim
        )
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        init_transformer(self, self.blocks)

    def grid(self, video_shape: torch.Size) -> tuple[int, int, int]:
        """Number of tokens along time, rows and columns of a video (B, C, T, H, W).

        Raises:
            SettingError: the video cannot be cut into whole tubelets.
        """
        _, _, frames, height, width = video_shape
        kernel = self.patch_embed.kernel
        if any(size % step for size, step in zip((frames, height, width), kernel, strict=True)):
            raise SettingError(
                f"video of (frames, height, width) = {(frames, height, width)} cannot be cut into "
                f"tubelets of {kernel}: each size must be a multiple"
            )
        return frames // kernel[0], height // kernel[1], width // kernel[2]

    def forward(self, video: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """Encode a normalised video.

        Args:
            video: float (B, C, T, H, W).
            token_ids: (B, L) ids of the tokens to keep; the others are never computed. Kept tokens
                keep their true positions. None keeps all.

        Returns:
            Tokens (B, L, D) after the final norm.
        """
        frames, rows, columns = self.grid(video.shape)
        x = self.patch_embed(video)
        if token_ids is None:
            ids = torch.arange(frames * rows * columns, device=video.device)
        else:
            ids = token_ids
            x = gather_tokens(x, token_ids)
        positions = grid_positions(ids, rows=rows, columns=columns)
        rope = rope_3d(positions, head_dim=self.head_dim, style=self.rope_style)
        for block in self.blocks:
            x = block(x, rope)
        return self.norm(x)


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Pick tokens (B, L, D) by ids (B, K), giving (B, K, D)."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
