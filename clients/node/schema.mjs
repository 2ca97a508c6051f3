// The schema of the object that both packages request; ../schema.py defines the same.
import { z } from "zod";

export const SCHEMA_QUESTION = "Describe the signature of a Python function that repeats a word, in JSON.";
export const SCHEMA_TOKENS = 200;
export const SCHEMA = z.strictObject({
  name: z.string().max(20),
  arguments: z.array(z.strictObject({ name: z.string().max(10), type: z.enum(["int", "float", "str"]) })).max(3),
  pure: z.boolean(),
});
