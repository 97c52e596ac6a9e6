/* The floor: what it costs to take datagrams from the kernel and do nothing with them.
 *
 *     floor PORT BUFFER_BYTES TICK_MS WITH_METADATA
 *
 * Takes batches of up to 1,024 with recvmmsg and counts them. It sleeps like the daemon, so that
 * batches are as large: in poll while nothing comes, else until the next tick of a fixed grid,
 * where it empties the socket. WITH_METADATA 1 asks for what a receiver of calls needs beside
 * the payload: kernel arrival times and source addresses.
 *
 * Prints {"ready": true} when it can be sent to, and its counts as JSON when SIGTERM ends it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 1024, SLOT = 1600, CONTROL = 32, NAME = 32 };
static const int64_t IDLE_AFTER_NS = 200 * 1000 * 1000;

static unsigned char slots[BATCH][SLOT];
static unsigned char control[BATCH][CONTROL] __attribute__((aligned(8)));
static unsigned char names[BATCH][NAME];
static struct iovec iovecs[BATCH];
static struct mmsghdr headers[BATCH];
static volatile sig_atomic_t stopping;

static void stop(int number) { (void)number; stopping = 1; }

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_socket(int port, int buffer_bytes, int with_metadata) {
    int on = 1;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof buffer_bytes);
    if (with_metadata && setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on)) die("timestamps");
    if (bind(fd, (struct sockaddr *)&address, sizeof address)) die("bind");
    return fd;
}

static void prepare(int with_metadata) {
    for (int i = 0; i < BATCH; i++) {
        struct msghdr *header = &headers[i].msg_hdr;
        iovecs[i] = (struct iovec){slots[i], SLOT};
        header->msg_iov = &iovecs[i];
        header->msg_iovlen = 1;
        if (with_metadata) {
            header->msg_name = names[i];
            header->msg_namelen = NAME;
            header->msg_control = control[i];
            header->msg_controllen = CONTROL;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: floor PORT BUFFER_BYTES TICK_MS WITH_METADATA\n");
        return 2;
    }
    int with_metadata = atoi(argv[4]);
    int fd = open_socket(atoi(argv[1]), atoi(argv[2]), with_metadata);
    int64_t tick_ns = atoll(argv[3]) * 1000000, last_packet = now_ns(), due = last_packet;
    uint64_t packets = 0, batches = 0;
    struct sigaction action = {.sa_handler = stop};

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    prepare(with_metadata);
    printf("{\"ready\": true}\n");
    fflush(stdout);

    while (!stopping) {
        int64_t now = now_ns();
        if (now - last_packet > IDLE_AFTER_NS) {
            struct pollfd waiting = {.fd = fd, .events = POLLIN};
            poll(&waiting, 1, 250);
            due = now = now_ns();
        }
        for (;;) {
            int n = recvmmsg(fd, headers, BATCH, MSG_DONTWAIT, NULL);
            if (n <= 0) break;
            packets += (uint64_t)n;
            batches++;
            last_packet = now;
            if (with_metadata)
                for (int i = 0; i < n; i++) {
                    headers[i].msg_hdr.msg_namelen = NAME;
                    headers[i].msg_hdr.msg_controllen = CONTROL;
                }
            if (n < BATCH) break;
        }
        due = due + tick_ns > now ? due + tick_ns : now;
        struct timespec until = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
        if (last_packet == now || now - last_packet <= IDLE_AFTER_NS)
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }

    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"packets\": %llu, \"batches\": %llu, \"user_s\": %ld.%06ld, \"system_s\": %ld.%06ld}\n",
           (unsigned long long)packets, (unsigned long long)batches,
           (long)used.ru_utime.tv_sec, (long)used.ru_utime.tv_usec,
           (long)used.ru_stime.tv_sec, (long)used.ru_stime.tv_usec);
    return 0;
}
