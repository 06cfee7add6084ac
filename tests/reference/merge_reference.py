#!/usr/bin/python3
"""Plain merges of small tensors, written from the methods' definitions with lists and float64 only:
what cadre/reshape/merge_test.cpp compares with. Run it to write merge_reference.json anew."""

import json
import math
import os
import struct


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def numbers(count, seed):
    """A linear congruential generator: values in (-1, 1) that float32 holds exactly."""
    state, out = seed, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        out.append(f32((state >> 8) / 2**22 - 1))
    return out


ROWS, COLUMNS = 6, 5
N = ROWS * COLUMNS
A, B, C, BASE = (numbers(N, s) for s in (1, 2, 3, 4))
# Near the base, as fine-tuned models are.
A, B, C = ([f32(b + 0.1 * x) for x, b in zip(m, BASE)] for m in (A, B, C))
FA, FB = ([abs(x) for x in numbers(N, s)] for s in (5, 6))


def dot(x, y):
    return math.fsum(a * b for a, b in zip(x, y))


def norm(x):
    return math.sqrt(dot(x, x))


def minus(x, y):
    return [a - b for a, b in zip(x, y)]


def mix(pairs):
    return [math.fsum(w * x[i] for w, x in pairs) for i in range(len(pairs[0][1]))]


def linear(models, weights, normalize=True):
    total = sum(weights) if normalize else 1.0
    return [v / total for v in mix(list(zip(weights, models)))]


def slerp(t, x, y):
    cosine = dot(x, y) / (norm(x) * norm(y))
    if abs(cosine) > 0.9995:
        return mix([(1 - t, x), (t, y)])
    angle = math.acos(cosine)
    return mix([(math.sin((1 - t) * angle) / math.sin(angle), x),
                (math.sin(t * angle) / math.sin(angle), y)])


def nuslerp_rows(t, x, y):
    out = []
    for r in range(ROWS):
        a, b = (v[r * COLUMNS:(r + 1) * COLUMNS] for v in (x, y))
        angle = math.acos(dot(a, b) / (norm(a) * norm(b)))
        out += mix([(math.sin((1 - t) * angle) / math.sin(angle), a),
                    (math.sin(t * angle) / math.sin(angle), b)])
    return out


def multislerp(models, weights, base=None):
    if base:
        models = [minus(m, base) for m in models]
    weights = [w / sum(weights) for w in weights]
    units = [[v / (norm(m) + 1e-8) for v in m] for m in models]
    mean = mix(list(zip(weights, units)))
    mean = [v / norm(mean) for v in mean] if norm(mean) else mean
    tangents = [minus(u, [dot(u, mean) * v for v in mean]) for u in units]
    tangent = mix(list(zip(weights, tangents)))
    angle = norm(tangent) + 1e-8
    out = mix([(math.cos(angle), mean), (math.sin(angle) / angle, tangent)])
    length = sum(w * norm(m) for w, m in zip(weights, models))
    out = [length * v for v in out]
    return [o + b for o, b in zip(out, base)] if base else out


def karcher(models, rounds=10, tol=1e-5):
    n = len(models)
    units = [[v / norm(m) for v in m] for m in models]
    mean = mix([(1 / n, u) for u in units])
    mean = [v / norm(mean) for v in mean]
    for _ in range(rounds):
        tangent = [0.0] * len(mean)
        for u in units:
            cosine = max(-1.0, min(1.0, dot(mean, u)))
            angle = math.acos(cosine)
            if angle >= tol:
                step = minus(u, [cosine * v for v in mean])
                tangent = mix([(1, tangent), (angle / math.sin(angle) / n, step)])
        length = norm(tangent)
        if length < tol:
            break
        mean = mix([(math.cos(length), mean), (math.sin(length) / length, tangent)])
        mean = [v / norm(mean) for v in mean]
    return [v * sum(norm(m) for m in models) / n for v in mean]


def keep_ranks(delta, first, last):
    """Zeroes all but those of rank [first, last) by falling magnitude; equal ones by index."""
    order = sorted(range(len(delta)), key=lambda i: (-abs(delta[i]), i))
    kept = set(order[first:last])
    return [d if i in kept else 0.0 for i, d in enumerate(delta)]


