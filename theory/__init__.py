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
"""
