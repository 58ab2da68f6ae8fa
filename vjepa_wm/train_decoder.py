"""Train a decoder from latents to pixels, for looking: python -m vjepa_wm.train_decoder env=push.

Collects trajectories if there are none, encodes them once and trains the decoder on single frames.
The smallest run: python -m vjepa_wm.train_decoder episodes=20 pixel_decoder=tiny trainer.steps=10
"""

from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from vjepa_wm.checkpoint import save_checkpoint
from vjepa_wm.cli import progress, verb
from vjepa_wm.data.latents import LatentCache, LatentWindows
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.decoder import KIND, Decoder, picture_errors, seen
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.recorded import record_encoder
from vjepa_wm.errors import SettingError
from vjepa_wm.evaluation.charts import below, beside, picture
from vjepa_wm.files import atomic_path
from vjepa_wm.provenance import provenance
from vjepa_wm.training.inputs import (
    inputs_of,
    keep_inputs,
    open_latents,
    open_or_collect,
    split_windows,
)
from vjepa_wm.training.trainer import Logs, Trainer

COUNTS = ("mean_frames", "validation_frames", "shown_frames")
PICTURE = "pictures.png"


@verb("train_decoder")
def main(cfg: DictConfig) -> None:
    """Train a decoder that draws what latents hold; a run that was stopped continues.

    Example: python -m vjepa_wm.train_decoder env=push
    """
    for name in COUNTS:
        if cfg[name] < 1:
            raise SettingError(f"{name}: wanted at least 1, got {cfg[name]}")
    trajectories = open_or_collect(cfg.data, cfg.env, episodes=cfg.episodes, progress=progress)
    encoder: FrozenEncoder = instantiate(cfg.encoder, device=cfg.device)
    settings = decoder_settings(cfg, encoder, trajectories)
    trainer: Trainer = instantiate(cfg.trainer)
    torch.manual_seed(trainer.seed)
    decoder = Decoder(**settings).to(cfg.device)
    chosen = {"drawn_at": decoder.image_size, "trainer.seed": trainer.seed}
    keep_inputs(cfg.out, inputs_of(trajectories, encoder) | chosen, unwritten={})
    cache = open_latents(
        trajectories, encoder, root=cfg.cache, device=cfg.device, progress=progress
    )
    frames = FramePairs(cache, encoder, image_size=decoder.image_size, device=cfg.device)
    figures = train(cfg, trainer, decoder, frames)
    save(cfg, decoder, encoder, trajectories, settings, figures)
    with atomic_path(Path(cfg.out) / PICTURE) as path:
        show(decoder, *frames.draw(frames.held_out, shown_rng(), cfg.shown_frames)).save(path)
    report(Path(cfg.out), decoder, figures)


class FramePairs:
    """Frames as an encoder sees them beside their latents.

    Args:
        cache: latents and trajectories.
        encoder: what they were encoded with.
        image_size: side S of the squares.
        device: where they are wanted.

    Attributes:
        training: single frames of the training episodes.
        held_out: single frames of the others.
    """

    def __init__(
        self, cache: LatentCache, encoder: FrozenEncoder, *, image_size: int, device: str
    ) -> None:
        self.cache = cache
        self.encoder = encoder
        self.image_size = image_size
        self.device = device
        self.training, self.held_out = split_windows(cache, num_frames=1)

    def draw(
        self, windows: LatentWindows, rng: np.random.Generator, count: int
    ) -> tuple[Tensor, Tensor]:
        """Draw latents (F, P, D) float32 and pixels uint8 (F, S, S, 3)."""
        batch = windows.sample(rng, count)
        pixels = torch.from_numpy(self.cache.trajectories.pixels.gather(batch.frames))
        squares = seen(self.encoder, pixels.squeeze(1), self.image_size)
        return batch.latents.squeeze(1).to(self.device).float(), squares.to(self.device)


