/* From datagrams to the packets in sequence: parse, look-up, and what each in-sequence packet changes
 * in the state of its track. Each function does what its twin in Python does, which is named beside
 * it, in one pass. */

#include "kernel.h"

static inline uint32_t word32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* RTP version 2 without padding, extension or CSRCs, and not RTCP */
static inline int is_bare_rtp(uint32_t word)
{
    return (word & 0xFF000000u) == 0x80000000u && (word & 0x00600000u) != 0x00400000u;
}

enum { KIND_STREP, KIND_RTP, STREP_BYTES = 24, RTP_BYTES = 12, HEADER_WORDS = 9 };

/* strep.wire.batch.PacketBatch.parse: the columns of ordinary datagrams.
 *
 * Returns how many are bare RTP, and how many are neither that nor ordinary STREP: these are named
 * in `odd` and left to the caller. */
FUNCTION(parse)
{
    (void)module;
    Py_buffer *table[1];
    int64_t number[5];
    if (!arguments_of(arguments, count, 1, (Py_ssize_t[]){15}, table, 5, number))
        return NULL;
    int64_t n = number[0], capacity = number[1], slot_bytes = number[2];
    uint8_t strep_kind = (uint8_t)number[3], rtp_kind = (uint8_t)number[4];
    const uint8_t *buffer = table[0][0].buf;
    const int32_t *length = table[0][1].buf, *kept = table[0][2].buf;
    uint8_t *kind = table[0][3].buf, *reason = table[0][4].buf, *side = table[0][5].buf;
    uint64_t *leg_id = table[0][6].buf;
    uint32_t *words = table[0][7].buf;
    int64_t *payload_offset = table[0][8].buf, *payload_bytes = table[0][9].buf;
    int64_t *ssrc = table[0][10].buf, *sequence = table[0][11].buf;
    int64_t *timestamp = table[0][12].buf, *payload_type = table[0][13].buf;
    int64_t *odd = table[0][14].buf;

    int64_t plain = 0, odds = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *slot = buffer + i * slot_bytes;
        for (int w = 0; w < HEADER_WORDS; w++)
            words[w * capacity + i] = word32(slot + 4 * w);
        memcpy(&leg_id[i], slot + 8, 8);
        memcpy(&leg_id[capacity + i], slot + 16, 8);
        side[i] = slot[0] & 3;
        uint32_t first = words[i], behind = words[6 * capacity + i];
        int64_t header_bytes;
        if ((first & 0xFCFF0000u) == 0xC4180000u && is_bare_rtp(behind) &&
            length[i] >= STREP_BYTES + RTP_BYTES && length[i] <= kept[i]) {
            kind[i] = strep_kind;
            header_bytes = STREP_BYTES + RTP_BYTES;
        } else if (is_bare_rtp(first) && length[i] >= RTP_BYTES && length[i] <= kept[i]) {
            kind[i] = rtp_kind;
            header_bytes = RTP_BYTES;
            for (int w = 0; w < 3; w++)
                words[(6 + w) * capacity + i] = words[w * capacity + i];
            plain++;
        } else {
            odd[odds++] = i;
            continue;
        }
        reason[i] = 0;
        payload_offset[i] = header_bytes;
        payload_bytes[i] = length[i] - header_bytes;
        uint32_t rtp = words[6 * capacity + i];
        payload_type[i] = rtp >> 16 & 0x7F;
        sequence[i] = rtp & 0xFFFF;
        timestamp[i] = words[7 * capacity + i];
        ssrc[i] = words[8 * capacity + i];
    }
    return Py_BuildValue("LL", (long long)plain, (long long)odds);
}

