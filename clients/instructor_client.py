"""Request an object with instructor and write it to standard output. Runs in instructor's own environment."""

from __future__ import annotations

import sys

import instructor
from openai import OpenAI
from schema import SCHEMA_QUESTION, SCHEMA_TOKENS, Signature

client = instructor.from_openai(OpenAI(), mode=instructor.Mode.JSON_SCHEMA)
signature = client.create(
    model="base",
    response_model=Signature,
    messages=[{"role": "user", "content": SCHEMA_QUESTION}],
    max_tokens=SCHEMA_TOKENS,
    max_retries=0,
)
sys.stdout.write(signature.model_dump_json())
