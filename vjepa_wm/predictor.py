"""The action-conditioned predictor we train, and loading of predictors by name.

Shapes: B trajectories, T model steps, P tokens per frame, D latent width, A action width, Q proprio
width, W width of the predictor.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm.action_units import HalfRanges, on_device
from vjepa_wm.checkpoint import Checkpoint, load_checkpoint
from vjepa_wm.encoders.frozen import layer_norm
from vjepa_wm.encoders.registry import shipped_folder
from vjepa_wm.errors import CheckpointError, SettingError, UnknownNameError
from vjepa_wm.frame_predictor import Cache, FramePredictor, frame_mask
from vjepa_wm.nn.blocks import NORM_EPS, Attention, Mlp, init_transformer
from vjepa_wm.nn.rope import Rope, as_rotation, grid_positions, rope_3d
from vjepa_wm.precision import resolve_dtype
from vjepa_wm.vjepa2_ac import PREDICTORS, published_path, read_predictor

SHIPPED = ("reacher", "two_rooms", "push", "push_t")  # world models inside the package
MODULATIONS = 6  # shift, scale and gate of attention, then of the MLP


class ModulatedBlock(nn.Module):
    """Pre-norm block whose shift, scale and gate are set per frame by the action (AdaLN).

    The gates are one plus a learned term that starts at zero, so the block works from the first
    step and conditioning grows (after DiT, arXiv 2212.09748, whose gates start closed). Where there
    is nothing to condition on, they are the same for every frame.
    """

    def __init__(
        self, dim: int, num_heads: int, *, mlp_ratio: float, is_conditioned: bool = True
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS, elementwise_affine=False)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS, elementwise_affine=False)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        rows = MODULATIONS * dim
        self.modulation = nn.Linear(dim, rows) if is_conditioned else _Constant(rows)
        neutral = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])  # scales and gates start at one
        self.register_buffer("neutral", neutral.unsqueeze(1), persistent=False)

    def modulate(self, condition: Tensor) -> Tensor:
        """Turn conditions (B, T, 1, W) into the six rows `forward` takes, (B, T, 6, W)."""
        rows = self.modulation(condition).unflatten(-1, (MODULATIONS, -1)).squeeze(2)
        return rows + self.neutral.to(rows.dtype)

    def forward(
        self,
        x: Tensor,
        modulations: Tensor,
        rope: Rope | Tensor,
        *,
        mask: Tensor | None = None,
        cache: Cache = None,
    ) -> Tensor:
        """Map frames (B, T, P, W) to (B, T, P, W) under their modulations (B, T, 6, W)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulations.unsqueeze(3).unbind(2)
        h = _modulated(self.norm1, x, shift1, scale1).flatten(1, 2)  # (B, T * P, W)
        h = self.attn(h, rope, mask=mask, cache=cache).unflatten(1, x.shape[1:3])
        x = torch.addcmul(x, gate1, h)
        h = _modulated(self.norm2, x, shift2, scale2)
        return torch.addcmul(x, gate2, self.mlp(h))


class _Constant(nn.Module):
    """A linear map of a condition that is always zero: its bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, condition: Tensor) -> Tensor:
        """Map (..., W) to (..., dim)."""
        return self.bias.expand(*condition.shape[:-1], -1)


def _modulated(norm: nn.LayerNorm, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise tokens (B, T, P, W), then scale and shift them per frame (B, T, 1, W)."""
    # With a weight and a bias PyTorch's CPU kernel is vectorised, without them it is not
    weight, bias = x.new_ones(x.shape[-1]), x.new_zeros(x.shape[-1])
    normed = F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
    return torch.addcmul(shift, normed, scale)


