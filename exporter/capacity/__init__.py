"""What a host can give against what its deployments need: observation, assessment, conditions."""
