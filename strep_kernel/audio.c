/* What is done with payloads: gather, decode, judge and stage. Each function does what its twin in
 * Python does, which is named beside it, in one pass. */

#include "kernel.h"

/* pipeline.block.Payloads.codes: payloads of one size, from wherever they lie, to rows. */
FUNCTION(gather)
{
    (void)module;
    Py_buffer *table[1];
    int64_t number[3];
    if (!arguments_of(arguments, count, 1, (Py_ssize_t[]){4}, table, 3, number))
        return NULL;
    int64_t n = number[0], slot_bytes = number[1], size = number[2];
    const uint8_t *store = table[0][0].buf;
    const int64_t *slot = table[0][1].buf, *offset = table[0][2].buf;
    uint8_t *out = table[0][3].buf;
    for (int64_t i = 0; i < n; i++)
        memcpy(out + i * size, store + slot[i] * slot_bytes + offset[i], (size_t)size);
    Py_RETURN_NONE;
}

enum { AHEAD = 6, LINE_BYTES = 64 };

#ifdef WIDE
/* As many codes as fill registers, at once: ITU-T G.711's laws as arithmetic, where the step of a
 * segment is looked up in a register. Returns how many were decoded. */
WIDE
static int64_t expand(const uint8_t *code, int64_t size, int is_mu, int16_t *to)
{
    const __m256i step = _mm256_broadcastsi128_si256(
        is_mu ? _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0)
              : _mm_setr_epi8(1, 1, 2, 4, 8, 16, 32, 64, 0, 0, 0, 0, 0, 0, 0, 0));
    const __m256i low = _mm256_set1_epi16(15), segment = _mm256_set1_epi16(7);
    const __m256i nothing = _mm256_set1_epi16((int16_t)0x8000), zero = _mm256_setzero_si256();
    const __m256i invert = _mm256_set1_epi16(is_mu ? 0xFF : 0xD5);
    const __m256i least = _mm256_set1_epi16(is_mu ? 132 : 8);
    const __m256i upper = _mm256_set1_epi16(is_mu ? 0 : 256);
    const __m256i offset = _mm256_set1_epi16(is_mu ? 132 : 0);
    const __m128i shift = _mm_cvtsi32_si128(is_mu ? 3 : 4);
    int64_t s = 0;
    for (; s + 16 <= size; s += 16) {
        __m256i bits = _mm256_xor_si256(
            _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(code + s))), invert);
        __m256i part = _mm256_and_si256(_mm256_srli_epi16(bits, 4), segment);
        __m256i steps = _mm256_shuffle_epi8(step, _mm256_or_si256(part, nothing));
        __m256i value = _mm256_sll_epi16(_mm256_and_si256(bits, low), shift);
        value = _mm256_add_epi16(value, least);
        value = _mm256_add_epi16(value, _mm256_and_si256(_mm256_cmpgt_epi16(part, zero), upper));
        value = _mm256_sub_epi16(_mm256_mullo_epi16(value, steps), offset);
        __m256i sign = _mm256_srai_epi16(_mm256_slli_epi16(bits, 8), 15);
        value = _mm256_sub_epi16(_mm256_xor_si256(value, sign), sign);
        _mm256_storeu_si256((__m256i *)(to + s), value);
    }
    return s;
}
#endif

/* pipeline.codecs.Codec.decode: payloads of one size, from wherever they lie, by a table of 256
 * samples; `law` is 0 where that is mu-law's, 1 where it is A-law's. */
