"""A plain model of one track's jitter buffer, one packet at a time: the bank's oracle."""

from __future__ import annotations

from dataclasses import dataclass, field

WINDOW = 64
MAX_DROPOUT = 3000
MAX_MISORDER = 100
PROBATION_NS = 10_000_000_000


@dataclass(frozen=True)
class Packet:
    ssrc: int
    sequence: int
    arrival_ns: int
    payload: bytes


@dataclass
class ModelTrack:
    """Keeps extended sequence numbers in dictionaries and does everything the obvious way."""

    ssrc: int
    due: int
    """Extended sequence number of the packet that is due; begins far above 0."""
    reorder_ns: int
    held: dict[int, Packet] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    candidate: Packet | None = None
    out: list[tuple[Packet, int, bool]] = field(default_factory=list)
    """(packet, packets lost before it, whether it restarts the sequence)."""
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    """(resets, extended sequence number, packets) of each run of lost ones."""
    lost: int = 0
    late: int = 0
    duplicate: int = 0
    reordered: int = 0
    resets: int = 0
    stray: int = 0

    @classmethod
    def begin(cls, first: Packet, reorder_ns: int) -> ModelTrack:
        return cls(ssrc=first.ssrc, due=(1 << 32) + first.sequence, reorder_ns=reorder_ns)

    def push(self, packet: Packet) -> None:
        self.give_up(packet.arrival_ns)
        delta = (packet.sequence - self.due + 0x8000) % 0x10000 - 0x8000
        at = self.due + delta
        same = packet.ssrc == self.ssrc
        if same and -MAX_MISORDER <= delta < 0:
            if at in self.seen and delta >= -WINDOW:
                self.duplicate += 1
            else:
                self.late += 1
                self.seen.add(at)
        elif same and 0 <= delta < WINDOW:
            if at in self.held:
                self.duplicate += 1
                return
            if any(other > at for other in self.held):
                self.reordered += 1
            self.held[at] = packet
            self.release(0)
        elif same and WINDOW <= delta < MAX_DROPOUT:
            while self.held and at - self.due >= WINDOW:
                self.close_hole()
            lost = at - self.due if at - self.due >= WINDOW else 0
            self.lose(lost)
            self.held[at] = packet
            self.release(lost)
        elif self.candidate and (self.candidate.ssrc, (self.candidate.sequence + 1) % 65536) == (
            packet.ssrc,
            packet.sequence,
        ):
            first, self.candidate = self.candidate, None
            self.close_holes()
            self.resets += 1
            self.ssrc = packet.ssrc
            self.seen.clear()
            self.due = (1 << 32) + first.sequence
            self.out.append((first, 0, True))
            self.seen.add(self.due)
            self.due += 1
            self.held[self.due] = packet
            self.release(0)
        else:
            self.stray += self.candidate is not None
            self.candidate = packet

    def tick(self, now_ns: int) -> None:
        self.give_up(now_ns)
        if self.candidate and now_ns - self.candidate.arrival_ns > PROBATION_NS:
            self.candidate = None
            self.stray += 1

    def close(self) -> None:
        self.close_holes()
        self.stray += self.candidate is not None
        self.candidate = None

    def give_up(self, now_ns: int) -> None:
        while self.held:
            first_behind = min(packet.arrival_ns for packet in self.held.values())
            if now_ns - first_behind < self.reorder_ns:
                return
            self.close_hole()

    def close_holes(self) -> None:
        while self.held:
            self.close_hole()

    def close_hole(self) -> None:
        lost = min(self.held) - self.due
        self.lose(lost)
        self.release(lost)

    def lose(self, packets: int) -> None:
        if packets:
            self.runs.append((self.resets, self.due, packets))
        self.lost += packets
        self.due += packets

    def burst_totals(self, min_gap: int = 16) -> tuple[int, int, int]:
        """Bursts, packets in them, and lost ones of these, by the definition of RFC 3611."""
        groups: list[list[tuple[int, int, int]]] = []
        for run in self.runs:
            if groups:
                resets, start, packets = groups[-1][-1]
                if resets == run[0] and run[1] - (start + packets) < min_gap:
                    groups[-1].append(run)
                    continue
            groups.append([run])
        bursts = [group for group in groups if sum(packets for _, _, packets in group) > 1]
        spans = [group[-1][1] + group[-1][2] - group[0][1] for group in bursts]
        lost = [packets for group in bursts for _, _, packets in group]
        return len(bursts), sum(spans), sum(lost)

    def release(self, lost: int) -> None:
        while self.due in self.held:
            self.out.append((self.held.pop(self.due), lost, False))
            self.seen.add(self.due)
            self.due += 1
            lost = 0
