# SPDX-License-Identifier: Apache-2.0
"""Runs one strategy of Avalanche on one of Perennial's protocols; prints one JSON object.

The settings are those of continual/protocols/*.json: the same files, scaling, network, optimizer,
batches and passes. The accuracy is the mean over the test sets of all experiences after the last.
"""

import argparse
import gzip
import json
import pathlib
import struct
import statistics
import time

import torch
import torch.nn.functional as F
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset as tensor_dataset
from avalanche.models import SimpleMLP
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import (AGEM, DER, ER_ACE, EWC, GDumb, LwF, Naive, Replay,
                                           SynapticIntelligence)
from avalanche.training.supervised import Cumulative, JointTraining

MEAN, DEVIATION = 0.2860, 0.3530  # of Fashion-MNIST, pixels in [0, 1]

PROTOCOLS = {
    "split-class": dict(hidden=400, epochs=4, batch=128, optimizer="adam", lr=1e-3),
    "permuted": dict(hidden=256, epochs=1, batch=64, optimizer="sgd", lr=0.1),
    "rotated": dict(hidden=256, epochs=1, batch=64, optimizer="sgd", lr=0.1),
}


def read_idx(folder, name):
    for path in (folder / f"{name}.gz", folder / name):
        if path.exists():
            raw = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
            dims = raw[3]
            shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
            return torch.frombuffer(bytearray(raw[4 + 4 * dims :]), dtype=torch.uint8).view(shape)
    raise SystemExit(f"rivals: there is no {name}[.gz] in {folder}")


def load(folder, kind):
    x = read_idx(folder, f"{kind}-images-idx3-ubyte").float() / 255
    return (x - MEAN) / DEVIATION, read_idx(folder, f"{kind}-labels-idx1-ubyte").long()


def rotate(x, degrees):
    """Bilinear; the corners get the background."""
    if degrees == 0:
        return x
    a = torch.tensor(degrees * torch.pi / 180)
    theta = torch.tensor([[torch.cos(a), -torch.sin(a), 0], [torch.sin(a), torch.cos(a), 0]])
    grid = F.affine_grid(theta[None].expand(len(x), -1, -1), (len(x), 1, 28, 28), align_corners=False)
    background = -MEAN / DEVIATION
    return F.grid_sample((x - background)[:, None], grid, align_corners=False)[:, 0] + background


