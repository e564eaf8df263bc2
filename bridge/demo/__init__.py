"""The main job, run for real on one machine: an authority and two hospitals as separate processes on loopback."""