def task_vectors(models, weights, thin=None, elect=False, normalize=False, rescale=None, lam=1.0):
    deltas = []
    for m in models:
        delta = [f32(v) for v in minus(m, BASE)]
        thinned = thin(delta) if thin else delta
        if rescale == "l1":
            scale = sum(map(abs, delta)) / sum(map(abs, thinned))
        elif rescale == "l2":
            scale = norm(delta) / norm(thinned)
        elif rescale == "linf":
            scale = max(map(abs, delta)) / max(map(abs, thinned))
        else:
            scale = 1
        deltas.append([scale * v for v in thinned])
    out = []
    for i in range(N):
        parts = [(w, w * d[i]) for w, d in zip(weights, deltas)]
        if elect:
            sign = 1 if sum(p for _, p in parts) >= 0 else -1
            parts = [(w, p) for w, p in parts if (p > 0) - (p < 0) == sign]
        total = sum(p for _, p in parts)
        divisor = sum(w for w, _ in parts)
        if normalize and divisor:
            total /= divisor
        out.append(BASE[i] + lam * total)
    return out


def model_stock(models):
    offsets = [minus(m, BASE) for m in models]
    n = len(models)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    cosine = sum(dot(offsets[i], offsets[j]) / (norm(offsets[i]) * norm(offsets[j]))
                 for i, j in pairs) / len(pairs)
    t = n * cosine / (1 + (n - 1) * cosine)
    return [b + t * o for b, o in zip(BASE, mix([(1 / n, o) for o in offsets]))]


def nearswap(t, x):
    out = []
    for v, b in zip(x, BASE):
        share = min(1.0, t / abs(b - v)) if b != v else 1.0
        out.append(share * v + (1 - share) * b)
    return out


def ram(models, epsilon, r=0.0, alpha=0.2):
    deltas = [minus(m, BASE) for m in models]
    moved = [[abs(v) > epsilon for v in d] for d in deltas]
    counts = [sum(m[i] for m in moved) for i in range(N)]
    scales = []
    for m in moved:
        shared = sum(m[i] and counts[i] > 1 for i in range(N))
        unique = sum(m[i] and counts[i] == 1 for i in range(N))
        scales.append(1 + r * min(max(shared / max(unique, epsilon), 0), alpha))
    out = []
    for i in range(N):
        total = 0.0
        for d, m, s in zip(deltas, moved, scales):
            if m[i]:
                total += d[i] / counts[i] if counts[i] > 1 else s * d[i]
        out.append(BASE[i] + total)
    return out


def sce(models, top):
    deltas = [minus(m, BASE) for m in models]
    n = len(models)
    spread = []
    for i in range(N):
        mean = sum(d[i] for d in deltas) / n
        spread.append(sum((d[i] - mean)**2 for d in deltas) / n)
    if top < 1:
        count = int(top * sum(v > 0 for v in spread))
        kept = set(sorted(range(N), key=lambda i: (-spread[i], i))[:count])
        deltas = [[v if i in kept else 0.0 for i, v in enumerate(d)] for d in deltas]
    weights = [dot(d, d) for d in deltas]
    weights = [w / sum(weights) for w in weights]
    out = []
    for i in range(N):
        sign = 1 if sum(d[i] for d in deltas) >= 0 else -1
        parts = [(w, d[i]) for w, d in zip(weights, deltas) if (d[i] > 0) - (d[i] < 0) == sign]
        divisor = sum(w for w, _ in parts)
        out.append(BASE[i] + (sum(w * v for w, v in parts) / divisor if divisor else 0.0))
    return out


def fusion(x):
    def softmax(row):
        top = max(row)
        powers = [math.exp(v - top) for v in row]
        return [p / sum(powers) + 1e-8 for p in powers]

    importance = []
    for r in range(ROWS):
        row, base = (v[r * COLUMNS:(r + 1) * COLUMNS] for v in (x, BASE))
        divergence = sum(p * math.log(p / q) for p, q in zip(softmax(row), softmax(base)))
        importance += [abs(v - b) * divergence for v, b in zip(row, base)]
    ordered = sorted(importance)
    q1, q2, q3 = (ordered[int(q * (N - 1))] for q in (0.25, 0.5, 0.75))
    threshold = q2 + 1.5 * (q3 - q1)
    return [v if s >= threshold else b for v, b, s in zip(x, BASE, importance)]