FUNCTION(decode)
{
    (void)module;
    Py_buffer *table[1];
    int64_t number[4];
    if (!arguments_of(arguments, count, 1, (Py_ssize_t[]){5}, table, 4, number))
        return NULL;
    int64_t n = number[0], slot_bytes = number[1], size = number[2], law = number[3];
    const uint8_t *store = table[0][0].buf;
    const int64_t *slot = table[0][1].buf, *offset = table[0][2].buf;
    const int16_t *sample = table[0][3].buf;
    int16_t *out = table[0][4].buf;
#ifdef WIDE
    const int is_wide = IS_WIDE;
#else
    (void)law;
#endif
    for (int64_t i = 0; i < n; i++) {
        if (i + AHEAD < n) { /* slots lie too far apart for the processor to see what is next */
            const uint8_t *later = store + slot[i + AHEAD] * slot_bytes + offset[i + AHEAD];
            for (int64_t at = 0; at < size; at += LINE_BYTES)
                PREFETCH(later + at);
        }
        const uint8_t *code = store + slot[i] * slot_bytes + offset[i];
        int16_t *to = out + i * size;
        int64_t s = 0;
#ifdef WIDE
        if (is_wide)
            s = expand(code, size, law == 0, to);
#endif
        for (; s < size; s++)
            to[s] = sample[code[s]];
    }
    Py_RETURN_NONE;
}

enum { PIECE = 256 };

/* pipeline.codecs.G711.weave: codes to every `channels`th sample, from `at` on. */
FUNCTION(weave)
{
    (void)module;
    Py_buffer *table[1];
    int64_t number[4];
    if (!arguments_of(arguments, count, 1, (Py_ssize_t[]){3}, table, 4, number))
        return NULL;
    int64_t n = number[0], at = number[1], channels = number[2], law = number[3];
    const uint8_t *code = table[0][0].buf;
    const int16_t *sample = table[0][1].buf;
    int16_t *to = (int16_t *)table[0][2].buf + at, decoded[PIECE];
#ifdef WIDE
    const int is_wide = IS_WIDE;
#else
    (void)law;
#endif
    for (int64_t done = 0; done < n; done += PIECE) {
        int64_t size = n - done < PIECE ? n - done : PIECE, s = 0;
#ifdef WIDE
        if (is_wide)
            s = expand(code + done, size, law == 0, decoded);
#endif
        for (; s < size; s++)
            decoded[s] = sample[code[done + s]];
        int16_t *first = to + done * channels;
        if (channels == 2) /* a step that the compiler knows */
            for (int64_t i = 0; i < size; i++)
                first[2 * i] = decoded[i];
        else
            for (int64_t i = 0; i < size; i++)
                first[channels * i] = decoded[i];
    }
    Py_RETURN_NONE;
}

#ifdef WIDE
/* Squares of 32 bit each, to sums of 64 bit. */
WIDE
static inline __m256i add_squares(__m256i sum, __m256i value)
{
    __m256i odd = _mm256_srli_epi64(value, 32);
    sum = _mm256_add_epi64(sum, _mm256_mul_epi32(value, value));
    return _mm256_add_epi64(sum, _mm256_mul_epi32(odd, odd));
}

WIDE
static inline int64_t total_of(__m256i sum)
{
    int64_t part[4];
    _mm256_storeu_si256((__m256i *)part, sum);
    return part[0] + part[1] + part[2] + part[3];
}

WIDE
static inline __m256i sixteen(const int16_t *x)
{
    return _mm256_loadu_si256((const __m256i *)x);
}

/* `band_energy` from the first sample on; `*done` says how far. */
WIDE
static int64_t band_energy_wide(const int16_t *x, int64_t samples, int64_t *done)
{
    const __m256i fall = _mm256_set1_epi32(0xFFFF0001), rise = _mm256_set1_epi32(0x0001FFFF);
    __m256i sum = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + 19 <= samples; i += 16) /* every other one from i on, and those between */
        for (int k = 0; k < 2; k++)
            sum = add_squares(sum, _mm256_add_epi32(
                _mm256_madd_epi16(sixteen(x + i + k), fall),
                _mm256_madd_epi16(sixteen(x + i + k + 2), rise)));
    *done = i;
    return total_of(sum);
}

/* `energy_of` from the first sample on; `*done` says how far. */
WIDE
static int64_t energy_wide(const int16_t *x, int64_t samples, int64_t *done)
{
    const __m256i low = _mm256_set1_epi64x(0xFFFFFFFF);
    __m256i sum = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + 16 <= samples; i += 16) {
        __m256i pairs = _mm256_madd_epi16(sixteen(x + i), sixteen(x + i)); /* without a sign */
        sum = _mm256_add_epi64(sum, _mm256_and_si256(pairs, low));
        sum = _mm256_add_epi64(sum, _mm256_srli_epi64(pairs, 32));
    }
    *done = i;
    return total_of(sum);
}
#endif

