/*
 * malloc of the host's C library, under the same workloads (test/bench/workloads.ts). Reads a workload's name a line
 * and answers with one line of JSON: nanoseconds per operation. L1 is measured by whoever asks.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 1000
#define MANY 1000000
#define TABLE (1 << 16)
#define TIMED_NS 12e6

static volatile uint64_t sink;
static void *slots[MANY];
static int32_t picks[TABLE], next_sizes[TABLE];
static int order[BATCH];

/* Processor time, as the others have it. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static uint32_t seed;
static uint32_t below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed % n;
}

static inline void *take(size_t size, int value)
{
    volatile int32_t *object = malloc(size);
    object[0] = value;
    object[1] = value;
    return (void *)object;
}

static void pairs(long count, size_t size)
{
    uint64_t sum = 0;
    for (long i = 0; i < count; i++) {
        void *object = take(size, i);
        sum += (uintptr_t)object;
        free(object);
    }
    sink = sum;
}

static void batches(long count)
{
    uint64_t sum = 0;
    for (long n = 0; n < count; n++) {
        for (int i = 0; i < BATCH; i++) sum += (uintptr_t)(slots[i] = take(64, i));
        for (int i = 0; i < BATCH; i++) free(slots[order[i]]);
    }
    sink = sum;
}

static size_t bytes(int orders, int size) { return orders ? (size_t)4096 << size : (size_t)size; }

static unsigned long at;
static void replace(long count, int orders)
{
    uint64_t sum = 0;
    for (long i = 0; i < count; i++, at++) {
        int slot = picks[at % TABLE];
        free(slots[slot]);
        slots[slot] = take(bytes(orders, next_sizes[at % TABLE]), i);
        sum += (uintptr_t)slots[slot];
    }
    sink = sum;
}

static void set_pattern(const char *key)
{
    seed = 1;
    for (int i = 0; i < BATCH; i++) order[i] = strcmp(key, "W2 LIFO") ? i : BATCH - 1 - i;
    if (!strcmp(key, "W2 random"))
        for (int i = BATCH - 1; i > 0; i--) {
            int j = below(i + 1), was = order[i];
            order[i] = order[j];
            order[j] = was;
        }
    seed = strcmp(key, "W3l") ? 3 : 2;
    int live = strcmp(key, "W5b") ? 10000 : 200;
    for (int i = 0; i < TABLE; i++) picks[i] = below(live);
    for (int i = 0; i < TABLE; i++) {
        double log = 9 * (below(1 << 20) / (double)(1 << 20)), value = 8;
        for (; log >= 1; log -= 1) value *= 2;
        value *= 1 + log * (0.6565 + log * 0.3435); /* 2^log to a quarter of a percent */
        next_sizes[i] = !strcmp(key, "W5b") ? (int)below(10) : !strcmp(key, "W3u") ? 8 + (int)below(4089) : (int)value;
    }
}

/* Nanoseconds per operation of one timed call; `free_ns` is set by W4 alone. */
static double run(const char *key, double *free_ns)
{
    set_pattern(key);
    if (!strcmp(key, "W4")) {
        double start = now();
        for (int i = 0; i < MANY; i++) slots[i] = take(192, i);
        double grown = now();
        for (int i = 0; i < MANY; i++) free(slots[i]);
        *free_ns = (now() - grown) / MANY;
        return (grown - start) / MANY;
    }
    int w2 = !strncmp(key, "W2", 2), w3 = !strncmp(key, "W3", 2), w5b = !strcmp(key, "W5b");
    int live = w5b ? 200 : w3 ? 10000 : 0;
    for (int i = 0; i < live; i++) slots[i] = take(bytes(w5b, next_sizes[i]), i);
    if (live) replace(20000, w5b);
    double took = 0;
    long count = 16;
    while (took < TIMED_NS / 2) {
        double start = now();
        if (live) replace(count, w5b);
        else if (w2) batches(count);
        else pairs(count, strcmp(key, "W5a") ? 64 : 4096);
        took = now() - start;
        if (took < TIMED_NS / 2) count *= 2;
    }
    for (int i = 0; i < live; i++) free(slots[i]);
    return took / count / (w2 ? BATCH : 1);
}

int main(void)
{
    char key[64];
    while (fgets(key, sizeof key, stdin)) {
        key[strcspn(key, "\n")] = 0;
        double free_ns = 0, ns = run(key, &free_ns);
        if (free_ns) printf("{\"ns\":{\"W4 grow\":%f,\"W4 free\":%f}}\n", ns, free_ns);
        else printf("{\"ns\":{\"%s\":%f}}\n", key, ns);
        fflush(stdout);
    }
    return 0;
}