class ActionPredictor(FramePredictor):
    """Block-causal transformer over frames, conditioned on actions and proprio by AdaLN.

    Frame t is modulated by the action taken at t and the proprio sensed at t, and its output is the
    prediction of frame t + 1: the input plus a learned change. The layout follows V-JEPA 2-AC
    (arXiv 2506.09985, section 3.1), with AdaLN in place of its action and state tokens.

    Args:
        latent_dim: width D of latents.
        grid: rows and columns of the tokens of a frame; P is their product.
        action_dim: width A of actions; 0 foresees without any, as of a video.
        width: width W of the predictor.
        depth: number of blocks.
        num_heads: attention heads per block.
        max_frames: longest sequence of input frames it is trained on; more raises.
        mlp_ratio: hidden width of the MLP as a multiple of W.
        proprio_mean: of each of the Q entries over the trajectories, where it takes proprio.
        proprio_std: their standard deviations.
        action_low: smallest value of each of the A entries, and
        action_high: largest: it reads actions in shares of half their range. None reads them as
            they are.
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
        proprio_mean: Sequence[float] | None = None,
        proprio_std: Sequence[float] | None = None,
        action_low: Sequence[float] | None = None,
        action_high: Sequence[float] | None = None,
    ) -> None:
        if width % num_heads:
            raise SettingError(f"width {width} must be a multiple of num_heads {num_heads}")
        super().__init__(
            latent_dim=latent_dim,
            grid=grid,
            action_dim=action_dim,
            proprio_dim=None if proprio_mean is None else len(proprio_mean),
            num_conditions=0,
            width=width,
            max_frames=max_frames,
        )
        self.latent_embed = nn.Linear(latent_dim, width)
        self.position_embed = nn.Parameter(torch.zeros(self.num_patches, width))
        self.action_units = HalfRanges(action_low, action_high)
        self.action_embed = _condition_mlp(action_dim, width) if action_dim else None
        self.proprio_embed = None
        if proprio_mean is not None:
            self.proprio_embed = _condition_mlp(self.proprio_dim, width)
            # No buffers: a cast of the predictor to bfloat16 must not round them
            self.proprio_mean = torch.tensor(proprio_mean, dtype=torch.float32)
            self.proprio_std = torch.tensor(proprio_std, dtype=torch.float32)
        is_conditioned = bool(action_dim) or proprio_mean is not None
        self.blocks = nn.ModuleList(
            ModulatedBlock(width, num_heads, mlp_ratio=mlp_ratio, is_conditioned=is_conditioned)
            for _ in range(depth)
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
        if self.action_embed is not None:
            nn.init.xavier_uniform_(self.action_embed[0].weight)
            nn.init.xavier_uniform_(self.action_embed[2].weight)
        if self.proprio_embed is not None:  # a predictor trained without can go on with it
            nn.init.xavier_uniform_(self.proprio_embed[0].weight)
            nn.init.zeros_(self.proprio_embed[2].weight)
        for block in self.blocks:
            if isinstance(block.modulation, nn.Linear):
                nn.init.zeros_(block.modulation.weight)
        nn.init.zeros_(self.head.weight)  # starts as copy-last-frame, the floor it has to beat

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The blocks, first to last."""
        return self.blocks

    def _condition(self, actions: Tensor, proprio: Tensor | None) -> Tensor:
        """Return the embedding of each frame's action and proprio, then each block's rows."""
        dtype = self.head.weight.dtype
        if self.action_embed is not None:
            shares = self.action_units(actions).to(dtype)
            condition = self.action_embed(shares).unsqueeze(2)  # (B, T, 1, W)
        else:
            condition = actions.new_zeros(*actions.shape[:2], 1, self.width, dtype=dtype)
        if proprio is not None:
            units = self.proprio_mean, self.proprio_std
            self.proprio_mean, self.proprio_std = on_device(units, proprio.device)
            scaled = (proprio.float() - self.proprio_mean) / self.proprio_std
            condition = condition + self.proprio_embed(scaled.to(dtype)).unsqueeze(2)
        rows = [condition, *(block.modulate(condition) for block in self.blocks)]
        return torch.cat(rows, dim=2)  # (B, T, 1 + 6 * depth, W)

    def _embed(self, latents: Tensor, condition: Tensor) -> Tensor:
        embedded = self.latent_embed(latents.to(self.head.weight.dtype))
        return embedded + self.position_embed + condition[:, :, :1]

    def _through_blocks(
        self, x: Tensor, condition: Tensor, rope: Rope, caches: Sequence[Cache]
    ) -> Tensor:
        mask = frame_mask(x.shape[1], self.num_patches, x.device)
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            rope = as_rotation(rope)
        modulations = condition[:, :, 1:].split(MODULATIONS, dim=2)  # (B, T, 6, W) each
        for block, rows, cache in zip(self.blocks, modulations, caches, strict=True):
            x = block(x, rows, rope, mask=mask, cache=cache)
        return x

    def _output(self, latents: Tensor, x: Tensor) -> Tensor:
        return layer_norm(latents + self.head(self.norm(x)).float())

    def _rope(self, first: int, end: int) -> Rope:
        part = slice(first * self.num_patches, end * self.num_patches)
        return self.rope_cos[:, :, part], self.rope_sin[:, :, part]


