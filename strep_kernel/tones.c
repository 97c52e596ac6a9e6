/* DTMF in the audio. The function does what its twin in Python does, which is named beside it. All
 * sums over samples are of integers, so that they are the same in whatever order they are added. */

#include "kernel.h"

#ifdef __GNUC__
#define ALWAYS __attribute__((always_inline))
#else
#define ALWAYS
#endif

enum { KEYS_PER_GROUP = 4, TONES = 2 * KEYS_PER_GROUP, SUMS = 2 * TONES + 1, USUAL_HOP = 80, MAX_HOP = 480 };

/* Where the columns of tracks stand; see pipeline.sinks.dtmf._Columns. */
typedef struct {
    int64_t *fill, *until, *energy, *begin, *end, *last;
    double *energy_before;
    int32_t *sums, *sums_before, *run;
    int8_t *digit;
    uint8_t *is_certain;
} Tracks;

/* What is judged by; see pipeline.sinks.dtmf._Rules. */
typedef struct {
    const double *limit; /* power, share, twist, steadiness */
    const double *turn;  /* (8, 3) cosine and sine of each tone's turn in a hop, least alignment */
    int64_t hop, hits, pause, bridge;
} Rules;

static double square(double value)
{
    return value * value;
}

static inline ALWAYS void products(const int16_t *t, const int16_t *basis, int64_t hop,
                                   int64_t samples, int32_t *sums)
{
    for (int k = 0; k < SUMS; k++) {
        const int16_t *wave = basis + k * hop;
        int32_t sum = 0;
        for (int64_t i = 0; i < samples; i++)
            sum += (int32_t)t[i] * wave[i];
        sums[k] += sum;
    }
}

/* Adds the sums of t[i] * basis[k][i]. */
VECTORIZED
static void add_products(const int16_t *t, const int16_t *basis, int64_t hop, int64_t samples,
                         int32_t *sums)
{
    if (hop == USUAL_HOP && samples == USUAL_HOP) /* loops of known length are unrolled */
        products(t, basis, USUAL_HOP, USUAL_HOP, sums);
    else
        products(t, basis, hop, samples, sums);
}

#ifdef WIDE
/* `scale` from the first sample on, at most MAX_HOP; `*done` says how far. */
WIDE
static int64_t scale_wide(const int16_t *pcm, int64_t samples, int shift, int16_t *t,
                          int64_t *done)
{
    const __m128i by = _mm_cvtsi32_si128(shift);
    __m256i sums = _mm256_setzero_si256(); /* of up to 30 pairs of squares of 14 bits */
    int64_t i = 0, energy = 0;
    for (; i + 16 <= samples; i += 16) {
        __m256i x = _mm256_sra_epi16(_mm256_loadu_si256((const __m256i *)(pcm + i)), by);
        _mm256_storeu_si256((__m256i *)(t + i), x);
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(x, x));
    }
    uint32_t lane[8];
    _mm256_storeu_si256((__m256i *)lane, sums);
    for (int k = 0; k < 8; k++)
        energy += lane[k];
    *done = i;
    return energy;
}
#endif

/* Shifts samples to the right, by 2 bits or more; returns the sum of their squares. */
static int64_t scale(const int16_t *pcm, int64_t samples, int shift, int16_t *t)
{
    int64_t i = 0, energy = 0;
#ifdef WIDE
    if (IS_WIDE)
        energy = scale_wide(pcm, samples, shift, t, &i);
#endif
    for (; i < samples; i++) {
        t[i] = (int16_t)(pcm[i] >> shift);
        energy += (int32_t)t[i] * t[i];
    }
    return energy;
}

/* pipeline.sinks.dtmf._digits: the key whose tones both hops hold, or -1. */
static int digit_of(const int32_t *before, const int32_t *now, double energy, const Rules *rules)
{
    double power[TONES];
    for (int k = 0; k < TONES; k++)
        power[k] = square(before[2 * k]) + square(before[2 * k + 1]) +
                   (square(now[2 * k]) + square(now[2 * k + 1]));
    int tone[2];
    for (int group = 0; group < 2; group++) {
        int best = KEYS_PER_GROUP * group;
        for (int k = best + 1; k < KEYS_PER_GROUP * (group + 1); k++)
            if (power[k] > power[best])
                best = k;
        tone[group] = best;
    }
    double low = power[tone[0]], high = power[tone[1]];
    if (low + high < rules->limit[1] * energy || low > high * rules->limit[2] ||
        high > low * rules->limit[2])
        return -1;
    for (int group = 0; group < 2; group++) {
        const int k = tone[group];
        const double *turn = rules->turn + 3 * k;
        double a = before[2 * k], b = before[2 * k + 1], c = now[2 * k], d = now[2 * k + 1];
        double first = a * a + b * b, second = c * c + d * d;
        if (first > second * rules->limit[3] || second > first * rules->limit[3])
            return -1;
        double aligned = (a * c + b * d) * turn[0] + (a * d - b * c) * turn[1];
        double magnitude = aligned < 0 ? -aligned : aligned;
        if (aligned * magnitude < turn[2] * (first * second))
            return -1;
    }
    return KEYS_PER_GROUP * tone[0] + tone[1] - KEYS_PER_GROUP;
}

/* Presses that are over. */
typedef struct {
    int64_t *row, *digit, *begin, *end;
    int64_t count, room;
} Presses;