def document(method, models, parameters=None, base=True):
    out = {"merge_method": method, "models": models, "dtype": "float32"}
    if base:
        out["base_model"] = "BASE"
    if parameters:
        out["parameters"] = parameters
    return out


def model(name, **parameters):
    return {"model": name, "parameters": parameters} if parameters else {"model": name}


def cases():
    three = [model("A", weight=0.5), model("B", weight=0.3), model("C", weight=0.4)]
    weights = [0.5, 0.3, 0.4]
    all3 = [A, B, C]

    def top(share):
        return lambda d: keep_ranks(d, 0, int(share * N))

    def crumbs(share, gamma):
        return lambda d: keep_ranks(d, int(gamma * N), int(gamma * N) + int(share * N))

    yield document("linear", three, base=False), linear(all3, weights)
    yield document("linear", three, {"normalize": False}, False), linear(all3, weights, False)
    yield document("slerp", [model("A")], {"t": 0.3}), slerp(0.3, BASE, A)
    pair = [model("A", weight=1.0), model("B", weight=3.0)]
    yield document("nuslerp", pair, base=False), slerp(0.75, A, B) if abs(
        dot(A, B) / (norm(A) * norm(B))) <= 0.9995 else None
    yield document("nuslerp", pair), [b + v for b, v in zip(
        BASE, slerp(0.75, minus(A, BASE), minus(B, BASE)))]
    yield document("nuslerp", pair, {"nuslerp_flatten": False}, False), nuslerp_rows(0.75, A, B)
    yield document("multislerp", three, base=False), multislerp(all3, weights)
    yield document("multislerp", three), multislerp(all3, weights, BASE)
    yield document("karcher", [model(m) for m in "ABC"], base=False), karcher(all3)
    yield document("task_arithmetic", three, {"lambda": 0.7}), task_vectors(
        all3, weights, lam=0.7)
    yield document("ties", three, {"density": 0.4}), task_vectors(
        all3, weights, top(0.4), True, True)
    yield document("ties", three, {"density": 0.4, "rescale": True, "rescale_norm": "l2"}), \
        task_vectors(all3, weights, top(0.4), True, True, "l2")
    yield document("ties", three, {"density": 0.4, "rescale": True, "rescale_norm": "linf"}), \
        task_vectors(all3, weights, top(0.4), True, True, "linf")
    yield document("breadcrumbs", three, {"density": 0.5, "gamma": 0.1}), task_vectors(
        all3, weights, crumbs(0.5, 0.1))
    yield document("breadcrumbs_ties", three,
                   {"density": 0.5, "gamma": 0.1, "rescale": True}), task_vectors(
        all3, weights, crumbs(0.5, 0.1), True, False, "l1")
    yield document("sce", [model(m) for m in "ABC"], {"select_topk": 0.5}), sce(all3, 0.5)
    yield document("sce", [model(m) for m in "ABC"]), sce(all3, 1.0)
    yield document("ram", [model(m) for m in "ABC"], {"epsilon": 0.05}), ram(all3, 0.05)
    yield document("ramplus_tl", [model(m) for m in "ABC"], {"epsilon": 0.05}), ram(
        all3, 0.05, 0.1, 0.2)
    yield document("model_stock", [model(m) for m in "ABC"]), model_stock(all3)
    yield document("nearswap", [model("A")], {"t": 0.03}), nearswap(0.03, A)
    yield document("arcee_fusion", [model("A")]), fusion(A)
    fisher = [dict(model("A", weight=0.5), fisher="FA"), dict(model("B", weight=0.3), fisher="FB")]
    yield document("fisher", fisher, base=False), [
        (0.5 * fa * a + 0.3 * fb * b) / (0.5 * fa + 0.3 * fb) if 0.5 * fa + 0.3 * fb else
        (0.5 * a + 0.3 * b) / 0.8 for a, b, fa, fb in zip(A, B, FA, FB)]
    yield document("passthrough", [model("A")], {"scale": 0.5}, False), [0.5 * a for a in A]


def main():
    models = {"A": A, "B": B, "C": C, "BASE": BASE, "FA": FA, "FB": FB}
    done = [{"document": d, "expected": e} for d, e in cases() if e is not None]
    path = os.path.join(os.path.dirname(__file__), "merge_reference.json")
    with open(path, "w") as out:
        json.dump({"shape": [ROWS, COLUMNS], "models": models, "cases": done}, out)
        out.write("\n")


main()
