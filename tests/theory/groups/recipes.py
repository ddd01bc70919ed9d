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
    "dapo": ("dapo", {}),
    "dapo without truncated rows": ("dapo", {"drop_truncated": True}),
    "gspo": ("gspo", {}),
    "cispo": ("cispo", {}),
    "value_gradient": ("value_gradient", {}),
}


def build(name):
    kind, options = RECIPES[name]
    return build_learner(kind, **options)
