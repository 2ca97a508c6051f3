// Vercel's AI SDK with @ai-sdk/openai-compatible.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, Output, streamText } from "ai";
import { SCHEMA, SCHEMA_QUESTION, SCHEMA_TOKENS } from "./schema.mjs";

const [question, tokens] = process.argv.slice(2);
const maxOutputTokens = Number(tokens);
const provider = createOpenAICompatible({
  name: "bilora",
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = provider("base");
const settings = { model, maxRetries: 0 };

const { text } = await generateText({ ...settings, prompt: question, maxOutputTokens });
const stream = streamText({ ...settings, prompt: question, maxOutputTokens });
let streamed = "";
for await (const part of stream.textStream) streamed += part;
const { outputTokens } = await stream.usage;
const structured = { ...settings, prompt: SCHEMA_QUESTION, maxOutputTokens: SCHEMA_TOKENS };
const { object } = await generateObject({ ...structured, schema: SCHEMA });
const { output } = await generateText({ ...structured, output: Output.object({ schema: SCHEMA }) });

console.log(JSON.stringify({ text, streamed, outputTokens, object, output }));