/* strep.receive.tracks.TrackTable.lookup. Returns how many keys have no row. */
FUNCTION(lookup)
{
    (void)module;
    Py_buffer *table[2];
    int64_t number[4];
    if (!arguments_of(arguments, count, 2, (Py_ssize_t[]){7, 4}, table, 4, number))
        return NULL;
    int64_t n = number[0], shift = number[1], bucket_shift = number[2], buckets = number[3];
    const uint64_t *multiplier = table[0][0].buf, *key = table[0][5].buf;
    const uint64_t *side_key = table[0][6].buf;
    const int32_t *place = table[0][1].buf;
    const uint64_t *known0 = table[0][2].buf, *known1 = table[0][3].buf;
    const uint8_t *known_side = table[0][4].buf;
    const uint64_t *word0 = table[1][0].buf, *word1 = table[1][1].buf;
    const uint8_t *side = table[1][2].buf;
    int64_t *row = table[1][3].buf;

    int64_t missing = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t mixed = (word0[i] ^ word0[i] >> 32) * key[0] + (word1[i] ^ word1[i] >> 32) * key[1] +
                         side_key[side[i]];
        mixed *= multiplier[mixed >> bucket_shift & (uint64_t)(buckets - 1)];
        row[i] = place[mixed >> shift];
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t at = row[i];
        if (known_side[at] != side[i] || known0[at] != word0[i] || known1[at] != word1[i]) {
            row[i] = -1;
            missing++;
        }
    }
    return PyLong_FromLongLong(missing);
}

/* strep.receive.gate.Gate.strangers. Returns how many packets come from elsewhere. */
FUNCTION(strangers)
{
    (void)module;
    Py_buffer *table[2];
    int64_t n;
    if (!arguments_of(arguments, count, 2, (Py_ssize_t[]){1, 4}, table, 1, &n))
        return NULL;
    const uint64_t *pin = table[0][0].buf, *source = table[1][2].buf;
    const int64_t *row = table[1][0].buf, *slot = table[1][1].buf;
    int64_t *found = table[1][3].buf;

    int64_t strangers = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint64_t *own = pin + 2 * row[i], *from = source + 3 * slot[i]; /* with the port */
        found[strangers] = i;
        strangers += own[0] != from[0] || own[1] != from[1];
    }
    return PyLong_FromLongLong(strangers);
}

/* Frames of one codec and one length, the same how-manieth of their tracks. */
typedef struct {
    int64_t round, payload_type, size, frames, gaps;
} Group;

/* Those of pipeline.playout. */
#define SECOND_NS INT64_C(1000000000)
#define LONGEST_NS (86400 * SECOND_NS)
#define MOST_LATE_NS (1 * SECOND_NS)
#define BREAK_NS (1 * SECOND_NS)
#define PAUSE_NS (SECOND_NS / 2)
enum { LEAK_BITS = 10 };

static inline int64_t clamp(int64_t value, int64_t most)
{
    return value > most ? most : value < -most ? -most : value;
}

enum { MAX_GROUPS = 1024, ROUND_BITS = 16, LEFT_OUT = (1 << ROUND_BITS) - 1 };

static int is_same(const Group *one, const Group *other)
{
    return one->round == other->round && one->payload_type == other->payload_type &&
           one->size == other->size;
}

/* pipeline.pipeline.Pipeline.push for packets that go straight through: in sequence, of the
 * track's source, with nothing held, and with audio of the track's codec whose timestamp continues
 * the track's or leaves a gap that is believed, and that does not come far too late after a pause.
 * The first packet of a track that does not, and all that come behind it, are named in `odd` and
 * left to the caller, who takes them afterwards.
 *
 * `mark` has an entry for each row and is not to be touched; `epoch` is another number, above 0, at
 * each call; `max_ahead_ns` is the playout's. Returns the groups, a list of (frames, payload type,
 * bytes, frames behind a gap) in the order in which they lie in `out`; how many are odd; and how
 * many gaps of silence there were, and samples in them. */
