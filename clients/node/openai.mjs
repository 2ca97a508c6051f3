// The openai package, which reads OPENAI_BASE_URL and OPENAI_API_KEY.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { SCHEMA, SCHEMA_QUESTION, SCHEMA_TOKENS } from "./schema.mjs";

const [question, tokens] = process.argv.slice(2);
const max_tokens = Number(tokens);
const client = new OpenAI();
const messages = [{ role: "user", content: question }];

const chat = await client.chat.completions.create({ model: "base", messages, max_tokens });
let streamed = "";
for await (const chunk of await client.chat.completions.create({
  model: "base",
  messages,
  max_tokens,
  stream: true,
})) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
const response = await client.responses.create({ model: "base", input: question, max_output_tokens: max_tokens });
const completion = await client.completions.create({ model: "base", prompt: "def add(a, b):", max_tokens: 8 });
const parsed = await client.chat.completions.parse({
  model: "base",
  messages: [{ role: "user", content: SCHEMA_QUESTION }],
  max_tokens: SCHEMA_TOKENS,
  response_format: zodResponseFormat(SCHEMA, "signature"),
});

console.log(
  JSON.stringify({
    chat: chat.choices[0].message.content,
    streamed,
    response: response.output_text,
    completion: completion.choices[0].text,
    object: parsed.choices[0].message.parsed,
  }),
);
