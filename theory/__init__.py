"""The answers: exact values, gradients and costates, computed without the agents that they judge.

Three sub-packages: `continuous` (linear-quadratic worlds, and worlds that break one assumption), `tokens` (policies over
tokens: values, costates, the error of the attention costate and its bounds), `groups` (what a critic-free update is on
average). Beside them `impact` (signal and headroom before RL) and `differences` (central differences, the second road).
The statements are in theory/README.md, which the claims cite as "theory page"; its notation table translates the names of the
code.
"""
