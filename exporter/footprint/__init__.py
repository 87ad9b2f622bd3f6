"""Expected memory of a deployment: what its engine will hold on each device and in RAM."""
