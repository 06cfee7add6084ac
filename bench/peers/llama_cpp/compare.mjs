// cadre beside llama.cpp: the same file, the same threads, in turns, medians.
//
//   node compare.mjs model.gguf --cadre build/release/bin/cadre
//   --parts memory,start,limits   what to measure
//   --threads 2                   default: the cores
//   --rounds 3                    turns; figures are medians over them
//   --prompt-tokens 512 --tokens 64
//   --shares 0.5,0.25             memory limits, as shares of the file
//   --limit-tokens 32             tokens to decode within a limit
//   --limit-seconds 100           what llama.cpp gets for them; 0 = only cadre runs within limits
//   --settings plain,mmap         how llama.cpp gets the file: read or mapped; the best counts
//   --attempts 1                  runs that others disturb are repeated up to so often
//   --wrap "nice -n -5"           put before every command
//   --in-memory 50                cadre's decode speed in memory, when only limits are measured
//   --json FILE                   everything as JSON
//
// llama.cpp's times are taken inside the process (without node's start), cadre's start to first
// token is the whole process. "others" is how many cores other processes kept busy meanwhile.

import { existsSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { memory_group, run, run_json, run_undisturbed, wrap } from "./processes.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    cadre: { type: "string", default: "cadre" },
    parts: { type: "string", default: "memory,start,limits" },
    threads: { type: "string", default: String(availableParallelism()) },
    rounds: { type: "string", default: "3" },
    "prompt-tokens": { type: "string", default: "512" },
    tokens: { type: "string", default: "64" },
    shares: { type: "string", default: "0.5,0.25" },
    "limit-tokens": { type: "string", default: "32" },
    "limit-seconds": { type: "string", default: "100" },
    settings: { type: "string", default: "plain,mmap" },
    attempts: { type: "string", default: "1" },
    wrap: { type: "string", default: "" },
    "in-memory": { type: "string" },
    json: { type: "string" },
  },
});
if (positionals.length !== 1) {
  console.error("usage: node compare.mjs model.gguf --cadre PATH [--parts memory,start,limits]");
  process.exit(2);
}

const model = resolve(positionals[0]);
if (!existsSync(model)) {
  console.error(`${model}: no such file; synthetic_moe writes one`);
  process.exit(2);
}
const { threads } = options;
const kSettings = options.settings.split(",").map((name) => (name === "mmap" ? ["--mmap"] : []));
const attempts = Number(options.attempts);
const kText = "Once upon a time";
const kLimitPrompt = "16";

