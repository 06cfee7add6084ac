#!/usr/bin/python3
"""cadre's expert layer beside the usual loop over experts in PyTorch, same shapes, same machine.

Needs Debian's python3-torch and an OpenBLAS: on the reference BLAS that python3-torch brings along
the loop is ten times slower still. The loop runs on every OpenBLAS that is installed, with the
environment's OPENBLAS_* settings and without; its best counts. Exits 1 when cadre is less than 6
times as fast.

Debian's default OpenBLAS (libopenblas0-pthread) keeps threads of its own beside OpenMP's; the rarer
libopenblas0-openmp suits PyTorch better: the loop then reached 143 GFLOP/s with 64 experts where the
default had 46, and cadre 395.
"""
import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import time

TOKENS, HIDDEN, INNER, ACTIVE = 4096, 512, 256, 8
EXPERTS = (64, 256)
WANTED_RATIO = 6
# Gate, up and down product, each forward, by input and by weight.
FLOPS = 9 * 2 * TOKENS * ACTIVE * HIDDEN * INNER


def peer_rate(experts, steps=5):
    """GFLOP/s of forward and backward: a Parameter per expert and matrix, index_add of its tokens."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)

    def parameter(rows, columns):
        return nn.Parameter(torch.randn(rows, columns) * 0.02)

    router = parameter(experts, HIDDEN)
    gate = [parameter(INNER, HIDDEN) for _ in range(experts)]
    up = [parameter(INNER, HIDDEN) for _ in range(experts)]
    down = [parameter(HIDDEN, INNER) for _ in range(experts)]
    parameters = [router, *gate, *up, *down]
    x = torch.randn(TOKENS, HIDDEN, requires_grad=True)
    dy = torch.randn(TOKENS, HIDDEN)

    def step():
        for tensor in (*parameters, x):
            tensor.grad = None
        probs = functional.softmax(functional.linear(x, router), dim=1)
        weights, chosen = probs.topk(ACTIVE, dim=1)
        y = torch.zeros_like(x)
        for e in range(experts):
            token, slot = torch.where(chosen == e)
            if token.numel() == 0:
                continue
            rows = x[token]
            inner = functional.silu(functional.linear(rows, gate[e])) * functional.linear(rows, up[e])
            out = functional.linear(inner, down[e]) * weights[token, slot].unsqueeze(1)
            y.index_add_(0, token, out)
        y.backward(dy)

    step()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return FLOPS / statistics.median(times) * 1e-9


def peer_rates(blas_folders):
    """{experts: best GFLOP/s} over BLAS libraries and settings, each in a process of its own."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    environments = {"": plain}
    if len(plain) < len(os.environ):
        environments[" with the environment's OPENBLAS_*"] = dict(os.environ)
    best = {}
    for folder in blas_folders:
        for name, environment in environments.items():
            for experts in EXPERTS:
                run = subprocess.run([sys.executable, __file__, "--peer", str(experts)], check=True,
                                     env=environment | {"LD_LIBRARY_PATH": folder},
                                     stdout=subprocess.PIPE, text=True)
                rate = float(run.stdout)
                blas = os.path.basename(folder)
                print(f"loop over {experts:3} experts, {blas}{name}: {rate:.1f} GFLOP/s", flush=True)
                best[experts] = max(best.get(experts, 0), rate)
    return best


def our_rates(program):
    """{experts: GFLOP/s} of cadre's benchmark."""
    choice = "|".join(map(str, EXPERTS))
    run = subprocess.run([program, f"--benchmark_filter=ExpertLayer/({choice})/",
                          "--benchmark_format=json"], check=True, capture_output=True, text=True)
    results = json.loads(run.stdout)["benchmarks"]
    return {int(result["name"].split("/")[1]): result["GFLOP/s"] for result in results}


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("program", nargs="?", default=f"{root}/build/release/bin/expert_bench")
    arguments.add_argument("--blas", action="append", metavar="FOLDER",
                           help="holds a libblas.so.3 (default: every OpenBLAS of /usr/lib)")
    arguments.add_argument("--peer", type=int, metavar="EXPERTS", help="run the loop only")
    options = arguments.parse_args()
    if options.peer:
        print(peer_rate(options.peer))
        return 0
    folders = options.blas or [os.path.dirname(library) for library in
                               sorted(glob.glob("/usr/lib/*/openblas-*/libblas.so.3"))]
    if not folders:
        sys.exit("no OpenBLAS found: apt-get install libopenblas0-pthread")
    peer, ours = peer_rates(folders), our_rates(options.program)
    print(f"\n{TOKENS} tokens, hidden {HIDDEN}, inner {INNER}, top-{ACTIVE}, forward and backward")
    print("experts  loop GFLOP/s  cadre GFLOP/s  ratio")
    for experts in EXPERTS:
        ratio = ours[experts] / peer[experts]
        print(f"{experts:7}  {peer[experts]:12.1f}  {ours[experts]:13.1f}  {ratio:5.1f}")
    return 0 if all(ours[e] >= WANTED_RATIO * peer[e] for e in EXPERTS) else 1


if __name__ == "__main__":
    sys.exit(main())