static void finish(const Tracks *track, int64_t r, Presses *over)
{
    if (track->digit[r] >= 0 && track->is_certain[r] && over->count < over->room) {
        over->row[over->count] = r;
        over->digit[over->count] = track->digit[r];
        over->begin[over->count] = track->begin[r];
        over->end[over->count] = track->end[r];
        over->count++;
    }
    track->digit[r] = -1;
}

/* pipeline.sinks.dtmf.DtmfSink._break: the frame at `at` does not follow the one before. */
static void resume(const Tracks *track, int64_t r, int64_t at, int is_loss, const Rules *rules,
                   Presses *over)
{
    int64_t missing = at - track->until[r];
    track->fill[r] = track->energy[r] = 0;
    track->energy_before[r] = 0;
    memset(track->sums + r * SUMS, 0, SUMS * sizeof *track->sums);
    if (missing < 0)
        finish(track, r, over);
    else if (is_loss && missing <= rules->bridge && track->until[r] - track->end[r] < rules->hop)
        track->end[r] = at;
}

/* pipeline.sinks.dtmf.DtmfSink._follow: the hop that ends at `edge` and the one before hold the
 * tones of `digit`, or of none where it is negative. */
static void follow(const Tracks *track, int64_t r, int64_t edge, int digit, const Rules *rules,
                   Presses *over)
{
    int64_t start = edge - 2 * rules->hop;
    if (digit < 0) {
        if (track->digit[r] >= 0 && start + rules->hop - track->end[r] >= rules->pause)
            finish(track, r, over);
        return;
    }
    int is_more = digit == track->digit[r] && start - track->end[r] < rules->pause;
    if (!is_more) {
        finish(track, r, over);
        track->digit[r] = (int8_t)digit;
        track->begin[r] = start;
        track->is_certain[r] = 0;
    }
    track->run[r] = is_more && track->last[r] == start - rules->hop ? track->run[r] + 1 : 1;
    track->last[r] = start;
    track->end[r] = edge;
    if (track->run[r] >= rules->hits)
        track->is_certain[r] = 1;
}

/* pipeline.sinks.dtmf.DtmfSink._detect: one frame for each of `row`.
 *
 * Returns how many presses are over, named by row, key, beginning and end. */
FUNCTION(tones)
{
    (void)module;
    Py_buffer *table[3];
    int64_t number[8];
    if (!arguments_of(arguments, count, 3, (Py_ssize_t[]){15, 4, 4}, table, 8, number))
        return NULL;
    int64_t n = number[0], samples = number[1], shift = number[2], hop = number[3];
    const Py_buffer *state = table[0];
    const Tracks track = {
        .fill = state[0].buf, .until = state[1].buf, .energy = state[2].buf,
        .energy_before = state[3].buf, .begin = state[4].buf, .end = state[5].buf,
        .last = state[6].buf, .sums = state[7].buf, .sums_before = state[8].buf,
        .run = state[9].buf, .digit = state[10].buf, .is_certain = state[11].buf,
    };
    const int16_t *basis = state[12].buf;
    const Rules rules = {
        .limit = state[13].buf, .turn = state[14].buf, .hop = hop, .hits = number[4],
        .pause = number[5], .bridge = number[6],
    };
    const int64_t *row = table[1][0].buf, *position = table[1][1].buf, *lost = table[1][2].buf;
    const int16_t *pcm = table[1][3].buf;
    Presses over = {table[2][0].buf, table[2][1].buf, table[2][2].buf, table[2][3].buf,
                    0, number[7]};
    const double least = rules.limit[0];
    int16_t t[MAX_HOP];
    int32_t whole[SUMS];
    if (hop < 1 || hop > MAX_HOP) {
        PyErr_Format(PyExc_ValueError, "hop of %lld samples, expected 1 to %d", (long long)hop,
                     MAX_HOP);
        return NULL;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t r = row[i];
        int32_t *sums = track.sums + r * SUMS, *before = track.sums_before + r * SUMS;
        if (position[i] != track.until[r] || track.fill[r] >= hop)
            resume(&track, r, position[i], lost[i] > 0, &rules, &over);
        track.until[r] = position[i] + samples;
        for (int64_t done = 0; done < samples;) {
            int64_t fill = track.fill[r];
            int64_t part = hop - fill < samples - done ? hop - fill : samples - done;
            int64_t energy = scale(pcm + i * samples + done, part, (int)shift, t);
            int is_loud = (double)energy >= least * (double)part;
            int32_t *now = part < hop ? sums : whole;
            if (part == hop)
                memset(whole, 0, sizeof whole);
            if (is_loud)
                add_products(t, basis + fill, hop, part, now);
            energy += track.energy[r];
            done += part;
            if (fill + part < hop) {
                track.fill[r] = fill + part;
                track.energy[r] = energy;
                break;
            }
            /* a hop is full: it is judged together with the one before */
            double power = 0, least_power = least * (double)hop;
            int digit = -1;
            is_loud = (double)energy >= least_power; /* which is no less than the power */
            if (is_loud) {
                power = (double)energy - square(now[2 * TONES]) / (double)hop;
                is_loud = power >= least_power;
            }
            if (is_loud && track.energy_before[r] > 0)
                digit = digit_of(before, now, power + track.energy_before[r], &rules);
            if (is_loud)
                memcpy(before, now, sizeof whole);
            track.energy_before[r] = is_loud ? power : 0;
            if (part < hop) {
                memset(sums, 0, sizeof whole);
                track.fill[r] = track.energy[r] = 0;
            }
            follow(&track, r, position[i] + done, digit, &rules, &over);
        }
    }
    return PyLong_FromLongLong(over.count);
}
