"""How robust a model is: suites of attacks, what they did to every sample, and the statistics of
it."""