def decoder_settings(
    cfg: DictConfig, encoder: FrozenEncoder, trajectories: Trajectories
) -> dict[str, object]:
    """Everything that makes the decoder again, as the checkpoint records it."""
    num_patches, latent_dim = encoder.latent_shape
    image_size, side = cfg.image_size, encoder.grid[0]
    if image_size is None:
        image_size = -(-min(trajectories.meta.image_size) // side) * side
    return {
        "latent_dim": latent_dim,
        "num_patches": num_patches,
        "image_size": image_size,
        # No group "decoder": Hydra would take decoder=FOLDER of other verbs for one of its options
        **cfg.pixel_decoder,
    }


def train(cfg: DictConfig, trainer: Trainer, decoder: Decoder, frames: FramePairs) -> Logs:
    """Train on single frames; returns the figures of the state kept, beside the mean picture's."""
    _, pictures = frames.draw(frames.training, np.random.default_rng(1), cfg.mean_frames)
    decoder.start_from(pictures)
    latents, truth = frames.draw(frames.held_out, np.random.default_rng(0), cfg.validation_frames)
    floor = picture_errors(decoder, decoder.mean_picture, truth)
    of_mean = {f"mean_picture_{name}": float(error) for name, error in floor.items()}

    def loss(rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        del share  # the objective does not change over the run
        return decoder.loss(*frames.draw(frames.training, rng, trainer.batch_size))

    def validate() -> Logs:
        return held_out_figures(decoder, latents, truth, rows=trainer.batch_size) | of_mean

    return trainer.fit(
        decoder, loss, folder=Path(cfg.out), validate=validate, select="held_out_loss"
    )


def held_out_figures(decoder: Decoder, latents: Tensor, truth: Tensor, *, rows: int) -> Logs:
    """Loss and errors on frames, so many at a time."""
    sums: Logs = {}
    for part, pictures in zip(latents.split(rows), truth.split(rows), strict=True):
        value, errors = decoder.loss(part, pictures)
        for name, error in {"loss": value, **errors}.items():
            found = float(error) * len(part) / len(latents)
            key = f"held_out_{name}"
            sums[key] = sums[key] + found if key in sums else found
    return sums


def save(
    cfg: DictConfig,
    decoder: Decoder,
    encoder: FrozenEncoder,
    trajectories: Trajectories,
    settings: dict[str, object],
    figures: Logs,
) -> None:
    """Write the decoder with everything needed to load and to judge it."""
    config = {
        "kind": KIND,
        "name": cfg.env.name,
        "env_id": trajectories.meta.env_id,
        KIND: settings,
        "encoder": record_encoder(encoder, cfg.encoder),
        "figures": figures,
        "data": {str(trajectories.folder): trajectories.digest},
        "config": OmegaConf.to_container(cfg, resolve=True),
        **provenance(),
    }
    save_checkpoint(Path(cfg.out), {KIND: decoder}, config)


def shown_rng() -> np.random.Generator:
    """Draws the held-out frames that are shown."""
    return np.random.default_rng(2)


def show(decoder: Decoder, latents: Tensor, pixels: Tensor) -> Image.Image:
    """Draw frames above what is decoded of their latents (F, P, D)."""
    rows: dict[str, NDArray[np.uint8]] = {
        "true": pixels.cpu().numpy(),
        "decoded": decoder.decode(latents).cpu().numpy(),
    }
    return below([beside([picture(frame, name) for frame in row]) for name, row in rows.items()])


def report(out: Path, decoder: Decoder, figures: Logs) -> None:
    """Say how well it draws, and where everything is."""
    count = sum(parameter.numel() for parameter in decoder.parameters())
    print(f"\ndecoder of {count / 1e6:.2f} M parameters, held-out frames, L1 in % of the brightest")
    print(f"{'':<28} {'decoded':>8} {'mean picture':>13}")
    for name, title in (("error", "all pixels"), ("rare_error", "what differs from the mean")):
        decoded, mean = (100 * figures[f"{kind}_{name}"] for kind in ("held_out", "mean_picture"))
        print(f"{title:<28} {decoded:8.2f} {mean:13.2f}")
    print(f"decoder: {out}   what it draws: {out / PICTURE}   curve: {out}/metrics.jsonl")


if __name__ == "__main__":
    main()