def _condition_mlp(in_dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, width), nn.SiLU(), nn.Linear(width, width))


def load_predictor(
    name_or_path: str | Path,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
) -> FramePredictor:
    """Load an action-conditioned predictor alone, in evaluation mode, its parameters trainable.

    What is known to be wrong with the published weights is in `docs/vjepa2_ac.md`; read it before
    trusting their plans.

    Args:
        name_or_path: `vjepa2_ac_vitg` (Meta's release) or `vjepa2_ac_droid` (JEPA-WMs' retrained
            one, without states); a world model shipped with the package; or a folder written by
            `python -m vjepa_wm.train_ac`.
        checkpoint: file or folder to take the weights from instead. Without one, a published
            predictor is looked for in the cache folder and downloaded if need be.
        device: where it runs.
        dtype: `auto` (bfloat16 where the machine has it), `bf16` or `fp32`.

    Raises:
        UnknownNameError: there is no such predictor; the nearest names are given.
        CheckpointError: the file is not to be had, incomplete, damaged or of something else; every
            tensor that does not fit is listed.
    """
    resolved = resolve_dtype(dtype, device)
    if name_or_path in PREDICTORS:
        path = published_path(str(name_or_path), checkpoint)
        return read_predictor(str(name_or_path), path, device=device, dtype=resolved)
    return build_predictor(open_world_model(name_or_path, checkpoint)).to(device, resolved).eval()


def open_world_model(name_or_path: str | Path, checkpoint: str | Path | None) -> Checkpoint:
    """Read the checkpoint of a world model: shipped, or trained here.

    Raises:
        UnknownNameError: there is no such model; the nearest names are given.
        CheckpointError: the folder is incomplete, damaged or holds something else.
    """
    is_shipped = name_or_path in SHIPPED
    if not is_shipped and not Path(name_or_path).is_dir():
        if len(Path(name_or_path).parts) > 1:
            raise CheckpointError(f"no folder {name_or_path}: train_ac writes one when it is done")
        raise UnknownNameError("world model", str(name_or_path), (*SHIPPED, *PREDICTORS))
    if checkpoint is None:
        checkpoint = shipped_folder(str(name_or_path)) if is_shipped else name_or_path
    loaded = load_checkpoint(checkpoint)
    if loaded.config["kind"] != "world_model":
        raise CheckpointError(
            f"{loaded.folder} holds a {loaded.config['kind']}, wanted a world_model"
        )
    return loaded


def build_predictor(loaded: Checkpoint) -> ActionPredictor:
    """Make the predictor of a world model that was trained here, with its weights."""
    predictor = ActionPredictor(**loaded.config["predictor"])
    loaded.load_into(predictor, "predictor")
    return predictor
