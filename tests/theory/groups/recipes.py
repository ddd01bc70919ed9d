"""Every recipe with the options that change its mean update."""

from agents.recipes.learners import build_learner

RECIPES = {
    "reinforce": ("reinforce", {}),
    "reinforce, to go": ("reinforce", {"to_go": True}),
    "reinforce, baseline": ("reinforce", {"baseline": True}),
    "reinforce, baseline, to go": ("reinforce", {"baseline": True, "to_go": True}),
    "rloo": ("rloo", {}),
    "dr_grpo": ("dr_grpo", {}),
    "grpo": ("grpo", {}),
    "grpo, sample std": ("grpo", {"std": "sample", "length": "row sum"}),
    "grpo, eps, token mean": ("grpo", {"eps": 0.1, "length": "token mean"}),
    "maxrl": ("maxrl", {"length": "token mean"}),
    "dapo": ("dapo", {}),
    "dapo without truncated rows": ("dapo", {"drop_truncated": True}),
    "dapo without truncated rows, their tokens counted": ("dapo", {"drop_truncated": True, "count_dropped": True}),
    "rloo of the rows that ended": ("rloo", {"drop_truncated": True, "compare_dropped": False}),
    "grpo of the rows that ended": ("grpo", {"drop_truncated": True, "compare_dropped": False}),
    "reinforce_pp": ("reinforce_pp", {}),
    "reinforce_pp, baseline": ("reinforce_pp", {"baseline": True}),
    "gspo": ("gspo", {}),
    "cispo": ("cispo", {}),
    "pkpo": ("pkpo", {"k": 1, "baseline": "loo"}),
    "pass_k_training": ("pass_k_training", {"k": 1, "length": "group token mean"}),
    "value_gradient": ("value_gradient", {}),
}


def build(name):
    kind, options = RECIPES[name]
    return build_learner(kind, **options)
