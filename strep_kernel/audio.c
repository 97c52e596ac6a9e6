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

/* pipeline.codecs.Codec.decode: payloads of one size, from wherever they lie, by a table of 256
 * samples. */
FUNCTION(decode)
{
    (void)module;
    Py_buffer *table[1];
    int64_t number[3];
    if (!arguments_of(arguments, count, 1, (Py_ssize_t[]){5}, table, 3, number))
        return NULL;
    int64_t n = number[0], slot_bytes = number[1], size = number[2];
    const uint8_t *store = table[0][0].buf;
    const int64_t *slot = table[0][1].buf, *offset = table[0][2].buf;
    const int16_t *sample = table[0][3].buf;
    int16_t *out = table[0][4].buf;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *code = store + slot[i] * slot_bytes + offset[i];
        int16_t *to = out + i * size;
        for (int64_t s = 0; s < size; s++)
            to[s] = sample[code[s]];
    }
    Py_RETURN_NONE;
}

enum { LANES = 16 };

/* Sums of x[i]^2 and of (x[i+1] - x[i])^2 over a frame of at least 2 samples. */
VECTORIZED
static void sum_squares(const int16_t *x, int64_t samples, float *energy, float *difference)
{
    float squares[LANES] = {0}, steps[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES < samples; i += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            float here = x[i + lane], step = (float)x[i + lane + 1] - here;
            squares[lane] += here * here;
            steps[lane] += step * step;
        }
    float square = 0, stepped = 0;
    for (; i < samples; i++) {
        float here = x[i], step = i + 1 < samples ? (float)x[i + 1] - here : 0;
        square += here * here;
        stepped += step * step;
    }
    for (int lane = 0; lane < LANES; lane++) {
        square += squares[lane];
        stepped += steps[lane];
    }
    *energy = square;
    *difference = stepped;
}

enum { QUIET, STARTING, SPEAKING, STOPPING };

/* pipeline.sinks.vad.VadSink.write behind the gaps: one frame for each of `row`.
 *
 * Returns how many tracks began to speak and how many ceased, named in `started` and `stopped`. */
FUNCTION(judge)
{
    (void)module;
    Py_buffer *table[2];
    int64_t number[5];
    if (!arguments_of(arguments, count, 2, (Py_ssize_t[]){9, 5}, table, 5, number))
        return NULL;
    int64_t n = number[0], samples = number[1];
    int64_t start_samples = number[2], stop_samples = number[3], window_samples = number[4];
    uint8_t *state = table[0][0].buf;
    int64_t *begin = table[0][1].buf, *end = table[0][2].buf;
    double *energy = table[0][3].buf;
    int64_t *active_samples = table[0][4].buf;
    float *lowest = table[0][5].buf, *lowest_before = table[0][6].buf;
    int64_t *renewal = table[0][7].buf;
    const float *limit = table[0][8].buf; /* margin above the floor, least power */
    const int64_t *row = table[1][0].buf, *position = table[1][1].buf;
    const int16_t *pcm = table[1][2].buf;
    int64_t *started = table[1][3].buf, *stopped = table[1][4].buf;

    const float full_scale = 32768.0f * 32768.0f;
    const float scale = 1 / ((float)samples * full_scale);
    const float step_scale = 1 / (2 * (float)(samples - 1) * full_scale);
    int64_t starts = 0, stops = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t r = row[i], until = position[i] + samples;
        float power, emphasised;
        sum_squares(pcm + i * samples, samples, &power, &emphasised);
        power *= scale;
        emphasised *= step_scale;

        float least = emphasised < lowest[r] ? emphasised : lowest[r];
        float floor = least < lowest_before[r] ? least : lowest_before[r];
        lowest[r] = least;
        if (renewal[r] <= until) {
            lowest_before[r] = least;
            lowest[r] = 1.0f / 0.0f;
            renewal[r] = until + window_samples;
        }

        float threshold = floor * limit[0] > limit[1] ? floor * limit[0] : limit[1];
        int is_open = state[r] >= SPEAKING;
        if (emphasised > threshold) {
            if (state[r] == QUIET) {
                begin[r] = end[r] = position[i];
                energy[r] = 0;
                active_samples[r] = 0;
            }
            if (end[r] < until)
                end[r] = until;
            energy[r] += power * (float)samples;
            active_samples[r] += samples;
            int is_speech = is_open || end[r] - begin[r] >= start_samples;
            state[r] = is_speech ? SPEAKING : STARTING;
            if (is_speech && !is_open)
                started[starts++] = r;
        } else if (is_open && until - end[r] < stop_samples) {
            state[r] = STOPPING;
        } else {
            state[r] = QUIET;
            if (is_open)
                stopped[stops++] = r;
        }
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
