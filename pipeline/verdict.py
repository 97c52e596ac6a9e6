"""What the figures of a track, and of a call, say of its sound.

Of a track, for its entry in the manifest:

    "quality": {
      "mos": 4.12, "mos_concealed": 4.38, "r_factor": 82.5, "r_factor_concealed": 91.6,
      "mouth_to_ear_ms": 0.0,
      "loss_ratio": 0.0061, "discard_ratio": 0.0004, "reorder_ratio": 0.0,
      "burst": {
        "runs": 9, "mean_packets": 1.889, "longest_packets": 5, "ratio": 1.877,
        "bursts": 2, "burst_packets": 31, "burst_loss_ratio": 0.323, "gap_loss_ratio": 0.0025
      }
    }

`mos` is that of a listener to whom lost packets are silent, `mos_concealed` of one whose receiver
conceals them by G.711 Appendix I; for G.729, which conceals by itself, they are the same. Both are
null where the codec of most packets is another one: G.113 Appendix I has no parameters for it that
this scale of narrowband speech takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import emodel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.block import TrackSummary

_G711 = ("PCMU", "PCMA")
_G729 = "G729"


def track_quality(summary: TrackSummary) -> dict[str, Any]:
    """Return the quality of a track as in the module's example, ready for JSON."""
    rating, concealed = ratings(summary)
    return {
        "mos": None if rating is None else round(emodel.mos(rating), 2),
        "mos_concealed": None if concealed is None else round(emodel.mos(concealed), 2),
        "r_factor": None if rating is None else round(rating, 1),
        "r_factor_concealed": None if concealed is None else round(concealed, 1),
        "mouth_to_ear_ms": summary.mouth_to_ear_ms,
        "loss_ratio": round(summary.loss_ratio, 6),
        "discard_ratio": round(summary.late / max(1, summary.expected), 6),
        "reorder_ratio": round(summary.reordered / max(1, summary.expected), 6),
        "burst": {
            "runs": summary.loss_runs,
            "mean_packets": round(mean_burst_packets(summary), 3),
            "longest_packets": summary.longest_loss,
            "ratio": round(_burst_ratio(summary), 3),
            "bursts": summary.bursts,
            "burst_packets": summary.burst_packets,
            "burst_loss_ratio": round(summary.burst_lost / max(1, summary.burst_packets), 6),
            "gap_loss_ratio": round(
                (summary.lost - summary.burst_lost)
                / max(1, summary.expected - summary.burst_packets),
                6,
            ),
        },
    }


def ratings(summary: TrackSummary) -> tuple[float | None, float | None]:
    """Return a track's R without and with concealment; None where it is not G.711 or G.729."""
    if summary.codec == _G729:
        rating = _rating(summary, emodel.G729_BPL, emodel.G729_IE)
        return rating, rating
    if summary.codec not in _G711:
        return None, None
    return (
        _rating(summary, emodel.BPL_WITHOUT_CONCEALMENT),
        _rating(summary, emodel.BPL_WITH_CONCEALMENT),
    )


def mean_burst_packets(summary: TrackSummary) -> float:
    """Return the mean length of a run of lost packets; 0 without any."""
    return summary.lost / summary.loss_runs if summary.loss_runs else 0.0


def call_quality(tracks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the quality of a call from the entries of its tracks, ready for JSON.

    The scores are those of the track that sounds worst, as is the longest run of lost packets;
    ratios are of all packets of the call; the jitter is the mean over packets; the drift is the
    greatest in either direction. None is what no track knows.
    """
    qualities = [track["quality"] for track in tracks]
    runs = sum(quality["burst"]["runs"] for quality in qualities)
    expected = sum(track["released"] + track["lost"] for track in tracks)
    packets = sum(track["packets"] for track in tracks)
    return {
        **{
            name: min(
                (quality[name] for quality in qualities if quality[name] is not None), default=None
            )
            for name in ("mos", "mos_concealed")
        },
        **{
            name: round(sum(track[counted] for track in tracks) / max(1, expected), 6)
            for name, counted in (
                ("loss_ratio", "lost"),
                ("discard_ratio", "late"),
                ("reorder_ratio", "reordered"),
            )
        },
        "burst_mean_packets": round(sum(track["lost"] for track in tracks) / max(1, runs), 3),
        "burst_longest_packets": max(
            (quality["burst"]["longest_packets"] for quality in qualities), default=0
        ),
        "jitter_mean_ms": round(
            sum(track["jitter_mean_ms"] * track["packets"] for track in tracks) / max(1, packets), 3
        ),
        "drift_ppm": max(
            (track["drift_ppm"] for track in tracks if track["drift_ppm"] is not None),
            key=abs,
            default=None,
        ),
    }


def _rating(summary: TrackSummary, bpl: float, ie: float = emodel.G711_IE) -> float:
    return emodel.rating(
        summary.loss_ratio,
        burst_ratio=_burst_ratio(summary),
        bpl=bpl,
        ie=ie,
        mouth_to_ear_ms=summary.mouth_to_ear_ms,
    )


def _burst_ratio(summary: TrackSummary) -> float:
    return emodel.burst_ratio_of(summary.loss_ratio, mean_burst_packets(summary))
