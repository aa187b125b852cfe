"""Dask: a local cluster, or a scheduler on this machine or behind TLS. Workers get paths and give small dicts.

The ledger is the truth: a scheduler that is lost takes no result with it, and the next run goes on from the records on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from MedProtectLib.errors import MedProtectError, UsageError
from MedProtectLib.release.ledger import QUARANTINED
from MedProtectLib.release.runners import ATTEMPTS, DIED, Content, Job, Result
from MedProtectLib.release.runners.worker import THREADS

if TYPE_CHECKING:
    from distributed import Client, Future

LOCAL = "local"
LOCALHOSTS = ("localhost", "127.0.0.1", "::1")
RETRIES = ATTEMPTS - 1
ALLOWED_FAILURES = 10
IN_FLIGHT_PER_WORKER = 4
CONNECT_S = 30

# Dask sets MALLOC_TRIM_THRESHOLD_ for its workers, after which every large array is mapped and unmapped anew: a third more time a case.
# A task runs in a thread, which without MALLOC_ARENA_MAX has a small heap of its own with the same effect.
CONFIGURATION = {
    "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    "distributed.worker.daemon": True,
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.nanny.pre-spawn-environ": {**dict.fromkeys(THREADS, "1"), "MALLOC_ARENA_MAX": "1"},
}


@dataclass(frozen=True)
class DaskRunner:
    """``address``: 'local' for a cluster of ``jobs`` processes that nobody else can talk to, ``tcp://`` on this machine, or
    ``tls://`` with ``tls``: the files of the authority's certificate, one's own certificate and its key. ``lost`` is told of a case
    whose workers died.
    """

    address: str
    jobs: int
    tls: tuple[str, str, str] | None
    lost: Callable[[Content, str], None]

    def __call__(self, job: Job, cases: Iterable[Content]) -> Iterator[Result]:
        """The results as they come.

        Raises:
            MedProtectError: Dask is not installed, the scheduler is not there or was lost, or something concerns every case.
        """
        check_address(self.address, self.tls)
        try:
            from distributed import as_completed
            from distributed.client import FutureCancelledError
            from distributed.scheduler import KilledWorker
        except ImportError as error:
            raise MedProtectError("Dask is not installed. Install it with: pip install 'medprotect[dask]'") from error
        with ExitStack() as stack:
            client = self._client(stack)
            source = iter(cases)
            contents: dict[Any, Content] = {}

            def submit(content: Content) -> Future:
                future = client.submit(job.process, job.manifest, dict(content), job.key, 1, pure=False, retries=RETRIES)
                contents[future.key] = content
                return future

            room = IN_FLIGHT_PER_WORKER * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
            flight = as_completed([submit(content) for _, content in zip(range(room), source, strict=False)])
            for future in flight:
                content = contents.pop(future.key)
                failure = future.exception()
                if isinstance(failure, KilledWorker):
                    reason = DIED.format(attempts=ALLOWED_FAILURES + 1)
                    self.lost(content, reason)
                    yield {"case": content["name"], "status": QUARANTINED, "reason": reason, "withheld": [], "stop": False, "seconds": 0.0}
                elif isinstance(failure, FutureCancelledError) or future.cancelled():
                    raise MedProtectError(f"{self.address}: the Dask scheduler was lost. Nothing is: go on with --resume.")
                elif failure is not None:
                    raise failure
                else:
                    yield future.result()
                future.release()
                if (following := next(source, None)) is not None:
                    flight.add(submit(following))

    def _client(self, stack: ExitStack) -> Client:
        import dask
        from distributed import Client, LocalCluster
        from distributed.security import Security

        stack.enter_context(dask.config.set(CONFIGURATION))
        if self.address == LOCAL:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=self.jobs,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    protocol="tls://",
                    security=Security.temporary(),
                    dashboard_address=None,
                )
            )
            return stack.enter_context(Client(cluster))
        options: dict[str, Any] = {"timeout": CONNECT_S}
        if self.tls is not None:
            authority, certificate, private_key = self.tls
            options["security"] = Security(
                tls_ca_file=authority, tls_client_cert=certificate, tls_client_key=private_key, require_encryption=True
            )
        try:
            return stack.enter_context(Client(self.address, **options))
        except (OSError, TimeoutError) as error:
            raise MedProtectError(f"{self.address}: no Dask scheduler answers there. Check the address, and the certificates.") from error


def check_address(address: str, tls: tuple[str, str, str] | None) -> str:
    """Refuse an address where other machines could read along or send code: Dask runs whatever a scheduler sends it.

    Returns a warning where other accounts of this machine can, else nothing.

    Raises:
        UsageError: neither 'local', nor tcp:// on this machine, nor tls:// with certificates.
    """
    parsed = urlparse(address)
    if parsed.scheme == "tcp" and parsed.hostname in LOCALHOSTS:
        return (
            f"--dask {address}: every account of this machine can send code to this scheduler and get the key of the release from it. "
            "Use tls:// with --dask-tls, or 'local', unless nobody else is on the machine."
        )
    if parsed.scheme == "tls" and tls is None:
        raise UsageError(f"--dask {address}: tls:// needs --dask-tls CA CERT KEY, the files of the certificates.")
    if address == LOCAL or parsed.scheme == "tls":
        return ""
    raise UsageError(
        f"--dask {address}: only 'local', tls:// with certificates and, where nobody else is, tcp:// on this machine are safe."
    )