/* Sum of (x[i] - x[i-1] - x[i-2] + x[i-3])^2. */
static int64_t band_energy(const int16_t *x, int64_t samples)
{
    int64_t sum = 0, i = 0;
#ifdef WIDE
    if (IS_WIDE)
        sum = band_energy_wide(x, samples, &i);
#endif
    for (; i + 3 < samples; i++) {
        int32_t band = x[i + 3] - x[i + 2] - x[i + 1] + x[i];
        sum += (int64_t)band * band;
    }
    return sum;
}

/* Sum of x[i]^2. */
static int64_t energy_of(const int16_t *x, int64_t samples)
{
    int64_t sum = 0, i = 0;
#ifdef WIDE
    if (IS_WIDE)
        sum = energy_wide(x, samples, &i);
#endif
    for (; i < samples; i++)
        sum += (int32_t)x[i] * x[i];
    return sum;
}

enum { THINNED = 4, LEAST_LAG = 5, MOST_LAG = 20, MOST_THINNED = 120 };

/* pipeline.level.voicing */
VECTORIZED
static double voicing(const int16_t *x, int64_t samples)
{
    const double noise = 144;
    int32_t steps[MOST_THINNED];
    int64_t squares[MOST_THINNED]; /* sums of steps^2 up to each, inclusive */
    int64_t count = samples / THINNED < MOST_THINNED ? samples / THINNED : MOST_THINNED;
    int64_t length = count - 1;
    int64_t most = length / 2 < MOST_LAG ? length / 2 : MOST_LAG;
    if (most < LEAST_LAG)
        return 0;
    int32_t before = x[0] + x[1] + x[2] + x[3];
    int64_t total = 0;
    for (int64_t i = 0; i < length; i++) {
        x += THINNED;
        int32_t here = x[0] + x[1] + x[2] + x[3];
        steps[i] = here - before;
        total += (int64_t)steps[i] * steps[i];
        squares[i] = total;
        before = here;
    }
    double best = 0;
    for (int64_t lag = LEAST_LAG; lag <= most; lag++) {
        int64_t together = 0;
        for (int64_t i = lag; i < length; i++)
            together += (int64_t)steps[i] * steps[i - lag];
        double power = 0.5 * (double)(total - squares[lag - 1] + squares[length - 1 - lag]);
        double alike = (double)together / (power + noise * (double)count);
        if (alike > best)
            best = alike;
    }
    return best;
}

enum { QUIET, STARTING, SPEAKING, STOPPING };

/* pipeline.sinks.vad.VadSink.write behind the gaps: one frame for each of `row`.
 *
 * Returns how many tracks began to speak and how many ceased, named in `started` and `stopped`. */
