"""A card's section with a program that sends one prompt to an adapter; it needs only transformers and PEFT."""

from __future__ import annotations

from importlib.metadata import version

from bilora.publishing.bundle_info import BundleInfo
from bilora.records import Message
from bilora.requests import SamplingParams
from bilora.storage import dump_json

WARNING = "Code that the model writes may be wrong or harmful: run it only where it can do no damage."


def usage_section(task: str, arguments: str, info: BundleInfo) -> list[str]:
    """Return the section, which repeats the settings of the evaluation, as lines.

    Args:
        arguments: the arguments of `from_pretrained` for the adapter and its tokenizer.
    """
    sampling = info.tasks[task].sampling
    return [
        "## Use",
        "",
        f"This program sends one question to `{task}` with the settings of the evaluation: the task's system message, "
        f"the tokenizer and the chat template beside the adapter, {_decoding(sampling)}, at most {sampling.max_tokens} "
        f"new tokens, and the base in {info.base.precision}.",
        "",
        "```python",
        *_program(task, arguments, info),
        "```",
        "",
        f"Published with PEFT {version('peft')} and transformers {version('transformers')}. In float32 the answer is "
        "the same as in the evaluation; in 16 bits a token may differ, and then the following ones.",
        "",
        WARNING,
        "",
    ]


def _decoding(sampling: SamplingParams) -> str:
    """Return the decoding settings in words."""
    decoding = "greedy decoding"
    if sampling.temperature > 0:
        decoding = f"sampling at temperature {sampling.temperature} (so the answer varies)"
    if sampling.frequency_penalty:
        decoding += (
            f", a frequency penalty of {sampling.frequency_penalty} (transformers has none, so the program defines it)"
        )
    return decoding


def _program(task: str, arguments: str, info: BundleInfo) -> list[str]:
    card_task = info.tasks[task]
    penalised = bool(card_task.sampling.frequency_penalty)
    lines = [
        *info.load_base_code(),
        f"base.generation_config = GenerationConfig({_generation_config(card_task.sampling, info)})",
        f"model = PeftModel.from_pretrained(base, {arguments}).eval()",
        f"tokenizer = AutoTokenizer.from_pretrained({arguments})",
        "",
        "messages = [",
        *(line for message in card_task.messages for line in _message(message)),
        "]",
        "prompt = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
        ")",
        'start = prompt["input_ids"].shape[1]',
        *(_penalty(card_task.sampling) if penalised else []),
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
    """Return Python code for one message, with one line per line of its text."""
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
    """Return arguments of GenerationConfig; it replaces the base's, whose penalties the evaluation did not use."""
    arguments = {"max_new_tokens": str(sampling.max_tokens), "do_sample": str(sampling.temperature > 0)}
    if sampling.temperature > 0:
        arguments |= {"temperature": str(sampling.temperature), "top_k": "0"}
    arguments |= {"eos_token_id": str(list(info.stop_ids)), "pad_token_id": str(info.pad_id)}
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def _penalty(sampling: SamplingParams) -> list[str]:
    """Return the function that subtracts the penalty; it is scaled, because temperature has been applied before."""
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