FUNCTION(advance)
{
    (void)module;
    Py_buffer *table[3];
    int64_t number[3];
    if (!arguments_of(arguments, count, 3, (Py_ssize_t[]){27, 9, 10}, table, 3, number))
        return NULL;
    int64_t n = number[0], epoch = number[1], max_ahead_ns = number[2];

    const Py_buffer *state = table[0], *packet = table[1], *out = table[2];
    int64_t *next_sequence = state[0].buf, *ssrc = state[1].buf;
    uint64_t *behind = state[2].buf, *ahead = state[3].buf;
    uint32_t *packets_by_type = state[4].buf;
    int64_t *bytes = state[5].buf, *first_ns = state[6].buf, *last_ns = state[7].buf;
    double *jitter_ns = state[8].buf, *jitter_max_ns = state[9].buf, *jitter_sum_ns = state[10].buf;
    int64_t *clocked_ns = state[11].buf, *clocked_timestamp = state[12].buf;
    int64_t *uncompared = state[13].buf;
    int64_t *end = state[14].buf, *next_timestamp = state[15].buf, *next_ns = state[16].buf;
    int64_t *late_ns = state[17].buf, *rate_hz = state[18].buf;
    int64_t *gaps = state[19].buf, *silence = state[20].buf;
    const uint8_t *needs_care = state[21].buf;
    const int64_t *rate_of_type = state[22].buf, *max_gap_of_type = state[23].buf;
    int64_t *mark = state[24].buf;
    int8_t *codec = state[25].buf;
    const int64_t *codec_of_type = state[26].buf;

    const int64_t *row = packet[0].buf, *p_ssrc = packet[1].buf, *p_sequence = packet[2].buf;
    const int64_t *p_timestamp = packet[3].buf, *p_type = packet[4].buf, *p_ns = packet[5].buf;
    const int64_t *p_slot = packet[6].buf, *p_offset = packet[7].buf, *p_length = packet[8].buf;

    int64_t *o_row = out[0].buf, *o_slot = out[1].buf, *o_offset = out[2].buf;
    int64_t *o_position = out[3].buf, *o_gap = out[4].buf, *o_ns = out[5].buf;
    int64_t *odd = out[6].buf;
    int64_t *group_of = out[7].buf, *position_of = out[8].buf, *gap_of = out[9].buf;

    Group group[MAX_GROUPS];
    int64_t last_of_round[MAX_GROUPS]; /* where to look first */
    int64_t rounds = 0, groups = 0, odds = 0, gaps_in_all = 0, silence_in_all = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t r = row[i], type = p_type[i], size = p_length[i], rate = rate_of_type[type];
        int64_t round = mark[r] >> ROUND_BITS == epoch ? mark[r] & LEFT_OUT : 0;
        int64_t gap = 0, g = 0, waited = 0, late = 0;
        int is_straight = round < LEFT_OUT && p_sequence[i] == next_sequence[r] &&
                          p_ssrc[i] == ssrc[r] && !ahead[r] && rate && size && !needs_care[r] &&
                          (!codec[r] || codec[r] == codec_of_type[type]);
        if (is_straight && end[r] > 0) {
            gap = (int32_t)(uint32_t)(p_timestamp[i] - next_timestamp[r]);
            is_straight = gap >= 0 && gap <= max_gap_of_type[type] && rate_hz[r] == rate;
            waited = clamp(p_ns[i] - next_ns[r], LONGEST_NS);
            late = late_ns[r] + waited;
            if (gap) {
                late -= gap * SECOND_NS / rate;
                is_straight = is_straight && late >= -max_ahead_ns;
            } else if (late < 0 && late < late_ns[r]) {
                late = late_ns[r] < 0 ? late_ns[r] : 0; /* audio may come early, a gap may not */
            }
            is_straight = is_straight && (late <= MOST_LATE_NS || waited <= PAUSE_NS);
        }
        if (is_straight) {
            const Group wanted = {round, type, size, 0, 0};
            if (round < rounds && is_same(&group[last_of_round[round]], &wanted)) {
                g = last_of_round[round];
            } else {
                while (g < groups && !is_same(&group[g], &wanted))
                    g++;
                is_straight = g < MAX_GROUPS;
            }
        }
        if (!is_straight) {
            odd[odds++] = i;
            mark[r] = epoch << ROUND_BITS | LEFT_OUT;
            group_of[i] = -1;
            continue;
        }
        if (g == groups)
            group[groups++] = (Group){round, type, size, 0, 0};
        if (round == rounds)
            rounds++;
        last_of_round[round] = g;
        group[g].frames++;
        group[g].gaps += gap != 0;
        group_of[i] = g;
        mark[r] = epoch << ROUND_BITS | (round + 1);

        next_sequence[r] = (p_sequence[i] + 1) & 0xFFFF;
        behind[r] = behind[r] << 1 | 1;

        packets_by_type[r * 128 + type]++;
        bytes[r] += size;
        last_ns[r] = p_ns[i];
        if (first_ns[r] < 0)
            first_ns[r] = p_ns[i];
        double jitter = jitter_ns[r], difference = 0;
        int is_compared = clocked_ns[r] >= 0;
        if (is_compared) {
            int64_t elapsed = (int32_t)(uint32_t)(p_timestamp[i] - clocked_timestamp[r]);
            difference = (double)elapsed * (1e9 / (double)rate);
            difference -= (double)(p_ns[i] - clocked_ns[r]);
            difference = difference < 0 ? -difference : difference;
            is_compared = difference <= (double)BREAK_NS;
        }
        if (is_compared) {
            jitter = (difference - jitter) * (1.0 / 16) + jitter;
            jitter_ns[r] = jitter;
            jitter_sum_ns[r] += jitter;
            if (jitter_max_ns[r] < jitter)
                jitter_max_ns[r] = jitter;
        } else {
            uncompared[r]++;
        }
        clocked_ns[r] = p_ns[i];
        clocked_timestamp[r] = p_timestamp[i];

        int64_t position = end[r] + gap;
        position_of[i] = position;
        gap_of[i] = gap;
        if (gap) {
            gaps[r]++;
            silence[r] += gap;
            gaps_in_all++;
            silence_in_all += gap;
        }
        end[r] = position + size;
        next_timestamp[r] = (p_timestamp[i] + size) & 0xFFFFFFFF;
        int64_t frame_ns = size * SECOND_NS / rate;
        next_ns[r] = p_ns[i] + frame_ns;
        int64_t elapsed = waited + frame_ns;
        late_ns[r] = late - clamp(late, elapsed > 0 ? elapsed >> LEAK_BITS : 0);
        rate_hz[r] = rate;
        codec[r] = (int8_t)codec_of_type[type];
    }

    /* a track's frames stay in their order when those of an earlier round lie before */
    int64_t order[MAX_GROUPS], at[MAX_GROUPS], total = 0;
    for (int64_t g = 0; g < groups; g++) {
        int64_t to = g;
        for (; to > 0 && group[order[to - 1]].round > group[g].round; to--)
            order[to] = order[to - 1];
        order[to] = g;
    }
    PyObject *list = PyList_New(groups);
    if (list == NULL)
        return NULL;
    for (int64_t k = 0; k < groups; k++) {
        const Group *each = &group[order[k]];
        at[order[k]] = total;
        total += each->frames;
        PyObject *entry = Py_BuildValue("LLLL", (long long)each->frames,
                                        (long long)each->payload_type, (long long)each->size,
                                        (long long)each->gaps);
        if (entry == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SetItem(list, k, entry);
    }
    /* the frames of a group come to lie together, in the order of arrival */
    for (int64_t i = 0; i < n; i++) {
        int64_t g = group_of[i];
        if (g < 0)
            continue;
        int64_t to = at[g]++;
        o_row[to] = row[i];
        o_slot[to] = p_slot[i];
        o_offset[to] = p_offset[i];
        o_position[to] = position_of[i];
        o_gap[to] = gap_of[i];
        o_ns[to] = p_ns[i];
    }
    return Py_BuildValue("NLLL", list, (long long)odds, (long long)gaps_in_all,
                         (long long)silence_in_all);
}
