"""From a recipe or a target to what is on disk: training, evaluation, diagnosis, comparison."""