const median = (list) => {
  const sorted = [...list].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const median_of = (runs, key) => median(runs.map((one) => one[key]));
const log = (text) => console.error(text);
const log_run = (who, { load_seconds, prefill_tokens_per_second, decode_tokens_per_second, others }) =>
  log(
    `  ${who}: loaded in ${load_seconds.toFixed(2)} s, prefill ${prefill_tokens_per_second.toFixed(1)}, ` +
      `decode ${decode_tokens_per_second.toFixed(2)} tokens/s, others ${others.toFixed(2)}`,
  );

const llama_command = (...more) => [
  process.execPath, join(dirname(fileURLToPath(import.meta.url)), "generate.mjs"), model, "--threads", threads, ...more,
];
// Both programs reserve what they need and no more.
const context_of = (prompt_tokens, tokens) => String(Number(prompt_tokens) + Number(tokens) + 8);
const cadre_bench = (prompt_tokens, tokens, ...more) => [
  options.cadre, "bench", model, "--json", "--repeat", "1", "--threads", threads,
  "--prompt-tokens", prompt_tokens, "--tokens", tokens, "--context", context_of(prompt_tokens, tokens), ...more,
];
const plan_command = (...more) => [options.cadre, "plan", model, "--json", ...more];
const in_file_cache = () => run(["dd", `if=${model}`, "of=/dev/null", "bs=1M"]);
const out_of_file_cache = () => run(["dd", `of=${model}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"]);

// One row of the table.
const rows = [];
function compare(what, cadre, llama, ratio, target) {
  rows.push({ what, cadre, llama_cpp: llama, ratio, target, met: ratio === null ? null : ratio >= target });
}

// Decode and prefill with everything in memory.
async function measure_memory() {
  const cadre = [];
  const llama = kSettings.map(() => []);
  const bandwidths = [];
  for (let round = 0; round < Number(options.rounds); ++round) {
    log(`memory, round ${round + 1} of ${options.rounds}`);
    cadre.push(await run_json(cadre_bench(options["prompt-tokens"], options.tokens), { attempts }));
    log_run("cadre", cadre.at(-1));
    bandwidths.push((await run_json(plan_command())).bandwidth.memory);
    for (const [i, setting] of kSettings.entries()) {
      const { prompt, tokens, ...figures } = await run_json(
        llama_command("--prompt-length", options["prompt-tokens"], "--tokens", options.tokens, ...setting),
        { attempts },
      );
      llama[i].push(figures);
      log_run(`llama.cpp ${setting}`, figures);
    }
  }
  const result = { cadre, llama, bandwidths };
  for (const [what, target] of [["decode", 1.8], ["prefill", 3]]) {
    const key = `${what}_tokens_per_second`;
    const ours = median_of(cadre, key);
    const theirs = Math.max(...llama.map((runs) => median_of(runs, key)));
    result[key] = { cadre: ours, llama_cpp: theirs };
    compare(`${what}, in memory (tokens/s)`, ours, theirs, ours / theirs, target);
  }
  return result;
}

// From starting the process to the first token of a short prompt, the file being in the file cache.
async function measure_start() {
  const cadre = [];
  const llama = kSettings.map(() => []);
  for (let round = 0; round < Number(options.rounds); ++round) {
    log(`start, round ${round + 1} of ${options.rounds}`);
    const ours = await run_undisturbed(
      [options.cadre, "run", model, kText, "--tokens", "1", "--temperature", "0", "--threads", threads],
      { attempts },
    );
    cadre.push(ours.first ?? ours.seconds);
    log(`  cadre: ${cadre.at(-1).toFixed(2)} s, others ${ours.others.toFixed(2)}`);
    for (const [i, setting] of kSettings.entries()) {
      const theirs = await run_json(llama_command("--text", kText, "--tokens", "1", ...setting), { attempts });
      llama[i].push(theirs.load_seconds + theirs.prefill_seconds);
      log(`  llama.cpp ${setting}: ${llama[i].at(-1).toFixed(2)} s, others ${theirs.others.toFixed(2)}`);
    }
  }
  const ours = median(cadre);
  const theirs = Math.min(...llama.map(median));
  compare("start to first token (s; ratio: llama.cpp / cadre)", ours, theirs, theirs / ours, 1);
  return { cadre, llama };
}

// llama.cpp within a memory limit: what it gave until its end, its kill, or the end of the time.
async function limited_llama(group) {
  const limit = Number(options["limit-seconds"]);
  const result = await run(
    llama_command("--prompt-length", kLimitPrompt, "--tokens", options["limit-tokens"], "--mmap", "--live"),
    { limit, group },
  );
  const tokens = (result.stderr.match(/^token /gm) ?? []).length;
  if (result.code === 0) return { tokens, tokens_per_second: JSON.parse(result.stdout).decode_tokens_per_second };
  const how = result.timed_out ? `stopped after ${limit} s` : result.code === null || result.code === 137 ? "killed by the kernel" : `exit code ${result.code}`;
  return { tokens, tokens_per_second: tokens / result.seconds, how };
}

// One limit: what the disk allows follows from the hit rate that was measured beside it.
async function measure_limit(share, in_memory) {
  const bytes = Math.floor((statSync(model).size * share) / 4096) * 4096;
  const context = context_of(kLimitPrompt, options["limit-tokens"]);
  const plan_here = () => run_json(plan_command("--memory", String(bytes), "--context", context));
  const plan = await plan_here();
  const cadre = [];
  let llama = null;
  const group = memory_group(bytes);
  try {
    for (let round = 0; round < Number(options.rounds); ++round) {
      log(`limit ${share}, round ${round + 1} of ${options.rounds}`);
      await out_of_file_cache();
      cadre.push(
        await run_json(cadre_bench(kLimitPrompt, options["limit-tokens"], "--memory", String(bytes)), { group }),
      );
      log_run("cadre", cadre.at(-1));
      if (round > 0 || !(Number(options["limit-seconds"]) > 0)) continue;
      await out_of_file_cache();
      llama = await limited_llama(group);
    }
  } finally {
    group.remove();
  }
  const hit_rate = median_of(cadre, "decode_hit_rate");
  const bandwidth = Math.max(plan.bandwidth.disk, (await plan_here()).bandwidth.disk);
  const read_per_token = (1 - hit_rate) * plan.experts.cycle * plan.experts.expert_bytes;
  const bound = Math.min(in_memory, bandwidth / read_per_token);
  const speed = median_of(cadre, "decode_tokens_per_second");
  const peak = Math.max(...cadre.map((one) => one.peak_resident_bytes));
  const name = `decode, ${share} of the file`;
  if (llama) {
    const said = llama.how ? `${llama.tokens} tokens, ${llama.how}` : llama.tokens_per_second;
    compare(`${name} (tokens/s)`, speed, said, llama.tokens > 1 ? speed / llama.tokens_per_second : null, 3);
  }
  compare(`${name}, of the bound ${bound.toFixed(2)}`, speed, null, speed / bound, 0.8);
  compare(`${name}: budget / peak memory (MiB)`, peak / 2 ** 20, null, bytes / peak, 1);
  return { share, bytes, hit_rate, disk_bandwidth: bandwidth, read_per_token, bound, cadre, llama };
}

async function measure_limits(in_memory) {
  if (!(in_memory > 0)) throw new Error("--parts limits needs memory, too, or --in-memory: the bound is made of it");
  const results = [];
  for (const share of options.shares.split(",").map(Number)) {
    try {
      results.push(await measure_limit(share, in_memory));
    } catch (error) {
      if (error.syscall === undefined) throw error;
      log(`skipped: no control group with a memory limit can be made here (${error.message})`);
      break;
    }
  }
  return results;
}

function show(value) {
  return value === null ? "-" : typeof value === "number" ? value.toFixed(2) : String(value);
}

function print_table() {
  const lines = [["what", "cadre", "llama.cpp", "ratio", "target", ""]];
  for (const row of rows) {
    const verdict = row.met === null ? "" : row.met ? "met" : "missed";
    lines.push([row.what, show(row.cadre), show(row.llama_cpp), show(row.ratio), `>= ${row.target}`, verdict]);
  }
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  for (const line of lines) console.log(line.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd());
}

wrap(options.wrap.split(" ").filter(Boolean));
const parts = options.parts.split(",");
const result = {
  model,
  date: new Date().toISOString(),
  processor: cpus()[0].model,
  threads: Number(threads),
};
function save() {
  if (options.json) writeFileSync(options.json, `${JSON.stringify({ ...result, table: rows }, null, 2)}\n`);
}

await in_file_cache();
if (parts.includes("memory")) {
  result.memory = await measure_memory();
  const plan = await run_json(plan_command());
  const bytes = plan.trunk + plan.experts.cycle * plan.experts.expert_bytes;
  const bound = median(result.memory.bandwidths) / bytes;
  const ours = result.memory.decode_tokens_per_second.cadre;
  compare(`decode, of the ${bound.toFixed(1)} that reading the weights allows`, ours, null, ours / bound, 0.85);
}
save();
if (parts.includes("start")) result.start = await measure_start();
save();
if (parts.includes("limits")) {
  const in_memory = result.memory?.decode_tokens_per_second.cadre ?? Number(options["in-memory"]);
  result.limits = await measure_limits(in_memory);
}
const busy = [...JSON.stringify(result).matchAll(/"others":([\d.]+)/g)].map((found) => Number(found[1]));
if (Math.max(...busy) > 0.1) log(`disturbed: other processes kept up to ${Math.max(...busy).toFixed(1)} cores busy`);
save();
print_table();
