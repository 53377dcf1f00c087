# SPDX-License-Identifier: Apache-2.0
"""Times peer-pytorch and product-key-memory and prints their figures as JSON for bench_peer.

peer-pytorch: softmax scores over the K experts of a head (its default is ReLU and one expert a
head), its embeddings with dense gradients, as it makes them. Adam is torch's: the default one, and
the fused one, its best. product-key-memory: values only, no experts, at the same N, H, K and d_key.
Cannot show: the same function as ours (weights and norms are each package's own).
"""

import argparse
import json
import sys
import time
import types

import torch

# product-key-memory imports this for an option that is off here; the package would bring Triton.
coordinate_descent = types.ModuleType("colt5_attention")
coordinate_descent.topk = None
sys.modules["colt5_attention"] = coordinate_descent

from PEER_pytorch import PEER  # noqa: E402
from product_key_memory import PKM  # noqa: E402


def seconds_of(call, args):
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    call()
    seconds = []
    for _ in range(args.repetitions):
        start = clock()
        call()
        seconds.append(clock() - start)
    return seconds


def measure(layer, name, sizes, args):
    rows = []

    def add(what, tokens, call):
        seconds = seconds_of(call, args)
        rows.append({"package": name, "what": what, "tokens": tokens, "seconds": seconds})
        print(f"peers: {name}, {what}, {tokens} tokens: {min(seconds):.4f} s", file=sys.stderr)

    batches = {t: torch.randn(1, t, args.width) for t in sizes}
    for tokens, x in batches.items():
        with torch.no_grad():
            add("forward", tokens, lambda: layer(x))

    def backward(x):
        layer.zero_grad(set_to_none=True)
        x = x.detach().requires_grad_()
        layer(x).backward(torch.ones_like(x))

    for tokens, x in batches.items():
        add("forward + backward", tokens, lambda: backward(x))
    layer.zero_grad(set_to_none=True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3, fused=True)

    def step(x):
        backward(x)
        optimizer.step()

    for tokens, x in batches.items():
        add("forward + backward + fused Adam", tokens, lambda: step(x))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--smoke", action="store_true", help="small sizes, an instant")
    args = parser.parse_args()
    args.width = 256
    side, sizes = 1024, (128, 1024)
    if args.smoke:
        side, sizes, args.repetitions = 32, (2, 16), 1
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)

    rows = []
    for name, make in (
        ("peer-pytorch 0.2.2",
         lambda: PEER(args.width, heads=8, num_experts=side * side, num_experts_per_head=16,
                      dim_key=64, non_competing_scores=False)),
        ("product-key-memory 0.3.0",
         lambda: PKM(args.width, heads=8, num_keys=side, topk=16, dim_head=64)),
    ):
        layer = make()
        rows += measure(layer, name, sizes, args)
        del layer
    json.dump({"torch": torch.__version__, "threads": args.threads, "clock": args.clock,
               "rows": rows}, sys.stdout)


if __name__ == "__main__":
    main()
