"""Work done by several processes that train together, as torchrun would start them; also the script they run.

A job is some steps of a run (:func:`job`) or of an optimizer over odd shapes (:func:`odd_job`).
"""

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from optstudy import ending, optim
from optstudy.config import Model, RunConfig
from optstudy.errors import validate
from optstudy.optim.sharded import is_sharded, whole
from optstudy.roles import assign_roles
from optstudy.training import checkpoint
from optstudy.training.build import create_optimizer
from optstudy.training.model import Transformer
from optstudy.training.parallel import Ranks, joined
from optstudy.training.run import Run

ROOT = Path(__file__).parent.parent
STEPS = 12
"""Of a run: past the frozen recipes' estimates, with two of Sophia's in each half."""
HALF = STEPS // 2


def job(config: RunConfig, start: int = 0, stop: int = STEPS, **paths: Path) -> dict[str, Any]:
    """Steps ``start`` to ``stop`` of a run."""
    names = {name: str(path) for name, path in paths.items()}
    return {"config": config.model_dump(mode="json"), "start": start, "stop": stop, **names}


def work(job: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Do one job as one of the ranks."""
    if "recipe" in job:
        return steps_of_a_recipe(job, ranks)
    return steps_of_a_run(job, ranks) if "config" in job else steps_of_an_optimizer(job, ranks)


def recipe_job(name: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """Steps of a recipe on a model of these sizes, in float64, with drawn gradients."""
    return {"recipe": name, "model": sizes}


def steps_of_a_recipe(job: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Return roles, weights before and after five steps, and the gradients, all by name."""
    model = Transformer(validate(Model, job["model"]), seed=0).double()
    before = {name: p.detach().tolist() for name, p in model.named_parameters()}
    ranks.spread(model, model.blocks, "fsdp")
    optimizer = create_optimizer(job["recipe"], model, lr=1e-2)
    gradients: dict[str, list[Any]] = {name: [] for name in before}
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for name, p in model.named_parameters():
            g = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            gradients[name].append(g.tolist())
            p.grad = distribute_tensor(g, p.device_mesh, p.placements) if is_sharded(p) else g
        optimizer.step()
    after = {name: whole(p.detach()).tolist() for name, p in model.named_parameters()}
    return {"roles": assign_roles(model), "before": before, "gradients": gradients, "after": after}


def steps_of_a_run(job: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Return losses, gradient norms, the validation loss after them and what the probe measures."""
    run = Run(validate(RunConfig, job["config"]), torch.device("cpu"), ranks)
    if "load" in job:
        path = checkpoint.newest(Path(job["load"]))
        assert path is not None
        run.load_state_dict(checkpoint.read(path, torch.device("cpu"), mmap=True))
    steps = [run.step(step)[:2] for step in range(job["start"], job["stop"])]
    probed = run.probe()
    if "save" in job:
        state = run.state_dict()
        if ranks.first:
            Path(job["save"]).mkdir()
            checkpoint.save(Path(job["save"]), job["stop"], state)
        ranks.wait()
    return {
        "losses": [float(loss) for loss, _ in steps],
        "norms": [float(norm) for _, norm in steps],
        "val_loss": run.validation_loss(),
        "probed": probed,
        "state_bytes_per_param": run.footprint()["state_bytes_per_param"],
        "weights_sha256": run.weights_sha256(),
    }


SHAPES = ((9, 5), (3, 2), (9,), (6, 4, 5), (3, 1), (12, 2), ())
"""Fewer rows than processes, more rows than columns, blocks that begin anywhere, one dimension, three."""


def odd_job(name: str, shapes: Any = SHAPES, layout: str = "", **options: Any) -> dict[str, Any]:
    """Steps of an optimizer of this package over parameters of odd shapes, in float64."""
    return {"optimizer": name, "shapes": shapes, "layout": layout, "options": options}


def steps_of_an_optimizer(job: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Return weights and state after six steps, and one more from the state saved and loaded."""
    split = str(job["options"].get("second_moment", "")).startswith("split")
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    mesh = init_device_mesh("cpu", (ranks.size,)) if ranks.size > 1 else None

    def place(x: Tensor) -> Tensor:
        return x if mesh is None else distribute_tensor(x, mesh, [Shard(0) if x.ndim else Replicate()])

    parameters = [torch.nn.Parameter(place(draw(shape))) for shape in job["shapes"] if shape or not split]
    groups = {"layout": job["layout"]} if job["layout"] else {}

    def make() -> Any:
        cls = getattr(optim, job["optimizer"])
        return cls([{"params": parameters, **groups}], lr=0.1, **job["options"])

    optimizer = make()
    for step in range(7):
        if step == 6:
            saved = ranks.same(ranks.gather(optimizer.state_dict()))
            optimizer = make()
            optimizer.load_state_dict(saved)
        for parameter in parameters:
            parameter.grad = place(draw(parameter.shape) * 10 ** float(draw(())))
        optimizer.step()
        if step % 2 and hasattr(optimizer, "update_hessian"):
            optimizer.update_hessian()
    state = [
        {name: whole(x).double().flatten().tolist() for name, x in optimizer.state[p].items()}
        for p in parameters
    ]
    return {"weights": [whole(p.detach()).flatten().tolist() for p in parameters], "state": state}


def start(ranks: int, command: list[str], **environment: str) -> list[subprocess.Popen[str]]:
    """Start the ranks of one run as torchrun does; each has pipes for what it says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    python_path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **where, "PYTHONPATH": python_path, **environment}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def end(processes: list[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Wait for all; return their codes, and what each said on standard error."""
    said = [process.communicate()[1] for process in processes]
    return [process.returncode for process in processes], said


def together(
    ranks: int, jobs: list[dict[str, Any]], folder: Path, warnings: str = "error"
) -> list[dict[str, Any]]:
    """Do jobs in as many processes; return what came of each, which every rank must say alike."""
    if ranks == 1:
        return [work(job, Ranks()) for job in jobs]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    codes, said = end(start(ranks, ["-W", warnings, __file__, str(folder)]))
    assert codes == [0] * ranks, said
    first, *others = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
    assert all(other == first for other in others)
    return first


if __name__ == "__main__":
    with joined() as own:
        jobs = json.loads((Path(sys.argv[1]) / "jobs.json").read_text())
        results = [work(job, own) for job in jobs]
        (Path(sys.argv[1]) / f"{own.rank}.json").write_text(json.dumps(results))
    ending.end(0)
