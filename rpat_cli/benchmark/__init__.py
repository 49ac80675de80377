"""`rpat bench`: how fast this machine trains a recipe and evaluates a model.

Contestants take turns in one process (`race`). Of a training (`training`) these are the published
code's order of work (`published`), ours, exact and fast, and the bare passes of the network
(`floor`); of the data path ours and images opened one by one (`pipeline`); of an evaluation
(`evaluation`) AutoAttack as its library runs it, ours, and ours fast.
"""
