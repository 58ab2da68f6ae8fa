"""What every action-conditioned predictor does: predict the next frame, in parallel or cached.

Shapes: B trajectories, T model steps, P patch tokens and S tokens in all per frame, D latent width,
A action width, Q proprio width, W width of the predictor, K rows of what conditions a frame.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vjepa_wm.errors import SettingError
from vjepa_wm.nn.kv_cache import KVCache, Past
from vjepa_wm.nn.rope import Rope


class FramePredictor(nn.Module, ABC):
    """Block-causal over frames: tokens of frame t see all tokens of frames <= t.

    The output at t is the prediction of frame t + 1, layer-normed as latents are. A subclass says
    what actions (and proprio) become, how a frame becomes tokens, how its blocks run, and what
    comes out; that `forward`, `observe` and `step` agree is settled here, once.

    Args:
        latent_dim: width D of latents.
        grid: rows and columns of the patch tokens of a frame; P is their product.
        action_dim: width A of actions.
        proprio_dim: width Q of the proprio it takes with every frame; None takes none.
        num_conditions: tokens a frame has besides its patches; S = num_conditions + P.
        width: width W of the predictor.
        max_frames: longest sequence of input frames it is trained on; more raises.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        grid: tuple[int, int],
        action_dim: int,
        proprio_dim: int | None,
        num_conditions: int,
        width: int,
        max_frames: int,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.grid = tuple(grid)
        self.num_patches = grid[0] * grid[1]
        self.tokens_per_frame = num_conditions + self.num_patches
        self.action_dim = action_dim
        self.proprio_dim = proprio_dim
        self.width = width
        self.max_frames = max_frames

    @property
    @abstractmethod
    def layers(self) -> Sequence[nn.Module]:
        """The blocks, first to last."""

    @abstractmethod
    def _condition(self, actions: Tensor, proprio: Tensor | None) -> Tensor:
        """Turn actions (B, T, A) and proprio into what conditions each frame, (B, T, K, W)."""

    @abstractmethod
    def _embed(self, latents: Tensor, condition: Tensor) -> Tensor:
        """Turn frames under their conditions into tokens (B, T, S, W)."""

    @abstractmethod
    def _rope(self, first: int, end: int) -> Rope:
        """Rotary table of the tokens of frames `first` up to, not including, `end`."""

    @abstractmethod
    def _through_blocks(
        self, x: Tensor, condition: Tensor, rope: Rope, caches: Sequence["Cache"]
    ) -> Tensor:
        """Run tokens (B, T, S, W) through every block, each with its cache."""

    @abstractmethod
    def _output(self, latents: Tensor, x: Tensor) -> Tensor:
        """Turn what the blocks made of the tokens (B, T, S, W) into latents (B, T, P, D)."""

    def forward(self, latents: Tensor, actions: Tensor, proprio: Tensor | None = None) -> Tensor:
        """Predict every next frame in parallel.

        Args:
            latents: (B, T, P, D).
            actions: (B, T, A), the action taken at each of these frames.
            proprio: (B, T, Q) at these frames, where the predictor takes it.

        Returns:
            (B, T, P, D); the output at t predicts frame t + 1.

        Raises:
            SettingError: more frames than trained on, shapes that disagree, or proprio missing
                or given to a predictor without.
        """
        self._check(latents, actions)
        condition = self.condition(actions, proprio)
        x = self._embed(latents, condition)
        rope = self._rope(0, latents.shape[1])
        x = self._through_blocks(x, condition, rope, [None] * len(self.layers))
        return self._output(latents, x)

    def observe(self, latents: Tensor, actions: Tensor, proprio: Tensor | None = None) -> Past:
        """Compute the keys and values of the observed past, once per problem.

        Args:
            latents: (B, C, P, D) past frames; C may be 0, and then nothing is computed.
            actions: (B, C, A) the actions taken at them.
            proprio: (B, C, Q) at them, where the predictor takes it.

        Returns:
            What `step` attends to beside its own frames, for any number of candidates.
        """
        self._check(latents, actions)
        if latents.shape[1] == 0:
            return Past((None,) * len(self.layers))
        condition = self.condition(actions, proprio)
        x = self._embed(latents, condition)
        recorders = [_Recorder() for _ in self.layers]
        self._through_blocks(x, condition, self._rope(0, latents.shape[1]), recorders)
        return Past(tuple((recorder.keys, recorder.values) for recorder in recorders))

    def condition(self, actions: Tensor, proprio: Tensor | None = None) -> Tensor:
        """Compute what conditions the frames, which does not depend on what is in them.

        Once for all steps of a rollout, whose actions are known beforehand.

        Args:
            actions: (B, T, A).
            proprio: (B, T, Q), where the predictor takes it.

        Returns:
            (B, T, K, W), for `step` frame by frame; what the K rows are is the predictor's.

        Raises:
            SettingError: shapes that disagree, or proprio missing or given to a predictor without.
        """
        self._check_conditions(actions, proprio)
        return self._condition(actions, proprio)

    def step(self, latents: Tensor, condition: Tensor, caches: list[KVCache]) -> Tensor:
        """Predict one frame further, computing only the newest frame's tokens.

        Args:
            latents: (B, P, D) the newest frame.
            condition: (B, K, W) of it: of the action taken at it, and the proprio.
            caches: keys and values of the frames before; the newest frame's are added.

        Returns:
            (B, P, D), the next frame: what `forward` gives at its last position.
        """
        latents, condition = latents.unsqueeze(1), condition.unsqueeze(1)
        first = caches[0].length // self.tokens_per_frame
        self.check_length(first + 1)
        x = self._embed(latents, condition)
        x = self._through_blocks(x, condition, self._rope(first, first + 1), caches)
        return self._output(latents, x).squeeze(1)

    def compile_layers(self) -> None:
        """Compile what blocks do to tokens one by one, in place; parameters keep their names.

        Attention over a growing cache stays as it is: its shapes are new in every step, and a
        kernel for each would be compiled. What is computed is the same but for rounding.
        """
        for layer in self.layers:
            layer.attn.project = torch.compile(layer.attn.project, dynamic=True)
            layer.mlp.compile(dynamic=True)

    @property
    def bytes_per_frame(self) -> int:
        """Rough memory of one imagined frame: latents, keys and values, and one block's MLP."""
        numbers = 4 * self.latent_dim + (2 * len(self.layers) + 12) * self.width
        return 4 * self.tokens_per_frame * numbers

    def check_length(self, frames: int) -> None:
        """Raise a `SettingError` when these are more frames than it was trained on."""
        if frames > self.max_frames:
            raise SettingError(
                f"{frames} frames were given to a predictor trained on {self.max_frames}: "
                "shorten the context or the planning horizon"
            )

    def _check(self, latents: Tensor, actions: Tensor) -> None:
        self.check_length(latents.shape[1])
        wanted = (*latents.shape[:2], self.action_dim)
        if actions.shape != wanted or latents.shape[2] != self.num_patches:
            raise SettingError(
                f"wanted latents (B, T, {self.num_patches}, D) and actions (B, T, "
                f"{self.action_dim}), got {tuple(latents.shape)} and {tuple(actions.shape)}"
            )

    def _check_conditions(self, actions: Tensor, proprio: Tensor | None) -> None:
        if actions.ndim != 3 or actions.shape[2] != self.action_dim:
            raise SettingError(
                f"wanted actions (B, T, {self.action_dim}), got {tuple(actions.shape)}"
            )
        if self.proprio_dim is None and proprio is None:
            return
        if self.proprio_dim is None:
            raise SettingError("this predictor takes no proprio, got some: leave it out")
        if proprio is None or proprio.shape != (*actions.shape[:2], self.proprio_dim):
            got = "none" if proprio is None else tuple(proprio.shape)
            raise SettingError(
                f"this predictor wants proprio (B, T, {self.proprio_dim}) with its actions "
                f"{tuple(actions.shape)}, got {got}"
            )


class _Recorder:
    """Stands in for a cache while the past is computed, and keeps its keys and values."""

    past = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        # In one piece, as products on a CPU want them: otherwise each chunk of candidates copies
        self.keys, self.values = keys.contiguous(), values.contiguous()
        return self.keys, self.values


Cache = KVCache | _Recorder | None


def frame_mask(frames: int, tokens_per_frame: int, device: torch.device) -> Tensor | None:
    """Block-causal mask (L, L), True where a token may attend; None where all may."""
    if frames <= 1:
        return None
    frame = torch.arange(frames, device=device).repeat_interleave(tokens_per_frame)
    return frame.unsqueeze(1) >= frame.unsqueeze(0)
