"""Make the base of the tests and of the smoke profile: a two-layer Phi-3 model, trained for some seconds.

    OMP_NUM_THREADS=1 python scripts/make_smoke_base.py [--out models/smoke] [--steps 100]

1) Read samples of both tasks: generated exercises of the train split, and documented functions of three packages that
requirements.txt pins. 2) Train a byte-level BPE tokenizer on their text, with Phi-3's special tokens and chat template.
3) Train a model from random weights on the text, without chat template, so that its answers depend on the question and
rarely end by themselves, as the tests of the engines and the server need. 4) Write safetensors in bf16, tokenizer and
configuration. The bytes are equal on equal processors.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

from bilora.records import Sample
from bilora.sources.kinds.exercises import Exercises, ExercisesSettings
from bilora.sources.kinds.installed import function_rows
from bilora.sources.packages import package_modules
from bilora.tasks import load_task

SEED = 42
EXERCISES = ExercisesSettings(kind="exercises", compositions={"one": 111, "two": 300, "three": 300})
PACKAGES = ("attrs", "click", "pluggy")
CONTEXT_LENGTH, WINDOW, BATCH_SIZE, LEARNING_RATE = 512, 256, 8, 4e-3
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<|endoftext|>")
CHAT_TOKENS = ("<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def training_samples() -> Iterator[Sample]:
    """Yield the samples of both tasks that the tasks' rules accept."""
    functions = (row for name in PACKAGES for module in package_modules(name, "train") for row in function_rows(module))
    for task, rows in (("codegen", Exercises(EXERCISES, SEED).rows()), ("docstring", functions)):
        samples = (load_task(task).sample(row) for row in rows if row["split"] == "train")
        yield from (sample for sample in samples if isinstance(sample, Sample))


def train_tokenizer(texts: Iterator[str]) -> Any:
    """Return a tokenizer of 2,048 tokens. As in Phi-3, the chat tokens strip the white space that follows them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True) for token in SPECIAL_TOKENS]
    special += [AddedToken(token, special=True, rstrip=True) for token in CHAT_TOKENS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2048, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|endoftext|>",
        unk_token="<unk>",
        pad_token="<unk>",
        padding_side="left",
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def new_model(tokenizer: Any) -> Any:
    """Return an untrained model: fused projections, tied embeddings, 213,312 parameters."""
    torch.manual_seed(SEED)
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|end|>", "<|assistant|>"])
    config = Phi3Config(
        vocab_size=2048, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=CONTEXT_LENGTH, original_max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id, eos_token_id=ends[0],
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Phi3ForCausalLM(config)
    model.generation_config.eos_token_id = ends
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def train(model: Any, tokens: torch.Tensor, steps: int) -> None:
    """Train on windows of the tokens, shape (tokens,), in a seeded order."""
    windows = tokens[: len(tokens) // WINDOW * WINDOW].view(-1, WINDOW)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for step in range(1, steps + 1):
        batch = windows[torch.randint(len(windows), (BATCH_SIZE,))]
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("models/smoke"))
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    samples = list(training_samples())
    random.Random(SEED).shuffle(samples)
    texts = [f"{sample.prompt}\n\n{sample.target}\n" for sample in samples]
    tokenizer = train_tokenizer(iter(texts))
    rows = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    tokens = torch.tensor([token for row in rows for token in (*row, tokenizer.eos_token_id)])
    print(f"{len(samples):,} samples, {len(tokens):,} tokens", flush=True)
    model = new_model(tokenizer)
    train(model, tokens, options.steps)
    model.to(torch.bfloat16).save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
