/* From the socket into a batch. */

#define _GNU_SOURCE /* recvmmsg */
#include "kernel.h"

#ifdef __linux__
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>

enum { ENDPOINT_BYTES = 24, NAME_BYTES = 32 };

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* When datagrams were read, and what moves their wall-clock times to the monotonic clock. */
typedef struct {
    int64_t now_ns, since_ns, moved_ns;
} Reading;

/* Returns what is true of datagrams that were read just now, and notes whether that left the socket
 * empty. */
static Reading read_now(int64_t *empty_ns, int is_empty)
{
    Reading reading = {.now_ns = clock_ns(CLOCK_MONOTONIC), .since_ns = *empty_ns};
    reading.moved_ns = reading.now_ns - clock_ns(CLOCK_REALTIME);
    if (is_empty)
        *empty_ns = reading.now_ns;
    return reading;
}

/* Returns the time of arrival in a control message, `stamp` its first word; 0: there are none. */
static int64_t arrival_of(const int64_t *message, int64_t stamp, Reading reading)
{
    if (!stamp || message[1] != stamp)
        return reading.now_ns;
    int64_t then_ns = message[2] * INT64_C(1000000000) + message[3] + reading.moved_ns;
    /* the wall clock may have stepped since; and the two were read one after the other */
    if (then_ns < reading.since_ns)
        then_ns = reading.since_ns;
    return then_ns > reading.now_ns ? reading.now_ns : then_ns;
}

/* Turns an address into the layout of strep.wire.endpoint. */
static void endpoint_of(const void *name, uint8_t *endpoint)
{
    const struct sockaddr_in *v4 = name;
    const struct sockaddr_in6 *v6 = name;
    memset(endpoint, 0, ENDPOINT_BYTES);
    if (v4->sin_family == AF_INET) {
        endpoint[10] = endpoint[11] = 0xFF;
        memcpy(endpoint + 12, &v4->sin_addr, 4);
        memcpy(endpoint + 16, &v4->sin_port, 2);
    } else {
        memcpy(endpoint, &v6->sin6_addr, 16);
        memcpy(endpoint + 16, &v6->sin6_port, 2);
    }
}

/* strep.receive.readers.RecvmmsgReader: add to a batch from slot `start` on.
 *
 * Where the socket was seen empty last, and here again, stands behind its address.
 * Returns how many datagrams came, or the negative of errno. `stamp` is the first word of a control
 * message with the time of arrival, 0 where there are none. */
FUNCTION(receive)
{
    enum { CONTROL_WORDS = 4 };
    (void)module;
    Py_buffer *table[2];
    int64_t number[4];
    if (!arguments_of(arguments, count, 2, (Py_ssize_t[]){7, 2}, table, 4, number))
        return NULL;
    int fd = (int)number[0];
    int64_t start = number[1], capacity = number[2], stamp = number[3];
    struct mmsghdr *header = table[0][0].buf;
    const uint8_t *name = table[0][1].buf;
    const int64_t *control = table[0][2].buf;
    int32_t *length = table[0][3].buf;
    int64_t *arrival_ns = table[0][4].buf;
    uint8_t *source = table[0][5].buf, *destination = table[0][6].buf;
    const uint8_t *local = table[1][0].buf;
    int64_t *empty_ns = table[1][1].buf;

    int got;
    Py_BEGIN_ALLOW_THREADS;
    got = recvmmsg(fd, header + start, (unsigned)(capacity - start), MSG_DONTWAIT | MSG_TRUNC, NULL);
    if (got < 0)
        got = -errno;
    Py_END_ALLOW_THREADS;

    Reading reading = read_now(empty_ns, got < capacity - start);
    for (int64_t i = start; i < start + got; i++) {
        arrival_ns[i] = arrival_of(control + i * CONTROL_WORDS, stamp, reading);
        length[i] = (int32_t)header[i].msg_len;
        endpoint_of(name + i * NAME_BYTES, source + i * ENDPOINT_BYTES);
        memcpy(destination + i * ENDPOINT_BYTES, local, ENDPOINT_BYTES);
        /* the kernel wrote how much it used of these */
        header[i].msg_hdr.msg_namelen = NAME_BYTES;
        header[i].msg_hdr.msg_controllen = CONTROL_WORDS * 8;
    }
    return PyLong_FromLong(got);
}

/* strep.receive.readers.MergedReader: add to a batch from slot `start` on, out of messages that hold
 * one datagram or several, each as long as a control message says, the last one what is left.
 *
 * `progress` remembers between calls what the batch had no room for: how many messages came, which
 * is next, from which byte on, and their `Reading`; and it counts errors, and datagrams that did not
 * come alone. Returns how many datagrams there were. */