FUNCTION(judge)
{
    (void)module;
    Py_buffer *table[2];
    int64_t number[6];
    if (!arguments_of(arguments, count, 2, (Py_ssize_t[]){15, 3}, table, 6, number))
        return NULL;
    int64_t n = number[0], samples = number[1], length = number[2];
    int64_t start_samples = number[3], stop_samples = number[4], window_samples = number[5];
    uint8_t *state = table[0][0].buf;
    int64_t *begin = table[0][1].buf, *end = table[0][2].buf, *heard = table[0][3].buf;
    double *evidence = table[0][4].buf, *resumed = table[0][5].buf, *energy = table[0][6].buf;
    int64_t *active_samples = table[0][7].buf;
    double *lowest = table[0][8].buf, *lowest_before = table[0][9].buf;
    int64_t *renewal = table[0][10].buf;
    const double *limit = table[0][11].buf; /* margin, least power, share left by voicing */
    const int64_t *row = table[1][0].buf, *position = table[1][1].buf;
    const int16_t *pcm = table[1][2].buf;
    const double scale = *(const double *)table[0][12].buf;
    int64_t *started = table[0][13].buf, *stopped = table[0][14].buf;

    int64_t starts = 0, stops = 0;
    for (int64_t i = 0; i < n; i++) {
        const int16_t *x = pcm + i * samples;
        int64_t r = row[i], until = position[i] + length;
        double power = (double)band_energy(x, samples) * scale;

        double least = power < lowest[r] ? power : lowest[r];
        double floor = least < lowest_before[r] ? least : lowest_before[r];
        lowest[r] = least;
        if (renewal[r] <= until) {
            lowest_before[r] = least;
            lowest[r] = 1.0 / 0.0;
            renewal[r] = until + window_samples;
        }

        double threshold = floor * limit[0] > limit[1] ? floor * limit[0] : limit[1];
        if (power > threshold * limit[2] && power < threshold * 10) {
            double voiced = voicing(x, samples) * 1.5;
            threshold *= 1 - (1 - limit[2]) * (voiced < 1 ? voiced : 1);
        }
        double found = (power - threshold) / (power + threshold) * (double)length;

        heard[r] = until;
        if (state[r] == QUIET) {
            if (!(found > 0))
                continue;
            begin[r] = position[i];
            evidence[r] = resumed[r] = energy[r] = 0;
            active_samples[r] = 0;
        }
        if (found > 0) {
            energy[r] += (double)energy_of(x, samples);
            active_samples[r] += samples;
        }
        int is_open = state[r] >= SPEAKING;
        double total = evidence[r] + (is_open ? -found : found);
        double again = resumed[r] + found;
        total = total > 0 ? total : 0;
        again = again > 0 ? again : 0;
        if (is_open && (total == 0 || (again > 0 && again >= (double)start_samples))) {
            state[r] = SPEAKING;
            total = again = 0;
            if (end[r] < until)
                end[r] = until;
        } else if (is_open) {
            state[r] = STOPPING;
            if (total >= (double)stop_samples) {
                state[r] = QUIET;
                stopped[stops++] = r;
            }
        } else if (total > 0 && total >= (double)start_samples) {
            state[r] = SPEAKING;
            total = again = 0;
            end[r] = until;
            started[starts++] = r;
        } else {
            state[r] = total > 0 ? STARTING : QUIET;
        }
        evidence[r] = total;
        resumed[r] = again;
    }
    return Py_BuildValue("LL", (long long)starts, (long long)stops);
}

/* pipeline.sinks.staging.Stages: `put` the frames that `fits` accepts.
 *
 * Returns how many it does not, named in `misfit`. `law` is negative where any will do. */
FUNCTION(stage)
{
    (void)module;
    Py_buffer *table[2];
    int64_t number[4];
    if (!arguments_of(arguments, count, 2, (Py_ssize_t[]){6, 5}, table, 4, number))
        return NULL;
    int64_t n = number[0], samples = number[1], stage_samples = number[2], law = number[3];
    const int64_t *start = table[0][0].buf, *room = table[0][1].buf;
    int64_t *fill = table[0][2].buf;
    const int8_t *law_of = table[0][3].buf;
    int64_t *since_ns = table[0][4].buf;
    uint8_t *codes = table[0][5].buf;
    const int64_t *row = table[1][0].buf, *position = table[1][1].buf;
    const int64_t *arrival_ns = table[1][2].buf;
    const uint8_t *frame = table[1][3].buf;
    int64_t *misfit = table[1][4].buf;

    int64_t misfits = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t r = row[i], column = position[i] - start[r];
        if (column < 0 || column > fill[r] || column > room[r] - samples ||
            (law >= 0 && law_of[r] != law)) {
            misfit[misfits++] = i;
            continue;
        }
        if (!fill[r])
            since_ns[r] = arrival_ns[i];
        if (fill[r] < column + samples)
            fill[r] = column + samples;
        memcpy(codes + r * stage_samples + column, frame + i * samples, (size_t)samples);
    }
    return PyLong_FromLongLong(misfits);
}
