"""The answers: exact values, gradients and costates, computed without the agents that they judge.

Notation (one name per thing, the letters of the theory page; all arrays float64 unless the caller says otherwise):

| symbol     | code              | shape                        | meaning                                                      |
|------------|-------------------|------------------------------|--------------------------------------------------------------|
| s_t        | states            | (batch, times, n)            | state; times = T+1                                           |
| u_t, a_t   | commands, actions | (batch, T, m)                | command mu(s); executed action u + xi                        |
| xi_t, w_t  | xi, w             | (batch, T, m), (batch, T, n) | action noise, process noise                                  |
| A, B       | A, B              | (n, n), (n, m)               | dynamics s' = A s + B a + w                                  |
| Q, R, Q_f  | Q, R, Q_f         | (n, n), (m, m), (n, n)       | cost matrices: r = -(s'Qs + a'Ra), last -s'Q_f s             |
| S_x, S_w   | S_x, S_w          | (m, m), (n, n)               | covariance of xi and of w                                    |
| m_0, S_0   | m_0, S_0          | (n,), (n, n)                 | mean and covariance of s_0                                   |
| gamma, T   | gamma, horizon    | scalars                      | discount; number of actions, None = endless                  |
| K or K_t   | K                 | (m, n) or (T, m, n)          | gain of the command u = -K s                                 |
| Phi        | Phi               | (n, n)                       | closed loop A - B K                                          |
| M          | M                 | (n, n)                       | Q + K'RK                                                     |
| P_t, c_t   | P, c              | (times, n, n), (times,)      | V_t(s) = -(s'P_t s + c_t); no time axis when endless         |
| R_t        | returns           | (batch,)                     | sum_{k>=t} gamma^{k-t} r_k, with the terminal reward         |
| lambda_t   | costates          | (batch, times, n)            | dR_t/ds_t, total derivative along one noisy path             |
| Df_t, Dr_t | Df, Dr            | (batch, T, n[, n])           | total derivatives of step and reward through the policy      |
| grad V_t   | value_gradient    | (batch, n)                   | -2 P_t s in a linear-quadratic world                         |
| L_j        | L                 | (n, m)                       | gamma Phi'P_{j+1}B - K'R: how action noise enters a costate  |
| b          | baseline          | scalar or (batch,)           | what is subtracted from R_t in the score-function estimator  |
| Sigma_t    | Sigma             | (times, n, n)                | second moment E s_t s_t'                                     |

Token worlds (N nodes of a level of the prefix tree, C edges each, D width of the policy):

| symbol     | code              | shape                        | meaning                                                      |
|------------|-------------------|------------------------------|--------------------------------------------------------------|
| V, S, H    | V, S, horizon     | scalars                      | vocabulary, abstract states, steps                           |
| P, r_k     | P, r              | (S, V, S), (H, S, V)         | transition probabilities, reward table of step k             |
| b_k        | belief            | (N, S)                       | row vector over abstract states, b' = sum_a u(a) b P_a       |
| z, pi      | logits, pi        | (N, V)                       | logits (offset added, over the temperature), softmax of them |
| tau        | temperature       | scalar                       | entropy knob 1; `offset` on one token's logit is knob 2      |
| c_k, u_k   | tokens, u         | (N, C), (N, C, V)            | sampled token; relaxed token fed on, (1 - alpha) pi + alpha c|
| alpha      | alpha             | scalar                       | sampling-gap knob: 0 differentiable, 1 discrete              |
| gap_k      | sampling_gap      | (N,)                         | E_c TV(u_k, pi_k) = alpha G(pi_k)                            |
| G, H(p)    | gini, entropy     | (N,)                         | 1 - sum p^2; entropy in nats                                 |
| J(p)       | jacobian          | (V, V)                       | diag(p) - p p'                                               |
| osc(q)     | oscillation       | (N,)                         | max q - min q                                                |
| delta      | delta, leaves     | (positions, D)               | zero vector added to the residual stream at a *site*         |
| w_k(a)     | w, logit_slopes   | (N, V, D)                    | d z_k(a) / d delta, total derivative at fixed tokens         |
| D_w        | diameter          | (N,)                         | max_{a,b} of the norm of w(a) - w(b)                         |
| Q_k, V_k   | Q, V              | (N, C), (N,)                 | value after the edge's token; of the node                    |
| J          | J                 | scalar                       | expected return over the prompts                             |
| E1 ... E5  | SURROGATES        | (N, positions, D)            | the empirical costates, see `theory.tokens.costates`         |
| tau_g      | tau_g             | scalar                       | temperature of the Gumbel-softmax (E5)                       |

Groups (rows of T steps, G of them for each prompt):

| symbol     | code              | shape                        | meaning                                                      |
|------------|-------------------|------------------------------|--------------------------------------------------------------|
| G          | group             | scalar                       | rows of one prompt that are compared with each other         |
| o, |o|     | row, mask         | (rows, T)                    | completion; its length, the end token included               |
| R_i        | returns           | (rows,)                      | sum of a row's `gamma^k r_k`                                 |
| A_it       | advantages        | (rows, T)                    | what multiplies grad log pi(c_it), before any normaliser     |
| P          | P, success        | (prompts,)                   | success probability of a prompt, rewards 0 or 1              |
| kappa      | kappa, scale      | (prompts,)                   | mean update over true gradient, where they are parallel      |
| c_G(P)     | grpo_kappa        | (prompts,)                   | kappa of GRPO with std                                       |
| F_G(P)     | grpo_objective           | (prompts,)                   | int_0^P c_G: what GRPO with std climbs                       |
| W_j, w_i   | weights           | (K, T), (M, G, T)            | mean weight of outcome j; weight of row i in a group         |
| rho        | ratio             | (rows, T)                    | pi / pi_old of a token                                       |
| s          | s                 | (L, parameters)              | score of a completion, sum_t grad log pi(c_t)                |
| zeta_1, 2  | hoeffding         | scalars                      | variances of the kernel of a U-statistic                     |

Impact of RL (one checkpoint, before RL; h is the hidden state at the prompt's last position):

| symbol     | code              | shape                        | meaning                                                      |
|------------|-------------------|------------------------------|--------------------------------------------------------------|
| |E lambda| | Signal.costate    | (prompts,)                   | size of the expected costate, |grad_h V|                     |
| snr        | Signal.snr        | (prompts,)                   | |E lambda| over the sd of one completion's (R - V) s         |
| F_h        | fisher            | (prompts, D, D)              | E s s', s the score of a completion in h                     |
| cap        | Signal.cap        | (prompts,)                   | sd(R) sqrt(lambda_max(F_h)); alignment: signal over cap      |
| pass@k     | best_of           | (prompts,)                   | E max of k returns                                           |
| eps        | eps               | scalar                       | radius of the KL ball of the headroom, nats                  |
"""
