"""How the store in memory keeps jobs: the part of `MemoryRows` for them (memory.py)."""

from itertools import islice

from msgspec.structs import replace

from signald.core.jobs import Job
from signald.core.log import Entry
from signald.store.session.jobs.records import Jobs


class MemoryJobs:
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[str, Jobs] = {}
        self._job: dict[str, dict[int, Job]] = {}
        self._job_keys: dict[str, dict[bytes, int]] = {}
        self._job_places: dict[str, dict[int, int]] = {}
        self._inputs: dict[str, dict[int, bytes]] = {}
        self._pieces: dict[str, dict[int, dict[int, Entry]]] = {}
        """Session → job → number of the piece → piece."""

    def jobs(self, session: str) -> Jobs | None:
        jobs = self._jobs.get(session)
        return None if jobs is None else replace(jobs)

    def save_jobs(self, jobs: Jobs) -> None:
        self._jobs[jobs.session] = replace(jobs)

    def drop_jobs(self, session: str) -> None:
        for kept in (self._jobs, self._job, self._job_keys, self._job_places, self._inputs, self._pieces):
            kept.pop(session, None)

    def jobs_over(self, until_ms: int, limit: int) -> list[str]:
        over = (jobs.session for jobs in self._jobs.values() if jobs.over and jobs.until_ms <= until_ms)
        return list(islice(over, limit))

    def job(self, session: str, n: int) -> Job | None:
        return self._job.get(session, {}).get(n)

    def save_job(self, session: str, job: Job) -> None:
        self._job.setdefault(session, {})[job.n] = job
        self._job_keys.setdefault(session, {})[job.key] = job.n
        if job.place:
            self._job_places.setdefault(session, {})[job.place] = job.n

    def drop_job(self, session: str, n: int) -> None:
        job = self._job.get(session, {}).pop(n, None)
        if job is not None:
            self._job_keys[session].pop(job.key, None)
            self._job_places.get(session, {}).pop(job.place, None)
        self._inputs.get(session, {}).pop(n, None)
        self._pieces.get(session, {}).pop(n, None)

    def job_of_key(self, session: str, key: bytes) -> int:
        return self._job_keys.get(session, {}).get(key, 0)

    def job_at(self, session: str, place: int) -> int:
        return self._job_places.get(session, {}).get(place, 0)

    def put_input(self, session: str, n: int, data: bytes) -> None:
        self._inputs.setdefault(session, {})[n] = data

    def input(self, session: str, n: int) -> bytes | None:
        return self._inputs.get(session, {}).get(n)

    def drop_input(self, session: str, n: int) -> None:
        self._inputs.get(session, {}).pop(n, None)

    def put_piece(self, session: str, n: int, number: int, piece: Entry) -> None:
        self._pieces.setdefault(session, {}).setdefault(n, {})[number] = piece

    def drop_pieces(self, session: str, n: int, last: int) -> None:
        pieces = self._pieces.get(session, {}).get(n, {})
        for number in [number for number in pieces if number <= last]:
            del pieces[number]

    def pieces(self, session: str, n: int, first: int, last: int) -> list[Entry]:
        pieces = self._pieces.get(session, {}).get(n, {})
        return [piece for number, piece in pieces.items() if first <= number <= last]

    def pieces_after(self, session: str, job: Job, seq: int, limit: int) -> list[Entry]:
        pieces = self._pieces.get(session, {}).get(job.n, {})
        return list(islice((piece for piece in pieces.values() if piece.seq > seq), limit))
