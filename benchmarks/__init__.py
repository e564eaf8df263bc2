"""What `make bench` runs: our rates beside named peers and physical limits, measured in one run."""
