"""Tokens per second of our sampler against Hugging Face `generate`, on one and the same network.

Width 64, 2 layers, 4 heads, 16 tokens, contexts up to 128, prompts of 4 tokens, float64. Our random weights are copied into
a GPT-2 (head untied and without bias; exact GELU, which is ours, and a little faster than GPT-2's own tanh form), and it must
give what we sampled the same log-probabilities, whole contexts at once, before anything is timed. `generate` is called as its
documentation has it: eval mode, key-value cache, attention mask, a GenerationConfig that samples from the bare distribution
and stops at a fixed length only. Inference mode for both. A group is `num_return_sequences` there and `copies` here.
We return log-probabilities besides; it returns tokens. Needs the extra "bench".
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from agents.policies.transformer import Transformer
from agents.sampling.tokens import sample_tokens
from benchmarks.timing import check, interleave, median_ratio, report

try:
    import transformers
except ImportError:
    raise SystemExit('transformers is missing: pip install -c constraints.txt -e ".[bench]"') from None

V, WIDTH, LAYERS, HEADS, LENGTH, PROMPT = 16, 64, 2, 4, 128, 4
STEPS, TARGET = (8, 16, 64), 1.7
JUDGED, OTHERS = (64, 1), ((8, 1), (512, 1), (8, 8))  # prompts, rows of each


def gpt2(ours: Any) -> Any:
    """GPT-2 with the weights of ours, whose head gives up its bias; it stores linear maps transposed."""
    config = transformers.GPT2Config(
        vocab_size=V,
        n_positions=LENGTH,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        activation_function="gelu",
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    model: Any = transformers.GPT2LMHeadModel(config)
    body, pairs = model.to(torch.float64).eval().transformer, [(model.transformer.ln_f, ours.norm)]
    for theirs, block in zip(body.h, ours.blocks, strict=True):
        pairs += [
            (theirs.ln_1, block.norm1),
            (theirs.ln_2, block.norm2),
            (theirs.attn.c_attn, block.attention.inward),
            (theirs.attn.c_proj, block.attention.outward),
            (theirs.mlp.c_fc, block.mlp[0]),
            (theirs.mlp.c_proj, block.mlp[2]),
        ]
    with torch.no_grad():
        body.wte.weight.copy_(ours.embedding.weight)
        body.wpe.weight.copy_(ours.position)
        model.lm_head.weight.copy_(ours.head.weight)
        ours.head.bias.zero_()
        for theirs, mine in pairs:
            theirs.weight.copy_(mine.weight.mT if mine.weight.ndim == 2 else mine.weight)
            theirs.bias.copy_(mine.bias)
    return model


def generating(model: Any, prompts: Tensor, steps: int, copies: int) -> Callable[[], Tensor]:
    """A call of `generate`."""
    config = transformers.GenerationConfig(
        do_sample=True,
        top_k=0,
        use_cache=True,
        min_new_tokens=steps,
        max_new_tokens=steps,
        eos_token_id=None,
        num_return_sequences=copies,
    )
    mask = torch.ones_like(prompts)

    def run() -> Tensor:
        with torch.inference_mode():
            tokens: Tensor = model.generate(prompts, attention_mask=mask, generation_config=config)
        return tokens

    return run


def agree(ours: Transformer, model: Any, rng: torch.Generator) -> None:
    """GPT-2 gives the sampled tokens the log-probabilities that came with them."""
    prompts = torch.randint(V, (64, PROMPT), generator=rng)
    sample = sample_tokens(ours, prompts, max(STEPS), rng)
    with torch.no_grad():
        logits = model(torch.cat([prompts, sample.tokens], 1)).logits[:, PROMPT - 1 : -1]
    theirs = torch.log_softmax(logits, -1).gather(-1, sample.tokens[..., None])[..., 0]
    check("log-probabilities", float((theirs - sample.log_probs).abs().max()), 1e-10)


def compare(ours: Transformer, model: Any, prompts: Tensor, copies: int, steps: int, rng: torch.Generator) -> None:
    """Time one size and print."""
    rivals: dict[str, Callable[[], object]] = {
        "generate": generating(model, prompts, steps, copies),
        "ours": partial(sample_tokens, ours, prompts, steps, rng, copies),
    }
    count = len(prompts) * copies * steps
    seconds = interleave(rivals, 41 if count <= 1024 else 15)
    ratio, rows = median_ratio(seconds, "generate", "ours"), f"{len(prompts)} prompts of {copies} rows"
    speeds = [f"{count / statistics.median(seconds[name]):,.0f}" for name in ("ours", "generate")]
    print(f"{rows}, {steps} new tokens: {' against '.join(speeds)} tokens per second, {ratio:.2f}x")
    if (len(prompts), copies) == JUDGED:
        report(f"{rows}, {steps} new tokens: ours against generate", ratio, TARGET)


def main() -> None:
    """Check, measure and print."""
    transformers.logging.set_verbosity_error()
    rng = torch.Generator().manual_seed(0)
    ours = Transformer(V, width=WIDTH, layers=LAYERS, heads=HEADS, length=LENGTH)
    model = gpt2(ours)
    agree(ours, model, rng)
    for count, copies in (JUDGED, *OTHERS):
        prompts = torch.randint(V, (count, PROMPT), generator=rng)
        for steps in STEPS:
            compare(ours, model, prompts, copies, steps, rng)


if __name__ == "__main__":
    main()