def experiences(protocol, folder, seed, limit):
    """Pairs of train and test data, flat."""
    train, test = load(folder, "train"), load(folder, "t10k")
    draws = torch.Generator().manual_seed(seed)

    def some(x, y, n):
        keep = torch.randperm(len(y), generator=draws)[:n]
        return x[keep], y[keep]

    for e in range(5 if protocol == "split-class" else 10):
        if protocol == "split-class":
            pick = lambda x, y: (x[(y // 2) == e], y[(y // 2) == e])
            a, b = some(*pick(*train), limit or 60000), pick(*test)
        elif protocol == "permuted":
            order = torch.randperm(784, generator=draws)
            move = lambda x, y: (x.flatten(1)[:, order], y)
            a, b = move(*some(*train, limit or 20000)), move(*test)
        else:
            x, y = some(*train, limit or 20000)
            a, b = (rotate(x, 18 * e), y), (rotate(test[0], 18 * e), test[1])
        yield tuple((x.flatten(1).contiguous(), y) for x, y in (a, b))


def strategies(kind, model, optimizer, common, batch):
    """By the names that the protocols use."""
    base = dict(model=model, optimizer=optimizer, criterion=torch.nn.CrossEntropyLoss(), **common)
    name, _, size = kind.partition("-")
    memory = int(size) if size else None
    make = {
        "naive": lambda: Naive(**base),
        "joint": lambda: JointTraining(**base),
        "cumulative": lambda: Cumulative(**base),
        "ewc": lambda: EWC(ewc_lambda=1.0, **base),
        "si": lambda: SynapticIntelligence(si_lambda=1.0, **base),
        "lwf": lambda: LwF(alpha=1.0, temperature=2.0, **base),
        "er": lambda: Replay(mem_size=memory, **base),
        "er_ace": lambda: ER_ACE(mem_size=memory, batch_size_mem=batch, **base),
        "der": lambda: DER(mem_size=memory, batch_size_mem=batch, alpha=0.5, beta=0.0, **base),
        "der++": lambda: DER(mem_size=memory, batch_size_mem=batch, alpha=0.5, beta=0.5, **base),
        "gdumb": lambda: GDumb(mem_size=memory, **base),
        "agem": lambda: AGEM(patterns_per_exp=250, sample_size=256, **base),
    }
    if name not in make:
        raise SystemExit(f"rivals: unknown strategy '{kind}'; there are {', '.join(make)}")
    return make[name]()


def accuracy(model, data):
    x, y = data
    model.eval()
    with torch.no_grad():
        return (model(x)[:, :10].argmax(1) == y).float().mean().item()


def print_table(file):
    rows = {}
    for line in file.read_text().splitlines():
        run = json.loads(line)
        rows.setdefault((run["protocol"], run["strategy"]), []).append(run)
    print("| protocol | strategy | seeds | accuracy, % | sd | samples/s |\n|---|---|---:|---:|---:|---:|")
    for (protocol, strategy), runs in rows.items():
        acc = [100 * run["acc"] for run in runs]
        sd = f"{statistics.stdev(acc):.2f}" if len(acc) > 1 else ""
        speed = statistics.median(run["samples_per_second"] for run in runs)
        print(f"| {protocol} | {strategy} | {len(acc)} | {statistics.mean(acc):.2f} | {sd} | {speed:,.0f} |")


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--table", type=pathlib.Path, help="print a table of this file's runs instead")
    flags.add_argument("--protocol", choices=PROTOCOLS)
    flags.add_argument("--strategy", help="as naive, joint, er-500")
    flags.add_argument("--data", type=pathlib.Path, default="/usr/share/datasets/fashion-mnist")
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--limit", type=int, default=0, help="images of an experience; 0: the protocol's")
    flags.add_argument("--drop", type=float, default=0.0, help="dropout of the network")
    flags.add_argument("--threads", type=int, default=1)
    args = flags.parse_args()
    if args.table:
        return print_table(args.table)
    if not args.protocol or not args.strategy:
        flags.error("--protocol and --strategy are needed")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    settings = PROTOCOLS[args.protocol]
    data = list(experiences(args.protocol, args.data, args.seed, args.limit))
    benchmark = benchmark_from_datasets(
        train=[tensor_dataset(*a, task_labels=0) for a, _ in data],
        test=[tensor_dataset(*b, task_labels=0) for _, b in data])
    model = SimpleMLP(num_classes=10, input_size=784, hidden_size=settings["hidden"], hidden_layers=2,
                      drop_rate=args.drop)
    optimizer = (torch.optim.Adam if settings["optimizer"] == "adam" else torch.optim.SGD)(
        model.parameters(), lr=settings["lr"])
    common = dict(train_mb_size=settings["batch"], train_epochs=settings["epochs"], eval_mb_size=1000,
                  evaluator=EvaluationPlugin(loggers=[]))
    strategy = strategies(args.strategy, model, optimizer, common, settings["batch"])
    seconds = []
    start = time.perf_counter()
    if args.strategy == "joint":
        strategy.train(benchmark.train_stream)
        seconds.append(time.perf_counter() - start)
    else:
        for experience in benchmark.train_stream:
            begin = time.perf_counter()
            strategy.train(experience)
            seconds.append(time.perf_counter() - begin)
    row = [accuracy(model, b) for _, b in data]
    samples = sum(len(a[1]) for a, _ in data) * settings["epochs"]
    print(json.dumps({
        "protocol": args.protocol, "strategy": args.strategy, "seed": args.seed, "drop": args.drop,
        "acc": sum(row) / len(row), "row": row, "seconds": seconds,
        "samples_per_second": samples / sum(seconds)}))


if __name__ == "__main__":
    main()
