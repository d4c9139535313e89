"""AtomAI's and pyroVED's rotationally invariant autoencoders, in an environment of their own (``.venv-bench``).

The functions are called by the benchmark; the file is also the script that runs there:

    .venv-bench/bin/python benchmarks/peers.py PEER INPUT.npz OUTPUT.npz EPOCHS THREADS
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HOME = Path(__file__).parents[1] / ".venv-bench"
NAMES = {"atomai": "AtomAI", "pyroved": "pyroVED"}
JOINT = {"jivae": "pyroVED", "ssivae": "pyroVED"}
BATCH, HIDDEN = 100, 128


def installed():
    return (HOME / "bin" / "python").exists()


def trained(peer, x, other, epochs, threads=1, **options):
    """Train on x (n, D, D) and encode others: ``seconds`` of its own fit, ``angle``, ``understood``, ``name``; of joint
    models, which are told how many ``classes`` and whether x is ``turned``, or the ``labels`` of some x (-1: none), the
    ``class`` of every x instead.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(given, x=x, other=other, **options)
        command = [HOME / "bin" / "python", Path(__file__).resolve(), peer, given, result, str(epochs), str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MPLBACKEND": "Agg"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{(NAMES | JOINT)[peer]} failed:\n{done.stderr[-2000:]}")
        with np.load(result) as found:
            return {key: found[key] for key in found.files} | {"name": (NAMES | JOINT)[peer]}


def played(peer, kind, n, epochs):
    """A peer trained on a card set and applied to other cards; kept, because it takes minutes. None without peers."""
    if not installed() or epochs < 1:
        return None
    kept = HOME / "played" / f"{peer}-{kind}-{n}-{epochs}.npz"
    if not kept.exists():
        from napari_rvae.samples import cards

        x, other = cards(kind, n, seed=0)[0], cards(kind, 500, seed=1000)[0]
        found = trained(peer, x, other, epochs)
        kept.parent.mkdir(exist_ok=True)
        np.savez(kept, **found)
    with np.load(kept) as found:
        return {key: found[key] for key in found.files}


def _atomai(x, other, epochs, _):
    import atomai
    import torch
    from atomai.utils import transform_coordinates

    model = atomai.models.rVAE(
        x.shape[1:], latent_dim=2, translation=True, numhidden_encoder=HIDDEN, numhidden_decoder=HIDDEN
    )
    start = time.perf_counter()
    model.fit(x, training_cycles=epochs, batch_size=BATCH, rotation_prior=np.pi / 2, loss="mse")
    seconds = time.perf_counter() - start
    with torch.no_grad():  # its decode() does not take what its encode() gives
        z = model.encoder_net(torch.as_tensor(other))[0]
        grid = model.x_coord.expand(len(z), *model.x_coord.shape)
        grid = transform_coordinates(grid, z[:, 0], (z[:, 1:3] * model.dx_prior)[:, None])
        understood = model.decoder_net(grid, z[:, 3:])
    return {"seconds": seconds, "angle": z[:, 0].numpy(), "understood": understood.numpy().reshape(other.shape)}


def _pyroved(x, other, epochs, _):
    import pyroved
    import torch
    from pyroved.utils import transform_coordinates

    low, high = x.min(), x.max()  # it takes images between 0 and 1
    loader = pyroved.utils.init_dataloader(torch.as_tensor((x - low) / (high - low)), batch_size=BATCH)
    model = pyroved.models.iVAE(
        x.shape[1:], 2, ["r", "t"], hidden_dim_e=[HIDDEN, HIDDEN], hidden_dim_d=[HIDDEN, HIDDEN], dx_prior=0.1
    )
    trainer = pyroved.trainers.SVItrainer(model)
    start = time.perf_counter()
    for _ in range(epochs):
        trainer.step(loader)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        z = model.encode(torch.as_tensor(((other - low) / (high - low)).clip(0, 1)))[0]
        angle, shift, scale, content = model.split_latent(z)
        grid = model.grid.expand(len(z), *model.grid.shape)
        grid = transform_coordinates(grid, angle, (shift * model.t_prior)[:, None], scale)
        understood = model.decoder(grid, content)
    understood = understood.numpy().reshape(other.shape) * (high - low) + low
    return {"seconds": seconds, "angle": angle.numpy(), "understood": understood}


def _jivae(x, _, epochs, given):
    import pyroved
    import torch

    invariances = ["r"] if given["turned"] else None
    low, high = x.min(), x.max()  # it takes images between 0 and 1
    x = torch.as_tensor((x - low) / (high - low))
    loader = pyroved.utils.init_dataloader(x, batch_size=BATCH)
    model = pyroved.models.jiVAE(x.shape[1:], 2, int(given["classes"]), invariances)
    trainer = pyroved.trainers.SVItrainer(model, enumerate_parallel=True)
    weight = np.concatenate([np.full(10, 40.0), np.linspace(40, 3, 40)])  # the schedule of its documentation
    start = time.perf_counter()
    for epoch in range(epochs):
        trainer.step(loader, scale_factor=[float(weight[min(epoch, 49)]), 3.0])
    seconds = time.perf_counter() - start
    with torch.no_grad():
        return {"seconds": seconds, "class": model.encode(x)[2].numpy()}


def _ssivae(x, _, epochs, given):
    import pyroved
    import torch

    labels, known = torch.as_tensor(given["labels"]), torch.as_tensor(given["labels"] >= 0)
    low, high = x.min(), x.max()  # it takes images between 0 and 1
    side, x = x.shape[1:], torch.as_tensor((x - low) / (high - low)).flatten(1)
    told = torch.nn.functional.one_hot(labels[known]).float()
    model = pyroved.models.ssiVAE(side, 2, told.shape[1], ["r", "t"], dx_prior=0.1)
    trainer = pyroved.trainers.auxSVItrainer(model, task="classification")
    unknown = pyroved.utils.init_dataloader(x[~known], batch_size=BATCH)
    shown = pyroved.utils.init_dataloader(x[known], told, batch_size=BATCH)
    start = time.perf_counter()
    for _ in range(epochs):
        trainer.step(unknown, shown, aux_loss_multiplier=50)
    return {"seconds": time.perf_counter() - start, "class": model.classifier(x).numpy()}


def main():
    from unittest.mock import MagicMock

    for name in ("torchvision", "torchvision.models", "torchvision.utils"):
        sys.modules[name] = MagicMock()  # used for pictures and for networks that are not asked for here
    import torch

    peer, given, result, epochs, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    with np.load(given) as data:
        arrays = {name: data[name] for name in data.files}
    x, other = (arrays[name].astype(np.float32) for name in ("x", "other"))
    run = {"atomai": _atomai, "pyroved": _pyroved, "jivae": _jivae, "ssivae": _ssivae}[peer]
    np.savez(result, **run(x, other, int(epochs), arrays))


if __name__ == "__main__":
    main()
