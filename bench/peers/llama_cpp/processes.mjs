// Programs as measurements: run to the end or to a time limit, inside a memory limit or without.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const kCalm = 0.1;
const seconds = () => Number(process.hrtime.bigint()) / 1e9;

// Clock ticks that all processes used since the machine started, and those of this one's children
// that have ended.
function ticks() {
  const all = readFileSync("/proc/stat", "utf8").split("\n")[0].split(/\s+/).slice(1).map(Number);
  const [user, nice, system, , , irq, softirq, steal] = all;
  const own = readFileSync("/proc/self/stat", "utf8").split(") ")[1].split(" ").map(Number);
  return { all: user + nice + system + irq + softirq + steal, own: own[11] + own[12] + own[13] + own[14] };
}

// Cores that everyone else kept busy since `before` (ticks(), seconds ago).
function others(before, elapsed) {
  const after = ticks();
  return (after.all - before.all - (after.own - before.own)) / 100 / elapsed;
}

// What is put before every command, e.g. ["nice", "-n", "-5"].
let wrapper = [];
export const wrap = (command) => (wrapper = command);

// Runs `command` (a list) to its end, killed after `limit` seconds. `first` is when stdout began,
// `others` how many cores other processes kept busy meanwhile.
export function run(command, { limit = 600, group = null } = {}) {
  const enter = group ? ["sh", "-c", 'echo $$ > "$0" && exec "$@"', group.processes] : [];
  const whole = [...wrapper, ...enter, "timeout", "-s", "KILL", String(limit), ...command];
  return new Promise((done, fail) => {
    const begin = seconds();
    const before = ticks();
    const child = spawn(whole[0], whole.slice(1), { stdio: ["ignore", "pipe", "pipe"] });
    const result = { stdout: "", stderr: "", first: null };
    child.stdout.on("data", (text) => {
      result.first ??= seconds() - begin;
      result.stdout += text;
    });
    child.stderr.on("data", (text) => (result.stderr += text));
    child.on("error", fail);
    child.on("close", (code) => {
      const elapsed = seconds() - begin;
      done({ ...result, code, seconds: elapsed, timed_out: elapsed >= limit, others: others(before, elapsed) });
    });
  });
}

// As run(), for a program that must succeed. While others use more than a tenth of a core it is
// repeated, `attempts` times at most, and the least disturbed run counts.
export async function run_undisturbed(command, { attempts = 1, ...options } = {}) {
  let best = null;
  for (let i = 0; i < attempts && !(best?.others <= kCalm); ++i) {
    const result = await run(command, options);
    if (result.code !== 0) {
      throw new Error(`${command.join(" ")}: exit code ${result.code}\n${result.stderr}`);
    }
    if (best === null || result.others < best.others) best = result;
  }
  return best;
}

// As run_undisturbed(), for a program that prints JSON.
export async function run_json(command, options) {
  const result = await run_undisturbed(command, options);
  return { ...JSON.parse(result.stdout), others: result.others };
}

// The control group of this process that limits memory: {folder, version}, or null.
function own_group() {
  for (const line of readFileSync("/proc/self/cgroup", "utf8").trim().split("\n")) {
    const [, controllers, path] = line.match(/^\d+:([^:]*):(.*)$/);
    if (controllers.split(",").includes("memory")) return { folder: join("/sys/fs/cgroup/memory", path), version: 1 };
    const unified = join("/sys/fs/cgroup", path);
    if (controllers === "" && existsSync(join(unified, "cgroup.controllers"))) return { folder: unified, version: 2 };
  }
  return null;
}

// A control group below this process's own that holds `bytes` at most, swap included; throws where
// none can be made. remove() it when its programs have ended.
export function memory_group(bytes) {
  const own = own_group();
  if (!own) throw new Error("no control group of this process limits memory");
  const folder = join(own.folder, `cadre-bench-${process.pid}`);
  const names =
    own.version === 1
      ? { limit: "memory.limit_in_bytes", swap: "memory.memsw.limit_in_bytes", swap_bytes: bytes }
      : { limit: "memory.max", swap: "memory.swap.max", swap_bytes: 0 };
  mkdirSync(folder);
  try {
    writeFileSync(join(folder, names.limit), String(bytes));
    if (existsSync(join(folder, names.swap))) writeFileSync(join(folder, names.swap), String(names.swap_bytes));
  } catch (error) {
    rmdirSync(folder);
    throw error;
  }
  return { processes: join(folder, "cgroup.procs"), remove: () => rmdirSync(folder) };
}
