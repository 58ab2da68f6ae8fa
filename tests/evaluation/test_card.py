"""Model cards say the figures of the files they are made from."""

from vjepa_wm.evaluation.card import encoder_card, world_model_card

ROW = {"agent": "mpc", "success": 0.95, "interval": [0.764, 0.991], "episodes": 20}
WORLD_MODEL = {
    "name": "push",
    "env_id": "envs:vjepa_wm/Push-v0",
    "encoder": {"name": "compact"},
    "data": {"data/push": "digest"},
    "predictor": {"width": 192},
    "config": {"trainer": {"minutes": 15.0, "batch_size": 48}, "metric_trainer": {"minutes": 2.0}},
    "figures": {
        "predictor": {
            "step": 500,
            **{f"h{k}_{name}": k * 0.1 for k in (1, 2) for name in ("true", "shuffled", "copy")},
        }
    },
}


def test_world_model_card_has_a_row_per_agent_and_horizon() -> None:
    planner = {"_target_": "planners.ICEM", "horizon": 6, "num_samples": 16, "momentum": 0.1}
    said = {"config": {"planner": planner}}
    summaries = [{"level": "near", "rows": [ROW]}, {"level": "far", "rows": [ROW, ROW]}]
    summaries = [said | summary for summary in summaries]
    card = world_model_card(WORLD_MODEL, summaries)
    assert card.startswith("# push: world model for envs:vjepa_wm/Push-v0\n")
    assert card.count("| near | mpc | 95 | 76-99 | 20 |") == 1
    assert card.count("| far | mpc | 95 | 76-99 | 20 |") == 2
    assert "| 2 | 0.200 | 0.200 | 0.200 |" in card
    assert "| 3 |" not in card
    assert "`mpc` plans with ICEM horizon 6 num_samples 16." in card
    assert "15 minutes" in card and "data/push" in card


def test_encoder_card_has_its_monitors() -> None:
    config = {
        "name": "compact",
        "vit": {"embed_dim": 192, "depth": 6, "patch_size": 8, "tubelet_size": 2},
        "image_size": 64,
        "data": {"data/push": "digest", "data/reacher": "digest"},
        "config": {
            "trainer": {"batch_size": 24},
            "num_frames": 4,
            "objective": {
                "terms": {
                    "variance_covariance": {"variance_weight": 0.0, "covariance_weight": 0.0},
                    "sigreg": {"_target_": "SIGReg", "weight": 0.1, "num_slices": 256},
                }
            },
        },
        "figures": {
            "step": 650,
            "frame_std": 0.5,
            "effective_rank": 41.2,
            "time_rank_correlation": 0.87,
        },
    }
    card = encoder_card(config)
    against = "against collapse: sigreg (weight 0.1, num_slices 256);"
    for said in ("192 wide, 6 deep", "data/push, data/reacher", against, "rank 41 of 192", "0.87"):
        assert said in card.replace("\n  ", " ")
    assert "variance" not in card


def test_a_training_of_so_many_steps_is_said_in_steps() -> None:
    budget = {"minutes": None, "steps": 700, "batch_size": 48}
    config = WORLD_MODEL | {"config": {"trainer": budget, "metric_trainer": budget}}
    planner = {"_target_": "planners.ICEM", "horizon": 6}
    card = world_model_card(
        config, [{"level": "near", "rows": [ROW], "config": {"planner": planner}}]
    )
    assert "700 steps for the predictor" in card and "at most 700 steps for the metric" in card
