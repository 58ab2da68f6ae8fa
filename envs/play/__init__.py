"""Clips of random MuJoCo scenes to watch, with what truly happens in them: `vjepa_wm/Play-v0`."""
