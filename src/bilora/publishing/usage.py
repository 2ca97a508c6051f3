"""The section of a card that asks an adapter one question, in Python with transformers and PEFT alone."""

from __future__ import annotations

from importlib.metadata import version

from bilora.publishing.bundle_info import BundleInfo
from bilora.records import Message
from bilora.requests import SamplingParams
from bilora.storage import dump_json

WARNING = "Code that the model writes may be wrong or harmful: run it only where it can do no damage."


def usage_section(task: str, place: str, info: BundleInfo) -> list[str]:
    """Return the section: how the adapter was measured, and the program that asks it so.

    Args:
        place: the arguments by which `from_pretrained` finds the adapter and its tokenizer.
    """
    sampling = info.tasks[task].sampling
    return [
        "## Use",
        "",
        f"One question to `{task}` as it was measured: its system message, the tokenizer and the chat template beside "
        f"the adapter, {_decoding(sampling)}, at most {sampling.max_tokens} new tokens, and the base in "
        f"{info.base.precision}.",
        "",
        "```python",
        *_program(task, place, info),
        "```",
        "",
        f"Published with PEFT {version('peft')} and transformers {version('transformers')}. In float32 the answer is "
        "the measured one; in 16 bits a token may differ, and then those after it.",
        "",
        WARNING,
        "",
    ]


def _decoding(sampling: SamplingParams) -> str:
    """Say how tokens are chosen."""
    chosen = "greedy decoding"
    if sampling.temperature > 0:
        chosen = f"sampling at temperature {sampling.temperature} (so every run answers otherwise)"
    if sampling.frequency_penalty:
        chosen += (
            f", a frequency penalty of {sampling.frequency_penalty} (transformers has none, so the program defines it)"
        )
    return chosen


def _program(task: str, place: str, info: BundleInfo) -> list[str]:
    asked = info.tasks[task]
    penalised = bool(asked.sampling.frequency_penalty)
    lines = [
        *info.load_base_code(),
        f"base.generation_config = GenerationConfig({_generation_config(asked.sampling, info)})",
        f"model = PeftModel.from_pretrained(base, {place}).eval()",
        f"tokenizer = AutoTokenizer.from_pretrained({place})",
        "",
        "messages = [",
        *(line for message in asked.messages for line in _message(message)),
        "]",
        "prompt = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
        ")",
        'start = prompt["input_ids"].shape[1]',
        *(_penalty(asked.sampling) if penalised else []),
        f"answer = model.generate(**prompt{', logits_processor=[frequency_penalty]' if penalised else ''})",
        "print(tokenizer.decode(answer[0, start:], skip_special_tokens=True))",
    ]
    return [
        *(["import torch"] if any("torch." in line for line in lines) else []),
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
        "",
        *lines,
    ]


def _message(message: Message) -> list[str]:
    """Return the lines of Python for one message, with one line per line of its text."""
    first, *others = map(dump_json, message.content.splitlines(keepends=True) or [""])
    if not others:
        return [f'    {{"role": "{message.role}", "content": {first}}},']
    return [
        "    {",
        f'        "role": "{message.role}",',
        f'        "content": {first}',
        *(f"        {line}" for line in others),
        "    },",
    ]


def _generation_config(sampling: SamplingParams, info: BundleInfo) -> str:
    """Return the arguments that replace the base's own generation config, whose penalties were not measured."""
    arguments = {"max_new_tokens": str(sampling.max_tokens), "do_sample": str(sampling.temperature > 0)}
    if sampling.temperature > 0:
        arguments |= {"temperature": str(sampling.temperature), "top_k": "0"}
    arguments |= {"eos_token_id": str(list(info.stop_ids)), "pad_token_id": str(info.pad_id)}
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def _penalty(sampling: SamplingParams) -> list[str]:
    """Return the function that subtracts the penalty; transformers calls it after it divided by the temperature."""
    scaled = sampling.frequency_penalty / (sampling.temperature or 1.0)
    return [
        "",
        "",
        "def frequency_penalty(ids, scores):",
        "    counts = [torch.bincount(row, minlength=scores.shape[-1]) for row in ids[:, start:]]",
        f"    return scores - {scaled} * torch.stack(counts)",
        "",
        "",
    ]
