"""One module per message family: which segments make which resources, and how they refer to each other."""
