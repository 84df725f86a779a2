"""Starts, connects and synchronises several processes that train one classifier.

On SLURM each task of the job is one of them, and submitit's TorchDistributedEnvironment says which.
Elsewhere the process that is to train starts them all on its machine and waits for them.
"""

import contextlib
import logging
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import FileStore, Store, TCPStore
from torch.multiprocessing.spawn import ProcessException, spawn

from jobs.atomic import temporary_folder
from jobs.errors import TaskFailedError
from jobs.processes import interrupt

_REASON = "reason"  # the file that passes on the first error
_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Group:
    """The processes of one training, which share each batch; this one alone by default."""

    rank: int = 0  # of this process, 0 <= rank < num_processes
    num_processes: int = 1

    def sizes(self, num_images: int) -> list[int]:
        """Images of a batch for each process; the first get one more where it does not come out even."""
        small, larger = divmod(num_images, self.num_processes)
        return [small + (rank < larger) for rank in range(self.num_processes)]

    def share(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch."""
        return torch.split(batch, self.sizes(len(batch)))[self.rank]

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait_for_all(self) -> None:
        """Wait for all processes."""
        if self.num_processes > 1:
            torch.distributed.barrier()

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.num_processes > 1:
            torch.distributed.all_reduce(values)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether a flag is set in any process; all processes get the same answer."""
        if self.num_processes == 1:
            return flag
        return bool(self.summed(torch.tensor(float(flag), device=device)).item())

    def replicated(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module, whose gradients are averaged over all processes from now on."""
        if self.num_processes == 1:
            return module
        device_ids = [torch.cuda.current_device()] if device.type == "cuda" else None
        replica = nn.parallel.DistributedDataParallel(module, device_ids=device_ids)
        # Statistics are copied after each step (``copy_buffers``), since the next one begins with an attack.
        # Set here, since the argument's name is not the same in all versions of torch.
        replica.broadcast_buffers = False
        return replica

    def copy_buffers(self, module: nn.Module) -> None:
        """Give all processes the first one's running statistics, as one replicated model has them."""
        if self.num_processes == 1:
            return
        buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        torch.distributed.broadcast(flat, src=0)
        parts = torch.split(flat, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))


@contextlib.contextmanager
def scheduled_group(num_processes: int, device: torch.device) -> Iterator[Group]:
    """Join the other tasks of this SLURM job.

    When one of them fails, it knows whether it was the first. The others fail too when their connections
    break; with NCCL they wait for it, and srun ends them.

    Raises:
        TaskFailedError: Whatever was raised inside, with that as its cause.
        RuntimeError: The number of tasks in the job is not the training's number of processes.
    """
    from submitit.helpers import TorchDistributedEnvironment

    environment = TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    if environment.world_size != num_processes:
        raise RuntimeError(f"the job has {environment.world_size} tasks, but the training needs {num_processes}")
    if device.type == "cuda":  # a task sees its own GPU only, or all of its node's
        device = torch.device("cuda", environment.local_rank % torch.cuda.device_count())
    store = TCPStore(environment.master_addr, environment.master_port, is_master=environment.rank == 0)
    with _joined(store, environment.rank, num_processes, device) as group:
        try:
            yield group
        except Exception as error:
            is_first = False
            with contextlib.suppress(RuntimeError):  # the first process, which keeps the store, may be gone
                is_first = store.add("num_failed", 1) == 1  # the others fail when their connections break
            raise TaskFailedError(is_first=is_first) from error


def run_in_processes(act: Callable[..., None], num_processes: int, device_type: str, *arguments: Any) -> None:
    """Call ``act(group, *arguments)`` in processes of this machine, one for each rank, and wait for them.

    On GPUs, rank r has the r-th device to itself. A request to stop ends them: what they have saved after an epoch
    stays.

    Raises:
        Interrupted: This process was asked to stop.
        Exception: What one of them raised before any other did; they have all been ended.
        torch.multiprocessing.ProcessExitedException: One of them died.
        RuntimeError: There are fewer GPUs than processes.
    """
    if device_type == "cuda" and torch.cuda.device_count() < num_processes:
        raise RuntimeError(f"{torch.cuda.device_count()} GPUs here, but the training needs {num_processes}")
    with temporary_folder() as folder:
        with interrupt.blocked_in_children([signal.SIGINT]):  # at Ctrl-C, this process ends them
            members = spawn(  # type: ignore[no-untyped-call]
                _member,
                (num_processes, device_type, folder, act, arguments),
                nprocs=num_processes,
                join=False,
            )
        try:
            while not members.join(timeout=_POLL_S):
                interrupt.stop_if_asked()
                _raise_reason(folder)  # not all end on their own: with NCCL they wait for the one that failed
        except ProcessException:
            interrupt.stop_if_asked()  # the process that sent the request may have ended them
            _raise_reason(folder)
            raise
        finally:
            for process in members.processes:
                process.kill()
                process.join()


def _raise_reason(folder: Path) -> None:
    """Raise the first error of any of the processes, if there is one."""
    if (folder / _REASON).exists():
        raise pickle.loads((folder / _REASON).read_bytes()) from None


def _member(
    rank: int,
    num_processes: int,
    device_type: str,
    folder: Path,
    act: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    for number in (signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the parent decides, and ends us
    interrupt.end_with_parent()  # it would wait for its peers for ever
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s rank {rank} %(levelname)s %(message)s", force=True)
    device = torch.device(device_type, rank) if device_type == "cuda" else torch.device(device_type)
    store = FileStore(str(folder / "rendezvous"), num_processes)
    with _joined(store, rank, num_processes, device) as group:
        try:
            with interrupt.exits_raised():
                act(group, *arguments)
        except Exception as error:  # recorded before the others notice
            own = folder / f"{_REASON}-{rank}"
            own.write_bytes(_pickled(error, rank))
            with contextlib.suppress(FileExistsError):
                (folder / _REASON).hardlink_to(own)  # complete, and never replacing another's error
            raise


@contextlib.contextmanager
def _joined(store: Store, rank: int, num_processes: int, device: torch.device) -> Iterator[Group]:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=num_processes,
        device_id=device if device.type == "cuda" else None,  # otherwise NCCL has to guess it at a barrier
    )
    yield Group(rank=rank, num_processes=num_processes)
    # Not after an error: NCCL would first wait for work that the others may never join.
    torch.distributed.destroy_process_group()


def _pickled(error: Exception, rank: int) -> bytes:
    """An error as another process can raise it; one that cannot be pickled, in words."""
    text = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # classes may ask for anything when they are made
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(f"in process {rank}:\n{text}")
    return pickle.dumps(copy)
