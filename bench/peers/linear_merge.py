#!/usr/bin/python3
"""Linear merge of two safetensors models with PyTorch, tensor by tensor: mapped, averaged in float32,
written in the type they have. linear_merge.py A B OUT, folders with one model.safetensors each; prints
the seconds, the best of --repeat, with and without waiting for the disk."""

import argparse
import json
import mmap
import os
import time

import torch

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


class Model:
    def __init__(self, folder):
        self.file = open(os.path.join(folder, "model.safetensors"), "rb")
        self.map = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_COPY)
        length = int.from_bytes(self.map[:8], "little")
        self.head = self.map[:8 + length]
        self.tensors = {name: t for name, t in json.loads(self.head[8:]).items()
                        if name != "__metadata__"}

    def read(self, name):
        tensor = self.tensors[name]
        begin, end = tensor["data_offsets"]
        dtype = TYPES[tensor["dtype"]]
        size = torch.empty((), dtype=dtype).element_size()
        return torch.frombuffer(self.map, dtype=dtype, count=(end - begin) // size,
                                offset=len(self.head) + begin)


def merge(a, b, out):
    with open(out, "wb") as file:
        file.write(a.head)
        for name in sorted(a.tensors, key=lambda n: a.tensors[n]["data_offsets"]):
            x, y = a.read(name), b.read(name)
            mixed = (0.5 * x.float() + 0.5 * y.float()).to(x.dtype)
            file.write(memoryview(mixed.view(torch.int16 if x.element_size() == 2 else torch.int32)
                                  .numpy()))
        file.flush()
        written = time.perf_counter()
        os.fsync(file.fileno())
    return written


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("out")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    best = best_written = float("inf")
    for _ in range(options.repeat):
        began = time.perf_counter()
        written = merge(Model(options.a), Model(options.b), options.out)
        best = min(best, time.perf_counter() - began)
        best_written = min(best_written, written - began)
    print(json.dumps({"seconds": round(best, 3), "seconds_before_sync": round(best_written, 3)}))


main()
