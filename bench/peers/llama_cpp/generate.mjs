// Loads a GGUF with llama.cpp on the CPU and prints greedy token ids and seconds as JSON.
//
//   node generate.mjs model.gguf --prompt 1,2,3 [--tokens 16]       these ids
//   node generate.mjs model.gguf --text "Once upon" [--tokens 16]   this text
//   node generate.mjs model.gguf --prompt-length 512 [--tokens 64]  as many ids, for speed
//   --threads 2     default: the cores
//   --context 4096  default: prompt and tokens
//   --repeat 1      prefill and decode so often; seconds are medians
//   --mmap          map the file instead of reading it
//   --live          a line on stderr as each token comes
//
// {"threads", "context", "prompt": [ids], "tokens": [ids], "load_seconds", "prefill_seconds",
//  "decode_seconds", "prefill_tokens_per_second", "decode_tokens_per_second"}
// The first token comes out of the prefill: decode seconds are those of the others.

import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    prompt: { type: "string" },
    text: { type: "string" },
    "prompt-length": { type: "string" },
    tokens: { type: "string", default: "16" },
    threads: { type: "string", default: String(availableParallelism()) },
    context: { type: "string" },
    repeat: { type: "string", default: "1" },
    mmap: { type: "boolean", default: false },
    live: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false },
  },
});
if (positionals.length !== 1) {
  console.error("usage: node generate.mjs model.gguf --prompt 1,2,3 | --text TEXT | --prompt-length N");
  process.exit(2);
}

const seconds = () => Number(process.hrtime.bigint()) / 1e9;
const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];

function promptOf(model) {
  if (options.prompt) return options.prompt.split(/[\s,]+/).map(Number);
  if (options.text) return model.tokenize(options.text, false);
  const vocabulary = model.fileInfo.metadata?.tokenizer?.ggml?.tokens?.length ?? 1000;
  const length = Number(options["prompt-length"] ?? 16);
  // Spread over the vocabulary, always the same.
  return Array.from({ length }, (_, i) => (i * 7919 + 13) % Math.min(vocabulary, 32000));
}

// Greedy: temperature 0. The generator yields each token when it is sampled.
async function generate(sequence, prompt, count) {
  await sequence.clearHistory();
  const tokens = [];
  const begin = seconds();
  let first = begin;
  for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    if (tokens.length === 0) first = seconds();
    tokens.push(token);
    if (options.live) console.error(`token ${tokens.length}`);
    if (tokens.length >= count) break;
  }
  return { tokens, prefill: first - begin, decode: seconds() - first };
}

const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  maxThreads: 0,
  logLevel: options.verbose ? LlamaLogLevel.debug : LlamaLogLevel.error,
});
const loadBegin = seconds();
const model = await llama.loadModel({ modelPath: resolve(positionals[0]), useMmap: options.mmap });
const prompt = promptOf(model);
const count = Number(options.tokens);
const context = await model.createContext({
  contextSize: Number(options.context ?? prompt.length + count + 8),
  batchSize: Math.max(512, prompt.length),
  threads: Number(options.threads),
});
const loaded = seconds() - loadBegin;
const sequence = context.getSequence();
const runs = [];
for (let i = 0; i < Number(options.repeat); ++i) runs.push(await generate(sequence, prompt, count));

const prefill = median(runs.map((run) => run.prefill));
const decode = median(runs.map((run) => run.decode));
const made = runs[0].tokens.length;
console.log(
  JSON.stringify({
    threads: Number(options.threads),
    context: context.contextSize,
    prompt,
    tokens: runs[0].tokens,
    load_seconds: loaded,
    prefill_seconds: prefill,
    decode_seconds: decode,
    prefill_tokens_per_second: prompt.length / prefill,
    decode_tokens_per_second: made > 1 ? (made - 1) / decode : 0,
  }),
);
await llama.dispose();