FUNCTION(receive_merged)
{
    enum { CONTROL_WORDS = 8, CAME = 0, NEXT, FROM_BYTE, NOW, SINCE, MOVED, ERRORS, MERGED };
    (void)module;
    Py_buffer *table[3];
    int64_t number[6];
    if (!arguments_of(arguments, count, 3, (Py_ssize_t[]){5, 6, 2}, table, 6, number))
        return NULL;
    int fd = (int)number[0];
    int64_t start = number[1], capacity = number[2], slot_bytes = number[3];
    int64_t stamp = number[4], merged = number[5];
    struct mmsghdr *header = table[0][0].buf;
    const uint8_t *name = table[0][1].buf, *message = table[0][3].buf;
    int64_t *control = table[0][2].buf, *progress = table[0][4].buf;
    uint8_t *slot = table[1][0].buf;
    int32_t *length = table[1][1].buf, *kept = table[1][2].buf;
    int64_t *arrival_ns = table[1][3].buf;
    uint8_t *source = table[1][4].buf, *destination = table[1][5].buf;
    const uint8_t *local = table[2][0].buf;
    int64_t *empty_ns = table[2][1].buf;
    int64_t messages = table[0][0].len / (int64_t)sizeof *header;
    int64_t message_bytes = table[0][3].len / messages;

    int64_t i = start;
    Py_BEGIN_ALLOW_THREADS;
    int is_empty = 0;
    while (i < capacity) {
        if (progress[NEXT] == progress[CAME]) {
            if (is_empty)
                break;
            int got = recvmmsg(fd, header, (unsigned)messages, MSG_DONTWAIT, NULL);
            if (got < 0 && errno != EAGAIN && errno != EINTR)
                progress[ERRORS]++;
            is_empty = got < messages;
            Reading reading = read_now(empty_ns, is_empty);
            progress[NOW] = reading.now_ns;
            progress[SINCE] = reading.since_ns;
            progress[MOVED] = reading.moved_ns;
            progress[CAME] = got < 0 ? 0 : got;
            progress[NEXT] = progress[FROM_BYTE] = 0;
            continue;
        }
        int64_t m = progress[NEXT], from = progress[FROM_BYTE], total = header[m].msg_len;
        /* what stands behind the part that was used is of an earlier message */
        int64_t *word = control + m * CONTROL_WORDS;
        int64_t *end = word + header[m].msg_hdr.msg_controllen / 8;
        Reading reading = {progress[NOW], progress[SINCE], progress[MOVED]};
        int64_t then_ns = reading.now_ns, each_bytes = total;
        if (end - word >= 4 && word[1] == stamp) {
            then_ns = arrival_of(word, stamp, reading);
            word += 4;
        }
        if (end - word >= 3 && word[1] == merged && *(int32_t *)(word + 2) > 0)
            each_bytes = *(int32_t *)(word + 2);
        const uint8_t *bytes = message + m * message_bytes;
        uint8_t endpoint[ENDPOINT_BYTES];
        endpoint_of(name + m * NAME_BYTES, endpoint);
        do { /* also for a datagram of no bytes */
            int64_t size = total - from < each_bytes ? total - from : each_bytes;
            memcpy(slot + i * slot_bytes, bytes + from, (size_t)(size < slot_bytes ? size : slot_bytes));
            length[i] = (int32_t)size;
            kept[i] = (int32_t)slot_bytes;
            arrival_ns[i] = then_ns;
            memcpy(source + i * ENDPOINT_BYTES, endpoint, ENDPOINT_BYTES);
            memcpy(destination + i * ENDPOINT_BYTES, local, ENDPOINT_BYTES);
            progress[MERGED] += size < total;
            from += size;
            i++;
        } while (from < total && i < capacity);
        progress[FROM_BYTE] = from;
        if (from >= total) {
            /* the kernel wrote how much it used of these */
            header[m].msg_hdr.msg_namelen = NAME_BYTES;
            header[m].msg_hdr.msg_controllen = CONTROL_WORDS * 8;
            progress[NEXT] = m + 1;
            progress[FROM_BYTE] = 0;
        }
    }
    Py_END_ALLOW_THREADS;
    return PyLong_FromLongLong(i - start);
}
#else
static PyObject *needs_linux(void)
{
    PyErr_SetString(PyExc_NotImplementedError, "recvmmsg needs Linux");
    return NULL;
}

FUNCTION(receive)
{
    (void)module, (void)arguments, (void)count;
    return needs_linux();
}

FUNCTION(receive_merged)
{
    (void)module, (void)arguments, (void)count;
    return needs_linux();
}
#endif
