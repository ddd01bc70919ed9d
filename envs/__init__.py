"""Worlds whose exact answers are known. Importing this package registers the Gymnasium ids below."""

import gymnasium

gymnasium.register(
    id="costate/LQScalar-v0",
    entry_point="envs.gym_env:WorldEnv",
    vector_entry_point="envs.gym_env:WorldVectorEnv",
    kwargs={"make_world": "envs.linear_quadratic:scalar"},
)

gymnasium.register(
    id="costate/LQDoubleIntegrator-v0",
    entry_point="envs.gym_env:WorldEnv",
    vector_entry_point="envs.gym_env:WorldVectorEnv",
    kwargs={"make_world": "envs.linear_quadratic:double_integrator"},
)

gymnasium.register(
    id="costate/LQRandom-v0",
    entry_point="envs.gym_env:WorldEnv",
    vector_entry_point="envs.gym_env:WorldVectorEnv",
    max_episode_steps=200,
    kwargs={"make_world": "envs.linear_quadratic:random_system"},
)

gymnasium.register(
    id="costate/LQUniformNoise-v0",
    entry_point="envs.gym_env:WorldEnv",
    vector_entry_point="envs.gym_env:WorldVectorEnv",
    kwargs={"make_world": "envs.lq_variants:uniform_noise"},
)

gymnasium.register(
    id="costate/LQStepReward-v0",
    entry_point="envs.gym_env:WorldEnv",
    vector_entry_point="envs.gym_env:WorldVectorEnv",
    kwargs={"make_world": "envs.lq_variants:step_reward"},
)

gymnasium.register(
    id="costate/LQQuantisedAction-v0",
    entry_point="envs.gym_env:WorldEnv",
    vector_entry_point="envs.gym_env:WorldVectorEnv",
    kwargs={"make_world": "envs.lq_variants:quantised_action"},
)

gymnasium.register(
    id="costate/LQStateScaledNoise-v0",
    entry_point="envs.gym_env:WorldEnv",
    vector_entry_point="envs.gym_env:WorldVectorEnv",
    kwargs={"make_world": "envs.lq_variants:state_scaled_noise"},
)

gymnasium.register(
    id="costate/ChaoticMap-v0",
    entry_point="envs.gym_env:WorldEnv",
    vector_entry_point="envs.gym_env:WorldVectorEnv",
    kwargs={"make_world": "envs.lq_variants:ChaoticMap"},
)

gymnasium.register(
    id="costate/TokenLock-v0",
    entry_point="envs.token_env:TokenEnv",
    vector_entry_point="envs.token_env:TokenVectorEnv",
    kwargs={"make_world": "envs.token_tasks:combination_lock"},
)

gymnasium.register(
    id="costate/TokenCopy-v0",
    entry_point="envs.token_env:TokenEnv",
    vector_entry_point="envs.token_env:TokenVectorEnv",
    kwargs={"make_world": "envs.token_tasks:copy"},
)

gymnasium.register(
    id="costate/TokenReverse-v0",
    entry_point="envs.token_env:TokenEnv",
    vector_entry_point="envs.token_env:TokenVectorEnv",
    kwargs={"make_world": "envs.token_tasks:reverse"},
)

gymnasium.register(
    id="costate/TokenArithmetic-v0",
    entry_point="envs.token_env:TokenEnv",
    vector_entry_point="envs.token_env:TokenVectorEnv",
    kwargs={"make_world": "envs.token_tasks:arithmetic"},
)

gymnasium.register(
    id="costate/TokenParity-v0",
    entry_point="envs.token_env:TokenEnv",
    vector_entry_point="envs.token_env:TokenVectorEnv",
    kwargs={"make_world": "envs.token_tasks:parity"},
)

gymnasium.register(
    id="costate/TokenGarnet-v0",
    entry_point="envs.token_env:TokenEnv",
    vector_entry_point="envs.token_env:TokenVectorEnv",
    kwargs={"make_world": "envs.token_tasks:garnet"},
)

gymnasium.register(
    id="costate/TokenDistractor-v0",
    entry_point="envs.token_env:TokenEnv",
    vector_entry_point="envs.token_env:TokenVectorEnv",
    kwargs={"make_world": "envs.token_tasks:distractor"},
)

gymnasium.register(
    id="costate/TokenSumAndStop-v0",
    entry_point="envs.token_env:TokenEnv",
    vector_entry_point="envs.token_env:TokenVectorEnv",
    kwargs={"make_world": "envs.token_tasks:sum_and_stop"},
)

gymnasium.register(
    id="costate/TokenSkills-v0",
    entry_point="envs.token_env:TokenEnv",
    vector_entry_point="envs.token_env:TokenVectorEnv",
    kwargs={"make_world": "envs.skills:skills"},
)
